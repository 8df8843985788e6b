"""AT and FT against float64 NumPy, gradients derived by hand."""

import numpy as np
import pytest
import tensorflow as tf

from afd_tf import losses


def maps(seed=0, batch=5, channels=(6, 6)):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 2, (batch, 4, 3, c)).astype("float32") for c in channels]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def through_unit(x, g):
    """Chain rule of `unit`: (g - u (u g)) / |x|."""
    u = unit(x)
    inner = np.sum(u * g, axis=-1, keepdims=True)
    return (g - u * inner) / np.linalg.norm(x, axis=-1, keepdims=True)


def attention(h):
    return np.sum(h.astype(np.float64) ** 2, axis=-1).reshape(len(h), -1)


def flat(h):
    return h.astype(np.float64).reshape(len(h), -1)


def taken(loss, own, source):
    own, source = tf.constant(own), tf.constant(source)
    with tf.GradientTape() as tape:
        tape.watch([own, source])
        values = loss(own, source)
        mean = tf.reduce_mean(values)
    return values, tape.gradient(mean, [own, source])


def test_attention_transfer_equals_its_equation():
    own, source = maps(channels=(6, 9))
    values, (gradient, none) = taken(losses.attention, own, source)
    q, difference = attention(own), unit(attention(own)) - unit(attention(source))
    np.testing.assert_allclose(values, np.mean(difference**2, axis=-1), rtol=1e-5)
    by_q = through_unit(q, 2 * difference / q.shape[-1] / len(q))
    expected = 2 * own * by_q.reshape(own.shape[:3])[..., None]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-8)
    assert none is None


def test_factor_transfer_equals_its_equation():
    own, source = maps()
    values, (gradient, none) = taken(losses.factor, own, source)
    difference = unit(flat(own)) - unit(flat(source))
    np.testing.assert_allclose(values, np.mean(np.abs(difference), axis=-1), rtol=1e-5)
    share = np.sign(difference) / difference.size
    expected = through_unit(flat(own), share).reshape(own.shape)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-8)
    assert none is None


@pytest.mark.parametrize("loss", [losses.attention, losses.factor])
def test_the_size_of_a_map_does_not_matter(loss):
    own, source = maps()
    np.testing.assert_allclose(loss(3 * own, source), loss(own, source), rtol=1e-4)
    np.testing.assert_allclose(loss(own, 5 * own), 0, atol=1e-7)


@pytest.mark.parametrize("loss", [losses.attention, losses.factor])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_map_of_zeros_has_a_finite_gradient_and_losses_are_float32(loss, dtype):
    own, source = maps()
    zeros, source = tf.zeros(own.shape, dtype), tf.cast(source, dtype)
    values, (gradient, _) = taken(loss, zeros, source)
    assert values.dtype == tf.float32
    assert np.isfinite(values).all()
    # Not infinite in 32 bits; 16 hold it where the network's own chain ends at zero.
    values, (gradient, _) = taken(loss, tf.zeros(own.shape), source)
    assert np.isfinite(gradient).all()
