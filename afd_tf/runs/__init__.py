"""The run directory: its files, settings and provenance. No TensorFlow."""
