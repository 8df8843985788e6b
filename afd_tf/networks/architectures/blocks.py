"""Parts that the families share: checks, convolutions, normalisation, head."""

import math
from contextvars import ContextVar
from numbers import Integral, Real

import keras

from afd_tf.errors import integer, invalid
from afd_tf.networks.layers.normalization import check_kind, make_normalization

# Of a network that is built; without limit, unless somebody sets one.
MOST_LAYERS = ContextVar("MOST_LAYERS", default=math.inf)
# Of one convolution; those of the largest networks known have some 4 million.
_MOST_WEIGHTS = 2**28


def check_arguments(num_classes, input_shape, normalization):
    """Check the arguments that all networks have.

    Raises:
        ValueError: naming the argument.
    """
    integer("num_classes", num_classes, at_least=2)
    check_shape("input_shape", input_shape)
    check_kind(normalization)


def check_shape(argument, shape):
    """Check that a shape is (height, width, channels), all known.

    Raises:
        ValueError: naming the argument.
    """
    sizes = shape if isinstance(shape, tuple | list) else ()
    if len(sizes) != 3 or not all(
        isinstance(n, Integral) and int(n) > 0 for n in sizes
    ):
        expected = "three positive integers (height, width, channels)"
        raise invalid(argument, expected, shape)


def check_depth(depth, remainder, smallest, hint=""):
    """Check that a depth is 6n + `remainder`.

    Raises:
        ValueError: with the nearest valid depth.
    """
    most = MOST_LAYERS.get()
    if isinstance(depth, Integral) and int(depth) > most:
        hint = f"Set max_layers to {depth} if you have the time and the memory."
        raise invalid("depth", f"at most {most:,} layers", depth, hint=hint)
    if isinstance(depth, Integral) and depth >= smallest and depth % 6 == remainder:
        return
    valid = smallest
    if isinstance(depth, Real) and depth > smallest:
        valid = round((depth - remainder) / 6) * 6 + remainder
    expected = f"6n + {remainder}, at least {smallest}"
    hint = f"The nearest valid depth is {valid}.{hint}"
    raise invalid("depth", expected, depth, hint=hint)


def leaky_relu(x, slope):
    """Compute max(x, slope * x), for use behind a convolution with a bias.

    Not the layer: TensorFlow tries to fuse its gradient with such a convolution, fails,
    leaves out what else it would have fused, and says so at every start.
    """
    return keras.ops.maximum(x, slope * x)


class Builder:
    """Adds convolutions, normalisation and the head in the style of one network.

    Every layer draws the seed of its initial values from Keras' global one; biases
    start at 0.

    Args:
        normalization: "batch", "sync" or "none". A convolution has a bias only
            without normalisation.
        num_blocks: int, the number of residual blocks in the network. Without
            normalisation the branches' last convolutions start with a variance
            smaller by this factor, so that the sum over all blocks stays bounded and
            deep networks train.
        convolutions: "fan_out", normal with variance 2 / (k * k * filters) (He et al.
            2015, not truncated), or "fan_in", uniform in +-1/sqrt(k * k * inputs). A
            kernel over single channels has 1 input and all filters, as in PyTorch.
        head: "fan_in", uniform in +-1/sqrt(inputs), or "normal", with deviation 0.01.
    """

    def __init__(
        self, normalization, num_blocks=1, *, convolutions="fan_out", head="fan_in"
    ):
        self.normalization = normalization
        self.branch_scale = 1.0 / num_blocks if normalization == "none" else 1.0
        self._convolutions = convolutions
        self._head = head

    def convolution(self, x, filters, kernel, stride, name, last=False):
        """Convolve; `last` marks the last convolution of a residual branch."""
        weights = kernel * kernel * x.shape[-1] * filters
        if weights > _MOST_WEIGHTS:
            expected = f"a network of at most {_MOST_WEIGHTS:,} weights in a layer"
            raise invalid("width", expected, received=f"{weights:,} in '{name}'")
        return keras.layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding="same",
            use_bias=self.normalization == "none",
            kernel_initializer=self._kernel(self.branch_scale if last else 1.0),
            name=name,
        )(x)

    def depthwise(self, x, kernel, stride, name):
        """Convolve each channel by itself."""
        # Keras counts such a kernel's inputs and outputs the other way round.
        swapped = {"fan_out": "fan_in", "fan_in": "fan_out"}
        return keras.layers.DepthwiseConv2D(
            kernel,
            strides=stride,
            padding="same",
            use_bias=self.normalization == "none",
            depthwise_initializer=self._kernel(mode=swapped[self._convolutions]),
            name=name,
        )(x)

    def _kernel(self, scale=1.0, mode=None):
        normal = self._convolutions == "fan_out"
        return keras.initializers.VarianceScaling(
            scale=scale * (2.0 if normal else 1 / 3),
            mode=mode or self._convolutions,
            distribution="untruncated_normal" if normal else "uniform",
        )

    def normalize(self, x, name):
        """Normalise, or return x if the network has no normalisation."""
        layer = make_normalization(self.normalization, name=name)
        return x if layer is None else layer(x)

    def unit(self, x, filters, kernel, stride, name, limit=None, output_name=None):
        """Convolve, normalise and rectify, up to `limit` (6.0 for ReLU6)."""
        x = self.convolution(x, filters, kernel, stride, name=f"{name}_conv")
        x = self.normalize(x, name=f"{name}_norm")
        return keras.layers.ReLU(limit, name=output_name or f"{name}_relu")(x)

    def head(self, x, num_classes, dropout=0.0):
        """Return the logits, float32 whatever the precision of the map."""
        x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, dtype="float32", name="dropout")(x)
        if self._head == "normal":
            initializer = keras.initializers.RandomNormal(stddev=0.01)
        else:
            initializer = keras.initializers.VarianceScaling(
                scale=1 / 3, mode="fan_in", distribution="uniform"
            )
        return keras.layers.Dense(
            num_classes,
            kernel_initializer=initializer,
            dtype="float32",
            name="logits",
        )(x)
