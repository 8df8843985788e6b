"""ResNets for small images (He et al. 2016, section 4.2)."""

import keras

from afd_tf.errors import choice
from afd_tf.networks.architectures.blocks import Builder, check_arguments, check_depth
from afd_tf.networks.architectures.registry import register

SHORTCUTS = ("identity", "projection")


@register("resnet<depth>", [f"resnet{n}" for n in (8, 14, 20, 32, 44, 56, 110)])
def resnet(
    depth,
    num_classes,
    input_shape=(32, 32, 3),
    *,
    shortcut="identity",
    normalization="batch",
    name=None,
):
    """Build a residual network of depth 6n + 2 with 16, 32 and 64 channels.

    A 3x3 convolution, three stages of n blocks of two 3x3 convolutions at full, half
    and quarter resolution, global average pooling and a dense layer. Where a stage
    halves the resolution, "identity" shortcuts (option A) take every second position
    and fill the new channels with zeros; "projection" ones (option B) are 1x1
    convolutions. For maps of even size, "same" padding and the odd positions make the
    mirror image of the paper's network (symmetric padding, even positions) without
    its copy of the map.

    Args:
        depth: int, 6n + 2: 8, 14, 20, 32, 44, 56, 110, ...
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images.
        shortcut: "identity" or "projection".
        normalization: "batch", "sync" or "none".
        name: str, default "resnet<depth>".

    Returns:
        A Functional keras.Model from images `(batch, height, width, channels)` to
        float32 logits `(batch, num_classes)`. Its last feature map, after the last
        ReLU, is the layer "feature_map", `(batch, height/4, width/4, 64)`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> model = resnet(20, num_classes=10)
        >>> model.count_params()
        271098
    """
    check_depth(
        depth,
        remainder=2,
        smallest=8,
        hint=" ResNet-18, 34 and 50 for large images are `imagenet_resnet`.",
    )
    check_arguments(num_classes, input_shape, normalization)
    choice("shortcut", shortcut, SHORTCUTS)
    blocks = (depth - 2) // 6
    build = Builder(normalization, num_blocks=3 * blocks)
    images = keras.Input(input_shape, name="images")
    x = build.convolution(images, 16, 3, 1, name="conv")
    x = build.normalize(x, name="norm")
    x = keras.layers.ReLU(name="relu")(x)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, blocks + 1):
            last = stage == 3 and block == blocks
            x = _block(
                build,
                x,
                filters,
                stride=2 if stage > 1 and block == 1 else 1,
                shortcut=shortcut,
                name=f"stage{stage}_block{block}",
                output_name="feature_map" if last else None,
            )
    logits = build.head(x, num_classes)
    return keras.Model(images, logits, name=name or f"resnet{depth}")


def _block(build, x, filters, stride, shortcut, name, output_name):
    y = build.convolution(x, filters, 3, stride, name=f"{name}_conv1")
    y = build.normalize(y, name=f"{name}_norm1")
    y = keras.layers.ReLU(name=f"{name}_relu1")(y)
    y = build.convolution(y, filters, 3, 1, name=f"{name}_conv2", last=True)
    y = build.normalize(y, name=f"{name}_norm2")
    if stride != 1 or x.shape[-1] != filters:
        if shortcut == "identity":
            x = _subsample(x, stride, filters)
        else:
            x = build.convolution(x, filters, 1, stride, name=f"{name}_shortcut")
            x = build.normalize(x, name=f"{name}_shortcut_norm")
    x = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=output_name or f"{name}_relu2")(x)


def _subsample(x, stride, filters):
    """Take every `stride`-th position, the one on which the convolution is centred."""
    ops = keras.ops
    height, width, channels = x.shape[1:]
    if stride == 2 and height % 2 == width % 2 == 0:
        # As slices with a step, but four times as fast: whole rows are copied, and the
        # gradient is a concatenation.
        rows = ops.reshape(x, (-1, height // 2, 2, width * channels))
        x = ops.unstack(rows, num=2, axis=2)[1]
        columns = ops.reshape(x, (-1, height // 2, width // 2, 2, channels))
        x = ops.unstack(columns, num=2, axis=3)[1]
    else:
        x = x[:, _first(height, stride) :: stride, _first(width, stride) :: stride, :]
    return ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, filters - channels)))


def _first(size, stride):
    # "same" padding puts nothing before a map of even size and one before an odd one.
    return 1 if stride == 2 and size % 2 == 0 else 0
