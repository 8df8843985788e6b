"""Results: finished runs to tables, comparisons and charts. No TensorFlow."""
