"""DenseNet-BC for small images (Huang et al. 2017)."""

import keras

from afd_tf.errors import positive_int
from afd_tf.networks.architectures.blocks import Builder, check_arguments, check_depth
from afd_tf.networks.architectures.registry import register


@register("densenet<depth>_<growth>", ["densenet40_12", "densenet100_12"])
def densenet(
    depth,
    growth,
    num_classes,
    input_shape=(32, 32, 3),
    *,
    normalization="batch",
    name=None,
):
    """Build a densely connected network, DenseNet-BC of depth L and growth rate k.

    A 3x3 convolution to 2k channels, three stages of n layers, transitions between
    them, normalisation, ReLU, global average pooling and a dense layer. A layer adds k
    channels to its input, by normalisation, ReLU, a 1x1 convolution to 4k channels,
    normalisation, ReLU and a 3x3 convolution. A transition halves the channels
    (rounded down) by normalisation, ReLU and a 1x1 convolution, then the resolution by
    2x2 average pooling.

    Convolutions start normal with variance 2 / (k * k * filters), which the paper
    takes from He et al. 2015, the dense layer uniform in +-1/sqrt(inputs), as in the
    authors' code; biases 0.

    Args:
        depth: int, 6n + 4: 40, 100, 190, ...
        growth: int, the growth rate k.
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images.
        normalization: "batch", "sync" or "none".
        name: str, default "densenet<depth>_<growth>".

    Returns:
        A Functional keras.Model from images `(batch, height, width, channels)` to
        float32 logits `(batch, num_classes)`. Its last feature map, after the last
        ReLU, is the layer "feature_map", `(batch, height/4, width/4, channels)`, with
        342 channels for depth 100 and growth 12.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> densenet(100, 12, num_classes=10).get_layer("feature_map").output.shape
        (None, 8, 8, 342)
    """
    check_depth(depth, remainder=4, smallest=10)
    check_arguments(num_classes, input_shape, normalization)
    positive_int("growth", growth)
    build = Builder(normalization)
    images = keras.Input(input_shape, name="images")
    x = build.convolution(images, 2 * growth, 3, 1, name="conv")
    for stage in (1, 2, 3):
        if stage > 1:
            x = _convolve(build, x, x.shape[-1] // 2, 1, name=f"transition{stage - 1}")
            x = keras.layers.AveragePooling2D(
                2, padding="same", name=f"transition{stage - 1}_pool"
            )(x)
        for layer in range(1, (depth - 4) // 6 + 1):
            part = f"stage{stage}_layer{layer}"
            y = _convolve(build, x, 4 * growth, 1, name=f"{part}_1")
            y = _convolve(build, y, growth, 3, name=f"{part}_2")
            x = keras.layers.Concatenate(name=f"{part}_concat")([x, y])
    x = build.normalize(x, name="norm")
    x = keras.layers.ReLU(name="feature_map")(x)
    logits = build.head(x, num_classes)
    return keras.Model(images, logits, name=name or f"densenet{depth}_{growth}")


def _convolve(build, x, filters, kernel, name):
    """Normalise and rectify before the convolution."""
    x = build.normalize(x, name=f"{name}_norm")
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    return build.convolution(x, filters, kernel, 1, name=f"{name}_conv")
