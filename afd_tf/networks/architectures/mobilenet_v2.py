"""MobileNetV2 (Sandler et al. 2018), as torchvision builds it."""

import keras

from afd_tf.errors import choice, fraction
from afd_tf.networks.architectures.blocks import Builder, check_arguments
from afd_tf.networks.architectures.registry import register

# Expansion, channels, blocks and stride of each stage: the paper's table 2.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEMS = ("imagenet", "cifar")


@register("cifar_mobilenet_v2", stem="cifar")
@register("mobilenet_v2")
def mobilenet_v2(
    num_classes,
    input_shape=(224, 224, 3),
    *,
    stem="imagenet",
    dropout=0.2,
    normalization="batch",
    name=None,
):
    """Build a network of inverted residual blocks.

    A 3x3 convolution to 32 channels, seven stages of blocks, a 1x1 convolution to 1280
    channels, global average pooling, dropout and a dense layer. A block expands its
    channels by a 1x1 convolution, filters each by itself with a 3x3 kernel, and brings
    them down by a linear 1x1 convolution; normalisation follows each, ReLU6 the first
    two. Where the shape stays, the input is added.

    Initial values are torchvision's: convolutions normal with variance
    2 / (k * k * filters), the dense layer normal with deviation 0.01, biases 0. For
    images whose sides 32 divides, "same" padding makes the mirror image of
    torchvision's network, which pads symmetrically.

    Args:
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images.
        stem: "imagenet", or "cifar" for small images: then the first convolution and
            the second stage have stride 1, so that a 32x32 image ends as a 4x4 map.
        dropout: float in [0, 1), the rate before the dense layer.
        normalization: "batch", "sync" or "none".
        name: str, default "mobilenet_v2", or "cifar_mobilenet_v2" with that stem.

    Returns:
        A Functional keras.Model from images `(batch, height, width, channels)` to
        float32 logits `(batch, num_classes)`. Its last feature map, after the last
        ReLU6, is the layer "feature_map", `(batch, height/32, width/32, 1280)`; with
        the "cifar" stem height/8 and width/8.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> model = mobilenet_v2(num_classes=1000)
        >>> sum(v.value.shape.num_elements() for v in model.trainable_variables)
        3504872
    """
    check_arguments(num_classes, input_shape, normalization)
    choice("stem", stem, STEMS)
    fraction("dropout", dropout)
    small = stem == "cifar"
    blocks = sum(stage[2] for stage in _STAGES)
    build = Builder(normalization, num_blocks=blocks, head="normal")
    images = keras.Input(input_shape, name="images")
    x = build.unit(images, 32, 3, 1 if small else 2, name="stem", limit=6.0)
    for number, (expansion, filters, repeats, stride) in enumerate(_STAGES, start=1):
        for block in range(1, repeats + 1):
            x = _block(
                build,
                x,
                expansion,
                filters,
                stride=1 if block > 1 or (small and number == 2) else stride,
                name=f"stage{number}_block{block}",
            )
    x = build.unit(x, 1280, 1, 1, name="last", limit=6.0, output_name="feature_map")
    logits = build.head(x, num_classes, dropout)
    default = "cifar_mobilenet_v2" if small else "mobilenet_v2"
    return keras.Model(images, logits, name=name or default)


def _block(build, x, expansion, filters, stride, name):
    y = x
    if expansion > 1:
        y = build.unit(y, expansion * x.shape[-1], 1, 1, f"{name}_expand", limit=6.0)
    y = build.depthwise(y, 3, stride, name=f"{name}_depthwise_conv")
    y = build.normalize(y, name=f"{name}_depthwise_norm")
    y = keras.layers.ReLU(6.0, name=f"{name}_depthwise_relu")(y)
    y = build.convolution(y, filters, 1, 1, name=f"{name}_project_conv", last=True)
    y = build.normalize(y, name=f"{name}_project_norm")
    if stride == 1 and x.shape[-1] == filters:
        y = keras.layers.Add(name=f"{name}_add")([x, y])
    return y
