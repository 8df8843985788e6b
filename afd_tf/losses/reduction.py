"""From losses per example to the number an optimizer minimises."""

from keras import ops


def weighted_sum(per_example, sample_weight=None):
    """Sum losses per example, each times its example's weight.

    Dividing the sum by the number of examples of the global batch (not by the sum of
    the weights) gives Keras' `sum_over_batch_size`.

    Args:
        per_example: float tensor `(batch,)`.
        sample_weight: float tensor `(batch,)`, or None for weight 1 each.

    Returns:
        float32 scalar tensor.
    """
    if sample_weight is not None:
        per_example = per_example * ops.cast(sample_weight, "float32")
    return ops.sum(per_example)
