"""Wide residual networks (Zagoruyko and Komodakis 2016)."""

import keras

from afd_tf.errors import fraction, positive_int
from afd_tf.networks.architectures.blocks import Builder, check_arguments, check_depth
from afd_tf.networks.architectures.registry import register


@register(
    "wrn<depth>_<width>",
    ["wrn10_2", "wrn16_2", "wrn16_4", "wrn28_2", "wrn28_4", "wrn40_2", "wrn28_10"],
)
def wide_resnet(
    depth,
    width,
    num_classes,
    input_shape=(32, 32, 3),
    *,
    dropout=0.0,
    normalization="batch",
    name=None,
):
    """Build a wide residual network, WRN-depth-width.

    A 3x3 convolution to 16 channels, three stages of n pre-activation blocks with
    16, 32 and 64 times `width` channels, normalisation, ReLU, global average pooling
    and a dense layer. Where the shape changes, the shortcut is a 1x1 convolution of
    the block's normalised and rectified input.

    Args:
        depth: int, 6n + 4: 10, 16, 22, 28, 40, ...
        width: int, the factor on the channels.
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images.
        dropout: float in [0, 1), the rate between the convolutions of a block.
        normalization: "batch", "sync" or "none".
        name: str, default "wrn<depth>_<width>".

    Returns:
        A Functional keras.Model from images `(batch, height, width, channels)` to
        float32 logits `(batch, num_classes)`. Its last feature map, after the last
        ReLU, is the layer "feature_map", `(batch, height/4, width/4, 64 * width)`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> model = wide_resnet(16, 2, num_classes=100)
        >>> model.name
        'wrn16_2'
    """
    check_depth(depth, remainder=4, smallest=10)
    check_arguments(num_classes, input_shape, normalization)
    positive_int("width", width)
    fraction("dropout", dropout)
    blocks = (depth - 4) // 6
    build = Builder(normalization, num_blocks=3 * blocks)
    images = keras.Input(input_shape, name="images")
    x = build.convolution(images, 16, 3, 1, name="conv")
    for stage, channels in enumerate((16, 32, 64), start=1):
        for block in range(1, blocks + 1):
            x = _block(
                build,
                x,
                channels * width,
                stride=2 if stage > 1 and block == 1 else 1,
                dropout=dropout,
                name=f"stage{stage}_block{block}",
            )
    x = build.normalize(x, name="norm")
    x = keras.layers.ReLU(name="feature_map")(x)
    logits = build.head(x, num_classes)
    return keras.Model(images, logits, name=name or f"wrn{depth}_{width}")


def _block(build, x, filters, stride, dropout, name):
    y = build.normalize(x, name=f"{name}_norm1")
    y = keras.layers.ReLU(name=f"{name}_relu1")(y)
    if stride != 1 or x.shape[-1] != filters:
        x = build.convolution(y, filters, 1, stride, name=f"{name}_shortcut")
    y = build.convolution(y, filters, 3, stride, name=f"{name}_conv1")
    y = build.normalize(y, name=f"{name}_norm2")
    y = keras.layers.ReLU(name=f"{name}_relu2")(y)
    if dropout:
        y = keras.layers.Dropout(dropout, name=f"{name}_dropout")(y)
    y = build.convolution(y, filters, 3, 1, name=f"{name}_conv2", last=True)
    return keras.layers.Add(name=f"{name}_add")([x, y])
