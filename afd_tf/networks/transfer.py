"""Transfer layers, which bring feature maps of different networks to one shape."""

import keras

from afd_tf.networks.architectures.blocks import check_shape, leaky_relu
from afd_tf.networks.layers.batch_statistics import make_batch_statistics_normalization
from afd_tf.networks.layers.normalization import check_kind

_SLOPE = 0.2


def transfer_layers(map_shapes, normalization=False):
    """Make the transfer layers T_k of the adversarial loss (paper, E2 and E3).

    Args:
        map_shapes: list of (height, width, channels), one per network.
        normalization: bool or str, what follows the convolution: nothing (False), or
            normalisation by the batch's own statistics and LeakyReLU 0.2 (True or
            "batch" per replica, "sync" over replicas, "none" LeakyReLU alone).

    Returns:
        List with one entry per network: all None if the maps have equal channels,
        otherwise a keras.Model each, a 1x1 convolution from maps `(batch, h, w, own)`
        to `(batch, h, w, largest)`, named "transfer", "transfer_2", ...

    Raises:
        ValueError: if a shape or `normalization` is invalid.

    Example:
        >>> [layer.output_shape for layer in transfer_layers([(8, 8, 64), (8, 8, 128)])]
        [(None, None, None, 128), (None, None, None, 128)]
    """
    channels = [_channels(shape) for shape in map_shapes]
    if len(set(channels)) <= 1:
        return [None] * len(channels)
    return [
        pointwise(
            own,
            max(channels),
            normalization,
            name="transfer" if i == 0 else f"transfer_{i + 1}",
        )
        for i, own in enumerate(channels)
    ]


def alignment_transfer(own_shape, source_shape, name="alignment_transfer"):
    """Make the transfer T_{k->j} of direct alignment, onto the source's raw map.

    Args:
        own_shape: (height, width, channels) of the network's own map.
        source_shape: likewise of the source network's.
        name: str, the model's name.

    Returns:
        keras.Model, a 1x1 convolution from own to source channels, or None if they
        are equal.

    Raises:
        ValueError: if a shape is invalid.
    """
    own, source = _channels(own_shape), _channels(source_shape)
    return None if own == source else pointwise(own, source, name=name)


def pointwise(own, target, normalization=False, name="transfer"):
    """Make a 1x1 convolution from `own` to `target` channels.

    Args:
        own: int, channels of the maps that come in.
        target: int, channels of those that go out.
        normalization: as in `transfer_layers`.
        name: str, the model's name.

    Returns:
        keras.Model of maps of any height and width. The convolution has a bias unless
        it is normalised.
    """
    kind = {True: "batch", False: "none"}.get(normalization, normalization)
    layer = make_batch_statistics_normalization(check_kind(kind), name="norm")
    feature_map = keras.Input((None, None, own), name="feature_map")
    x = keras.layers.Conv2D(target, 1, use_bias=layer is None, name="conv")(feature_map)
    if layer is not None:
        x = keras.layers.LeakyReLU(_SLOPE, name="relu")(layer(x))
    elif normalization is not False:
        x = leaky_relu(x, _SLOPE)
    return keras.Model(feature_map, x, name=name)


def smallest_size(map_shapes):
    """Return the (height, width) to which maps of different sizes are brought.

    Args:
        map_shapes: list of (height, width, channels).
    """
    return (
        min(shape[0] for shape in map_shapes),
        min(shape[1] for shape in map_shapes),
    )


def match_spatial(feature_map, size):
    """Bring a feature map to a height and width.

    Averages over equal windows where both ratios are whole numbers, otherwise
    interpolates bilinearly (in float32). Differentiable.

    Args:
        feature_map: tensor of shape `(batch, height, width, channels)`, height and
            width known.
        size: (height, width) wanted.

    Returns:
        Tensor of shape `(batch, *size, channels)` and the dtype of the map.
    """
    height, width = feature_map.shape[1:3]
    if (height, width) == tuple(size):
        return feature_map
    if height % size[0] == 0 and width % size[1] == 0:
        window = (height // size[0], width // size[1])
        return keras.ops.average_pool(feature_map, window, window, padding="valid")
    resized = keras.ops.image.resize(
        keras.ops.cast(feature_map, "float32"),
        tuple(size),
        interpolation="bilinear",
        data_format="channels_last",
    )
    return keras.ops.cast(resized, feature_map.dtype)


def _channels(shape):
    check_shape("map_shapes", shape)
    return int(shape[-1])
