"""The matrix product against the stock convolution, in values and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from afd_tf.networks.layers.small_map_convolution import SmallMapConvolution


@tf.function
def outputs_and_gradients(layer, x, cotangent):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(tf.cast(y, cotangent.dtype) * cotangent)
    weights = [v.value for v in layer.trainable_variables]
    return [y, *tape.gradient(loss, [x, *weights])]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 2), (2, 1), (3, 4)])
@pytest.mark.parametrize("kernel_size", [3, (1, 3), (5, 3)])
def test_equal_to_the_stock_layer(size, kernel_size):
    random = np.random.default_rng(0)
    options = {"bias_initializer": "glorot_normal", "activation": "tanh"}
    options = {**options, "dtype": "float64"}
    layer = SmallMapConvolution(7, kernel_size, **options)
    stock = keras.layers.Conv2D(7, kernel_size, padding="same", **options)
    x = tf.constant(random.normal(size=(4, *size, 5)))
    cotangent = tf.constant(random.normal(size=(4, *size, 7)))
    layer.build(x.shape)
    stock.build(x.shape)
    stock.set_weights(layer.get_weights())
    received = outputs_and_gradients(layer, x, cotangent)
    expected = outputs_and_gradients(stock, x, cotangent)
    assert len(received) == 4
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_computes_in_half_precision_and_keeps_float32_weights():
    layer = SmallMapConvolution(3, 3, dtype="mixed_bfloat16")
    x = tf.random.stateless_normal((2, 2, 2, 4), seed=(0, 0))
    y = layer(x)
    assert (y.dtype, layer.kernel.dtype) == (tf.bfloat16, "float32")
    exact = tf.nn.conv2d(x, layer.kernel.value, 1, "SAME")
    np.testing.assert_allclose(tf.cast(y, "float32"), exact, atol=0.02)


def test_a_layer_made_from_the_config_computes_the_same():
    layer = SmallMapConvolution(3, 3, use_bias=False)
    layer.build((None, 2, 2, 4))
    copy = SmallMapConvolution.from_config(layer.get_config())
    copy.build((None, 2, 2, 4))
    copy.set_weights(layer.get_weights())
    x = tf.ones((1, 2, 2, 4))
    np.testing.assert_array_equal(copy(x), layer(x))


@pytest.mark.parametrize(
    "wrong", [{"kernel_size": 2}, {"kernel_size": 3, "strides": 2}]
)
def test_what_is_no_plain_convolution_is_refused(wrong):
    with pytest.raises(ValueError, match="Expected an odd"):
        SmallMapConvolution(3, **wrong)
