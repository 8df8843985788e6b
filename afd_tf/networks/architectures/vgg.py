"""VGG with batch normalisation for small images (Simonyan and Zisserman 2015)."""

import keras

from afd_tf.errors import choice
from afd_tf.networks.architectures.blocks import Builder, check_arguments
from afd_tf.networks.architectures.registry import register

# 3x3 convolutions per stage: configurations A, B, D and E of the paper's table 1.
DEPTHS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


@register("vgg<depth>_bn", [f"vgg{n}_bn" for n in DEPTHS])
def vgg(
    depth, num_classes, input_shape=(32, 32, 3), *, normalization="batch", name=None
):
    """Build a VGG network whose head is one dense layer.

    Five stages of 3x3 convolutions, each with normalisation and ReLU, of 64, 128, 256,
    512 and 512 channels; 2x2 maximum pooling between them; global average pooling
    and a dense layer, in place of the paper's three, as is usual for CIFAR. The last
    pooling is left out, so that the last map of a 32x32 image has 2x2 positions.

    Convolutions have no bias where normalisation would cancel it. They start normal
    with variance 2 / (k * k * filters), the dense layer normal with deviation 0.01 and
    biases 0: torchvision's values.

    Args:
        depth: int, 11, 13, 16 or 19: the paper's count, with three dense layers.
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images, at least 16 each way.
        normalization: "batch", "sync" or "none".
        name: str, default "vgg<depth>_bn", without normalisation "vgg<depth>".

    Returns:
        A Functional keras.Model from images `(batch, height, width, channels)` to
        float32 logits `(batch, num_classes)`. Its last feature map, after the last
        ReLU, is the layer "feature_map", `(batch, height/16, width/16, 512)`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> vgg(16, num_classes=10).name
        'vgg16_bn'
    """
    choice("depth", depth, DEPTHS)
    check_arguments(num_classes, input_shape, normalization)
    build = Builder(normalization, head="normal")
    images = x = keras.Input(input_shape, name="images")
    for stage, convolutions in enumerate(DEPTHS[depth], start=1):
        if stage > 1:
            pool = keras.layers.MaxPooling2D(2, padding="same", name=f"pool{stage - 1}")
            x = pool(x)
        for number in range(1, convolutions + 1):
            last = stage == 5 and number == convolutions
            x = build.unit(
                x,
                min(64 * 2 ** (stage - 1), 512),
                3,
                1,
                name=f"stage{stage}_{number}",
                output_name="feature_map" if last else None,
            )
    logits = build.head(x, num_classes)
    default = f"vgg{depth}" if normalization == "none" else f"vgg{depth}_bn"
    return keras.Model(images, logits, name=name or default)
