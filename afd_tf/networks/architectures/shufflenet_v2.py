"""ShuffleNetV2 (Ma et al. 2018), as torchvision builds it."""

import keras

from afd_tf.errors import choice
from afd_tf.networks.architectures.blocks import Builder, check_arguments
from afd_tf.networks.architectures.registry import register

# Channels of the three stages and of the last convolution: the paper's table 5.
WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
_BLOCKS = (4, 8, 4)
STEMS = ("imagenet", "cifar")


def shufflenet_v2(
    width,
    num_classes,
    input_shape=(224, 224, 3),
    *,
    stem="imagenet",
    normalization="batch",
    name=None,
):
    """Build a network that splits its channels in two and shuffles them.

    A 3x3 convolution of stride 2 to 24 channels, 3x3 maximum pooling of stride 2, three
    stages of 4, 8 and 4 blocks, a 1x1 convolution, global average pooling and a dense
    layer. A block sends half of the channels through 1x1, 3x3 depthwise and 1x1
    convolutions, the first block of a stage (stride 2) all of them, and the other half
    through 3x3 depthwise and 1x1; then the channels of the halves alternate.

    Initial values are torchvision's, which are PyTorch's defaults: convolutions uniform
    in +-1/sqrt(k * k * inputs) and the dense layer in +-1/sqrt(inputs); biases 0. For
    images whose sides 32 divides, "same" padding makes the mirror image of
    torchvision's network, which pads symmetrically.

    Args:
        width: float, 0.5, 1.0, 1.5 or 2.0: the factor on the channels.
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images.
        stem: "imagenet", or "cifar" for small images: the first convolution has
            stride 1 and no pooling follows, so that a 32x32 image ends as a 4x4 map.
        normalization: "batch", "sync" or "none".
        name: str, default "shufflenet_v2_x1_0" for width 1.0, "cifar_" before it with
            that stem.

    Returns:
        A Functional keras.Model from images `(batch, height, width, channels)` to
        float32 logits `(batch, num_classes)`. Its last feature map, after the last
        ReLU, is the layer "feature_map", `(batch, height/32, width/32, 1024)`, 2048
        channels for width 2.0; with the "cifar" stem height/8 and width/8.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> model = shufflenet_v2(1.0, num_classes=1000)
        >>> sum(v.value.shape.num_elements() for v in model.trainable_variables)
        2278604
    """
    choice("width", width, WIDTHS)
    choice("stem", stem, STEMS)
    check_arguments(num_classes, input_shape, normalization)
    small = stem == "cifar"
    *stages, last = WIDTHS[width]
    build = Builder(normalization, convolutions="fan_in")
    images = keras.Input(input_shape, name="images")
    x = build.unit(images, 24, 3, 1 if small else 2, name="stem")
    if not small:
        x = keras.layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, (filters, blocks) in enumerate(zip(stages, _BLOCKS, strict=True), 2):
        for number in range(1, blocks + 1):
            block = _halving_block if number == 1 else _block
            x = block(build, x, filters // 2, name=f"stage{stage}_block{number}")
    x = build.unit(x, last, 1, 1, name="last", output_name="feature_map")
    logits = build.head(x, num_classes)
    return keras.Model(images, logits, name=name or _name(width, stem))


def _name(width, stem):
    prefix = "cifar_" if stem == "cifar" else ""
    return f"{prefix}shufflenet_v2_x{str(float(width)).replace('.', '_')}"


for _stem in STEMS:
    for _width in WIDTHS:
        register(_name(_width, _stem), width=_width, stem=_stem)(shufflenet_v2)


def _block(build, x, half, name):
    kept, changed = x[..., :half], x[..., half:]
    return _shuffle(kept, _branch(build, changed, half, 1, name=f"{name}_right"))


def _halving_block(build, x, half, name):
    left = _depthwise(build, x, 2, name=f"{name}_left_depthwise")
    left = build.unit(left, half, 1, 1, name=f"{name}_left_2")
    return _shuffle(left, _branch(build, x, half, 2, name=f"{name}_right"))


def _branch(build, x, half, stride, name):
    x = build.unit(x, half, 1, 1, name=f"{name}_1")
    x = _depthwise(build, x, stride, name=f"{name}_depthwise")
    return build.unit(x, half, 1, 1, name=f"{name}_2")


def _depthwise(build, x, stride, name):
    x = build.depthwise(x, 3, stride, name=f"{name}_conv")
    return build.normalize(x, name=f"{name}_norm")


def _shuffle(left, right):
    """Alternate the channels of two maps, as a shuffle of two groups does."""
    height, width, half = left.shape[1:]
    pairs = keras.ops.stack([left, right], axis=-1)
    return keras.ops.reshape(pairs, (-1, height, width, 2 * half))
