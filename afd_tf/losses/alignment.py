"""Direct alignment of feature maps, to which the paper compares its own loss."""

from keras import ops


def _difference(own_map, source_map):
    source = ops.stop_gradient(ops.cast(source_map, "float32"))
    return ops.cast(own_map, "float32") - source


def l1(own_map, source_map):
    """Compute the mean absolute difference of two feature maps.

    Args:
        own_map: float tensor `(batch, height, width, channels)`, transferred own map.
        source_map: float tensor of the same shape; a constant, it gets no gradient.

    Returns:
        float32 tensor `(batch,)`: mean over the elements of a map.
    """
    return ops.mean(ops.abs(_difference(own_map, source_map)), axis=(1, 2, 3))


def l2(own_map, source_map):
    """Compute the mean squared difference of two feature maps.

    Args:
        own_map: float tensor `(batch, height, width, channels)`, transferred own map.
        source_map: float tensor of the same shape; a constant, it gets no gradient.

    Returns:
        float32 tensor `(batch,)`: mean over the elements of a map.
    """
    return ops.mean(ops.square(_difference(own_map, source_map)), axis=(1, 2, 3))
