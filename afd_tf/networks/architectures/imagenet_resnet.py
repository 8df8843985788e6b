"""ResNets for large images (He et al. 2016, table 1), as torchvision builds them."""

import keras

from afd_tf.errors import choice
from afd_tf.networks.architectures.blocks import Builder, check_arguments
from afd_tf.networks.architectures.registry import register

# Blocks per stage, and whether they are bottlenecks.
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
}


@register("imagenet_resnet<depth>", [f"imagenet_resnet{n}" for n in DEPTHS])
def imagenet_resnet(
    depth, num_classes, input_shape=(224, 224, 3), *, normalization="batch", name=None
):
    """Build a residual network with a 7x7 stem and four stages.

    A 7x7 convolution of stride 2 to 64 channels, 3x3 maximum pooling of stride 2, four
    stages with 64, 128, 256 and 512 channels, global average pooling and a dense
    layer. A block is two 3x3 convolutions, or (depth 50) 1x1, 3x3 and 1x1 with four
    times the channels at its end, where the 3x3 one has the stride. Where the shape
    changes, the shortcut is a 1x1 convolution with normalisation.

    Initial values are torchvision's: convolutions normal with variance
    2 / (k * k * filters), the dense layer uniform in +-1/sqrt(inputs), biases 0. For
    images whose sides 32 divides, "same" padding makes the mirror image of
    torchvision's network, which pads symmetrically.

    Args:
        depth: int, 18, 34 or 50.
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images.
        normalization: "batch", "sync" or "none".
        name: str, default "imagenet_resnet<depth>".

    Returns:
        A Functional keras.Model from images `(batch, height, width, channels)` to
        float32 logits `(batch, num_classes)`. Its last feature map, after the last
        ReLU, is the layer "feature_map", `(batch, height/32, width/32, 512)`, or 2048
        channels for depth 50.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> model = imagenet_resnet(18, num_classes=1000)
        >>> sum(v.value.shape.num_elements() for v in model.trainable_variables)
        11689512
    """
    choice("depth", depth, DEPTHS)
    check_arguments(num_classes, input_shape, normalization)
    stages, bottleneck = DEPTHS[depth]
    block = _bottleneck if bottleneck else _basic
    build = Builder(normalization, num_blocks=sum(stages))
    images = keras.Input(input_shape, name="images")
    x = build.unit(images, 64, 7, 2, name="stem")
    x = keras.layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, blocks in enumerate(stages, start=1):
        for number in range(1, blocks + 1):
            last = stage == 4 and number == blocks
            part = f"stage{stage}_block{number}"
            x = block(
                build,
                x,
                64 * 2 ** (stage - 1),
                stride=2 if stage > 1 and number == 1 else 1,
                name=part,
                output_name="feature_map" if last else f"{part}_relu",
            )
    logits = build.head(x, num_classes)
    return keras.Model(images, logits, name=name or f"imagenet_resnet{depth}")


def _basic(build, x, filters, stride, name, output_name):
    y = build.unit(x, filters, 3, stride, name=f"{name}_1")
    return _residual(build, x, y, filters, 3, stride, name, output_name)


def _bottleneck(build, x, filters, stride, name, output_name):
    y = build.unit(x, filters, 1, 1, name=f"{name}_1")
    y = build.unit(y, filters, 3, stride, name=f"{name}_2")
    return _residual(build, x, y, 4 * filters, 1, stride, name, output_name)


def _residual(build, x, y, filters, kernel, stride, name, output_name):
    """Add the branch y, after its last convolution, to the shortcut of x."""
    y = build.convolution(y, filters, kernel, 1, name=f"{name}_last_conv", last=True)
    y = build.normalize(y, name=f"{name}_last_norm")
    if stride != 1 or x.shape[-1] != filters:
        x = build.convolution(x, filters, 1, stride, name=f"{name}_shortcut_conv")
        x = build.normalize(x, name=f"{name}_shortcut_norm")
    x = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=output_name)(x)
