"""The discriminator of feature maps (paper, E2 and E3)."""

import keras

from afd_tf.errors import invalid
from afd_tf.networks.architectures.blocks import check_shape, leaky_relu
from afd_tf.networks.layers.batch_statistics import make_batch_statistics_normalization
from afd_tf.networks.layers.normalization import check_kind

_SLOPE = 0.2


def discriminator(
    map_shape,
    *,
    channels=(64, 128, 256),
    normalization="batch",
    name="discriminator",
):
    """Build a discriminator: one number in (0, 1) per feature map.

    Blocks of a 3x3 convolution with stride 2 (1 once the map is 2x2 or smaller),
    normalisation and LeakyReLU 0.2, then global average pooling, a dense layer and a
    sigmoid in float32. The normalisation always uses the batch's own statistics and
    keeps none, so that no pass through a discriminator moves a variable and `training`
    makes no difference. Real and own maps given in separate batches are normalised
    separately.

    Args:
        map_shape: (height, width, channels) of the (transferred) feature maps.
        channels: tuple of int, one block each.
        normalization: "batch" (per replica), "sync" (over replicas) or "none"
            (convolutions have a bias instead).
        name: str, the model's name.

    Returns:
        A Functional keras.Model from maps `(batch, height, width, channels)` to
        float32 `(batch, 1)`: near 1 for maps it takes for the source network's.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> discriminator((8, 8, 64)).output_shape
        (None, 1)
    """
    check_kind(normalization)
    check_shape("map_shape", map_shape)
    if not channels or not all(n > 0 for n in channels):
        raise invalid("channels", "at least one positive int", channels)
    x = feature_map = keras.Input(map_shape, name="feature_map")
    for block, filters in enumerate(channels, start=1):
        x = keras.layers.Conv2D(
            filters,
            3,
            strides=2 if max(x.shape[1:3]) > 2 else 1,
            padding="same",
            use_bias=normalization == "none",
            kernel_initializer=keras.initializers.VarianceScaling(
                scale=2.0 / (1.0 + _SLOPE**2), distribution="untruncated_normal"
            ),
            name=f"conv{block}",
        )(x)
        layer = make_batch_statistics_normalization(normalization, name=f"norm{block}")
        if layer is None:
            x = leaky_relu(x, _SLOPE)
        else:
            x = keras.layers.LeakyReLU(_SLOPE, name=f"relu{block}")(layer(x))
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
    x = keras.layers.Dense(1, dtype="float32", name="dense")(x)
    x = keras.layers.Activation("sigmoid", dtype="float32", name="probability")(x)
    return keras.Model(feature_map, x, name=name)
