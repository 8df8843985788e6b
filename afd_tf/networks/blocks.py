"""What the convolutional networks of this folder share."""

from numbers import Integral, Real

import keras

from afd_tf.networks.normalization import check_kind, make_normalization


def check_arguments(num_classes, input_shape, normalization):
    """Say what is wrong with the arguments that all networks have.

    Raises:
        ValueError: naming the argument.
    """
    if not isinstance(num_classes, Integral) or num_classes < 2:
        raise ValueError(
            "Invalid value for argument `num_classes`. Expected an integer of at least "
            f"2. Received: num_classes={num_classes!r}."
        )
    sizes = tuple(input_shape) if isinstance(input_shape, tuple | list) else ()
    if len(sizes) != 3 or not all(
        isinstance(n, Integral) and int(n) > 0 for n in sizes
    ):
        raise ValueError(
            "Invalid value for argument `input_shape`. Expected three positive "
            "integers (height, width, channels). Received: "
            f"input_shape={input_shape!r}."
        )
    check_kind(normalization)


def check_depth(depth, remainder, smallest):
    """Say which depth is valid if `depth` is not 6n + `remainder`.

    Raises:
        ValueError: with the nearest valid depth.
    """
    if isinstance(depth, Integral) and depth >= smallest and depth % 6 == remainder:
        return
    nearest = smallest
    if isinstance(depth, Real) and depth > smallest:
        nearest = round((depth - remainder) / 6) * 6 + remainder
    raise ValueError(
        f"Invalid value for argument `depth`. Expected 6n + {remainder}, at least "
        f"{smallest}. Received: depth={depth!r}. The nearest valid depth is {nearest}."
    )


class Builder:
    """Adds convolutions, normalisation and the head in the style of one network.

    Convolutions are initialised from a normal distribution of variance
    2 / (k * k * filters) (He et al. 2015, fan out, not truncated), the dense layer
    uniformly in +-1/sqrt(inputs): what the CIFAR codes of both papers do. Each draws
    its seed from Keras' global one.

    Args:
        normalization: "batch", "sync" or "none". A convolution has a bias only
            without normalisation.
        num_blocks: int, the number of residual blocks in the network. Without
            normalisation the branches' last convolutions start with a variance
            smaller by this factor, so that the sum over all blocks stays bounded and
            deep networks train.
    """

    def __init__(self, normalization, num_blocks):
        self.normalization = normalization
        self.branch_scale = 1.0 / num_blocks if normalization == "none" else 1.0

    def convolution(self, x, filters, kernel, stride, name, last=False):
        """Convolve; `last` marks the last convolution of a residual branch."""
        initializer = keras.initializers.VarianceScaling(
            scale=2.0 * (self.branch_scale if last else 1.0),
            mode="fan_out",
            distribution="untruncated_normal",
        )
        return keras.layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding="same",
            use_bias=self.normalization == "none",
            kernel_initializer=initializer,
            name=name,
        )(x)

    def normalize(self, x, name):
        """Normalise, or return x if the network has no normalisation."""
        layer = make_normalization(self.normalization, name=name)
        return x if layer is None else layer(x)

    def head(self, x, num_classes):
        """Return the logits, float32 whatever the precision of the map."""
        x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
        return keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.VarianceScaling(
                scale=1 / 3, mode="fan_in", distribution="uniform"
            ),
            dtype="float32",
            name="logits",
        )(x)
