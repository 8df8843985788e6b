"""Batch normalisation: one fused operation, with variables the stock layer accepts."""

import keras
import tensorflow as tf

from afd_tf.errors import choice, fraction, invalid, number

KINDS = ("batch", "sync", "none")
# What the fused operation computes in; other dtypes take the written-out equation.
FUSED_DTYPES = ("float32", "bfloat16", "float16")


class Normalization(keras.layers.Layer):
    """Base of the normalisation layers: scale, offset, rank and equation.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    with the biased variance over batch, height and width.
    """

    def __init__(self, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = number("epsilon", epsilon, positive=True)

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise invalid(
                "inputs",
                "a map of shape (batch, height, width, channels) with known channels",
                received=f"shape {tuple(input_shape)} in layer '{self.name}'",
                hint="For other ranks use keras.layers.BatchNormalization.",
            )
        self.input_spec = keras.layers.InputSpec(
            ndim=4, axes={-1: int(input_shape[-1])}
        )
        channels = int(input_shape[-1])
        self.gamma = self._add_vector("gamma", channels, "ones", True)
        self.beta = self._add_vector("beta", channels, "zeros", True)

    def _add_vector(self, name, channels, initializer, trainable):
        # Half precision is too coarse for statistics: never cast, never stored in it.
        double = self.variable_dtype == "float64"
        return self.add_weight(
            name=name,
            shape=(channels,),
            dtype="float64" if double else "float32",
            initializer=initializer,
            trainable=trainable,
            autocast=False,
        )

    def compute_output_shape(self, input_shape):
        """Return the shape of the input: normalisation keeps it."""
        return input_shape

    def fused(self, x, mean, variance, training, rate=1.0):
        """Normalise with the fused operation.

        Args:
            x: tensor of shape `(batch, height, width, channels)`.
            mean: float32 `(channels,)`, used if not training, averaged into if
                training and `rate` < 1.
            variance: likewise.
            training: bool, whether to use the batch's own mean and variance.
            rate: float, the weight of the batch's statistics in those returned.

        Returns:
            y like x; mean and unbiased variance `(channels,)`, float32, of the batch
            averaged into the given ones.
        """
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            exponential_avg_factor=rate,
            data_format="NHWC",
            is_training=training,
        )
        return y, mean, variance

    def unfused(self, x, mean, variance):
        """Normalise with given statistics, in their dtype; returns the layer's."""
        y = tf.nn.batch_normalization(
            tf.cast(x, mean.dtype),
            mean,
            variance,
            tf.cast(self.beta.value, mean.dtype),
            tf.cast(self.gamma.value, mean.dtype),
            self.epsilon,
        )
        return tf.cast(y, x.dtype)

    def get_config(self):
        """Return the arguments that rebuild the layer."""
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="afd_tf")
class FusedBatchNormalization(Normalization):
    """Batch normalisation of 4-D maps by TensorFlow's fused operation.

    Equal to `keras.layers.BatchNormalization` in outputs and gradients, with the same
    variables in the same order (gamma, beta, moving_mean, moving_variance), so that
    the two exchange weights; several times faster on CPUs. In training

        moving = momentum * moving + (1 - momentum) * statistic of the batch

    where the variance is the unbiased one (divided by N - 1, as in PyTorch; the stock
    layer divides by N). With N = 1 it is 0. In half precision the maps are half, the
    variables and statistics float32. Under `tf.distribute` each replica normalises
    with and averages its own statistics, as the stock layer does. As in the stock
    layer, `trainable = False` means inference mode.

    Args:
        momentum: float in [0, 1), the weight of the old moving statistics.
        epsilon: float, added to the variance.
        unbiased: bool, whether moving_variance averages the unbiased variance.
        **kwargs: name, dtype, trainable.

    Example:
        >>> layer = FusedBatchNormalization(name="norm")
        >>> layer(keras.ops.ones((2, 8, 8, 16)), training=True).shape
        TensorShape([2, 8, 8, 16])
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, unbiased=True, **kwargs):
        super().__init__(epsilon=epsilon, **kwargs)
        self.momentum = fraction("momentum", momentum)
        self.unbiased = bool(unbiased)

    def build(self, input_shape):
        """Create gamma, beta, moving_mean and moving_variance."""
        super().build(input_shape)
        channels = int(input_shape[-1])
        self.moving_mean = self._add_vector("moving_mean", channels, "zeros", False)
        self.moving_variance = self._add_vector(
            "moving_variance", channels, "ones", False
        )

    def call(self, inputs, training=None):
        """Normalise a map.

        Args:
            inputs: tensor of shape `(batch, height, width, channels)`.
            training: bool, whether to use and average the batch's statistics.

        Returns:
            Tensor of the same shape and dtype.
        """
        training = bool(training) and self.trainable
        fused = keras.backend.standardize_dtype(inputs.dtype) in FUSED_DTYPES
        mean, variance = self.moving_mean.value, self.moving_variance.value
        if not training:
            if fused:
                return self.fused(inputs, mean, variance, training=False)[0]
            return self.unfused(inputs, mean, variance)
        if fused and self.unbiased:
            # The operation averages by itself: nothing is left to do per layer.
            y, mean, variance = self.fused(
                inputs, mean, variance, training=True, rate=1.0 - self.momentum
            )
        else:
            y, batch_mean, batch_variance = self._normalize_batch(inputs, fused)
            mean = self._average(mean, batch_mean)
            variance = self._average(variance, batch_variance)
        self.moving_mean.assign(mean)
        self.moving_variance.assign(variance)
        return y

    def _normalize_batch(self, inputs, fused):
        """Return y, the batch's mean and the variance that the average wants."""
        count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], self.gamma.dtype)
        bessel = count / tf.maximum(count - 1.0, 1.0)
        if fused:
            empty = tf.constant([], self.gamma.dtype)
            y, mean, variance = self.fused(inputs, empty, empty, training=True)
            return y, mean, variance / bessel
        mean, variance = tf.nn.moments(inputs, [0, 1, 2])
        y = self.unfused(inputs, mean, variance)
        return y, mean, variance * bessel if self.unbiased else variance

    def _average(self, moving, statistic):
        return self.momentum * moving + (1.0 - self.momentum) * statistic

    def get_config(self):
        """Return the arguments that rebuild the layer."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "unbiased": self.unbiased,
        }


def check_kind(kind):
    """Return `kind`, one of `KINDS`.

    Raises:
        ValueError: if it is none.
    """
    return choice("normalization", kind, KINDS)


def make_normalization(kind, name=None, momentum=0.9, epsilon=1e-5):
    """Make the normalisation layer of a network.

    Args:
        kind: "batch" (fused, statistics per replica), "sync" (statistics of the global
            batch under `tf.distribute`; the stock layer, not fused, moving variance
            biased) or "none".
        name: str, the layer's name.
        momentum: float in [0, 1), the weight of the old moving statistics.
        epsilon: float, added to the variance.

    Returns:
        A layer, or None for "none". A convolution without normalisation behind it
        needs a bias: `use_bias=kind == "none"`.

    Raises:
        ValueError: if `kind` is unknown.
    """
    if check_kind(kind) == "none":
        return None
    if kind == "sync":
        return keras.layers.BatchNormalization(
            momentum=momentum, epsilon=epsilon, synchronized=True, name=name
        )
    return FusedBatchNormalization(momentum=momentum, epsilon=epsilon, name=name)


def with_stock_normalization(model):
    """Copy a network with stock layers in place of the fused ones.

    The copy has the same outputs in inference and loads with Keras alone, without
    this package.

    Args:
        model: keras Functional or Sequential model.

    Returns:
        keras.Model with its own variables of the same values.

    Raises:
        ValueError: if the model is subclassed, so that its layers cannot be replaced.
    """

    def clone(layer):
        if not isinstance(layer, FusedBatchNormalization):
            return layer.__class__.from_config(layer.get_config())
        return keras.layers.BatchNormalization(
            momentum=layer.momentum,
            epsilon=layer.epsilon,
            name=layer.name,
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
        )

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy
