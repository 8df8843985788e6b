"""The feature-map-based losses, equations E2 and E3: a least-squares GAN."""

from keras import ops


def _per_example(outputs):
    return ops.reshape(ops.cast(outputs, "float32"), (-1,))


def discriminator_loss(real, own):
    """Compute E2 per example: `(1 - D_k(T_j(G_j(x))))^2 + D_k(T_k(G_k(x)))^2`.

    Args:
        real: float tensor `(batch,)` or `(batch, 1)` in (0, 1): output of D_k for the
            map of the network that is learned from, which it should take for real.
        own: float tensor of the same shape: output of D_k for its own network's map,
            which it should take for fake.

    Returns:
        float32 tensor `(batch,)`, in [0, 2].
    """
    return ops.square(1.0 - _per_example(real)) + ops.square(_per_example(own))


def generator_loss(own):
    """Compute E3 per example: `(1 - D_k(T_k(G_k(x))))^2`.

    Args:
        own: float tensor `(batch,)` or `(batch, 1)` in (0, 1): output of D_k for its
            own network's map, which that network wants to pass for real.

    Returns:
        float32 tensor `(batch,)`, in [0, 1].
    """
    return ops.square(1.0 - _per_example(own))
