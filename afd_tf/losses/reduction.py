"""Sums of losses: from one value per example to what an optimizer minimises."""

import functools
import operator

from keras import ops


def add_in_order(tensors):
    """Add tensors of one shape, the first to the last.

    TensorFlow's AddN adds in the order in which buffers come free, so that the last
    digits of three or more vary from run to run.

    Args:
        tensors: list of at least one float tensor, of the same shape and dtype.

    Returns:
        Tensor of that shape and dtype.
    """
    return functools.reduce(operator.add, tensors)


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
