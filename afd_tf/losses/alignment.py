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


def attention(own_map, source_map):
    """Compute the attention transfer loss (Zagoruyko and Komodakis 2017, equation 2).

    With `Q = sum_c h_c^2` over channels, flattened per image to `n = height * width`
    numbers: `mean_i (Q_k,i / |Q_k| - Q_j,i / |Q_j|)^2`, norms Euclidean. The mean over
    the n positions of squares, not the equation's norm, is what the authors' code
    takes, with a factor of 1000 (there beta) in front.

    Args:
        own_map: float tensor `(batch, height, width, channels)`, own map.
        source_map: float tensor `(batch, height, width, any channels)`; a constant, it
            gets no gradient.

    Returns:
        float32 tensor `(batch,)`, in [0, 2 / n].
    """
    own, source = (
        _unit(ops.sum(ops.square(ops.cast(m, "float32")), axis=-1))
        for m in (own_map, source_map)
    )
    return ops.mean(ops.square(own - ops.stop_gradient(source)), axis=-1)


def factor(own_factor, source_factor):
    """Compute the factor transfer loss (Kim, Park and Kwak 2018, equation 3, p = 1).

    With factors F flattened per image to n numbers:
    `mean_i |F_k,i / |F_k| - F_j,i / |F_j||`, norms Euclidean. The mean over the n
    elements in place of the equation's sum is what the authors' code takes, with a
    factor of 500 (there beta) in front.

    Args:
        own_factor: float tensor `(batch, height, width, channels)`, the translator's.
        source_factor: float tensor of the same shape, the paraphraser's; a constant,
            it gets no gradient.

    Returns:
        float32 tensor `(batch,)`.
    """
    own, source = (_unit(ops.cast(m, "float32")) for m in (own_factor, source_factor))
    return ops.mean(ops.abs(own - ops.stop_gradient(source)), axis=-1)


def _unit(tensor):
    """Flatten to `(batch, n)` and divide each row by its Euclidean norm."""
    flat = ops.reshape(tensor, (ops.shape(tensor)[0], -1))
    # A floor below which rows stay short, so that the gradient at zero is finite.
    square = ops.maximum(ops.sum(ops.square(flat), axis=-1, keepdims=True), 1e-12)
    return flat * ops.rsqrt(square)
