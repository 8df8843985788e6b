"""E1, E2, E3 and alignment against float64 NumPy written from the equations."""

import numpy as np
import pytest
import tensorflow as tf

from afd_tf import losses


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def kl(z_source, z_own, temperature):
    p = softmax(z_source.astype(np.float64) / temperature)
    q = softmax(z_own.astype(np.float64) / temperature)
    return temperature**2 * np.sum(p * (np.log(p) - np.log(q)), axis=-1)


def random_logits(classes=10, batch=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (2, batch, classes)).astype("float32")


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kl_equals_the_equation(classes, temperature):
    source, own = random_logits(classes)
    actual = losses.kl_divergence(source, own, temperature)
    np.testing.assert_allclose(actual, kl(source, own, temperature), rtol=2e-5)
    # The direction matters: the pair is not symmetric.
    assert not np.allclose(actual, kl(own, source, temperature), rtol=0.01)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kl_gradient_equals_the_equation_and_spares_the_source(temperature):
    source, own = map(tf.constant, random_logits())
    with tf.GradientTape() as tape:
        tape.watch([source, own])
        loss = tf.reduce_mean(losses.kl_divergence(source, own, temperature))
    gradients = tape.gradient(loss, [source, own])
    # d/dz_k of T^2 KL(p || q) is T (q - p).
    p = softmax(source.numpy().astype(np.float64) / temperature)
    q = softmax(own.numpy().astype(np.float64) / temperature)
    assert gradients[0] is None
    np.testing.assert_allclose(
        gradients[1], temperature * (q - p) / len(p), rtol=1e-4, atol=1e-7
    )


def test_kl_of_a_doubled_batch_has_the_same_mean():
    source, own = random_logits()
    once = np.mean(losses.kl_divergence(source, own))
    twice = np.mean(losses.kl_divergence(np.tile(source, (2, 1)), np.tile(own, (2, 1))))
    np.testing.assert_allclose(once, twice, rtol=1e-6)


def test_kl_of_extreme_logits_is_finite_and_not_zero():
    source = np.array([[1e4, -1e4, 0.0]], "float32")
    own = np.array([[-1e4, 1e4, 0.0]], "float32")
    # p is one-hot: KL = -log q_0 = 2e4 / T, times T^2.
    np.testing.assert_allclose(losses.kl_divergence(source, own, 3.0), [6e4], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_losses_are_computed_in_float32_whatever_they_get(dtype):
    source, own = (tf.cast(z, dtype) for z in random_logits())
    expected = kl(
        tf.cast(source, "float64").numpy(), tf.cast(own, "float64").numpy(), 3
    )
    actual = losses.kl_divergence(source, own, 3.0)
    assert actual.dtype == tf.float32
    np.testing.assert_allclose(actual, expected, rtol=2e-5)
    assert losses.generator_loss(tf.cast([0.25], dtype)).dtype == tf.float32
    assert losses.l1(tf.ones((1, 2, 2, 1), dtype), tf.zeros((1, 2, 2, 1))).dtype == (
        tf.float32
    )


def test_cross_entropy_equals_the_equation_for_every_form_of_label():
    logits, _ = random_logits()
    labels = np.array([0, 3, 9, 1, 1, 5])
    log_q = np.log(softmax(logits.astype(np.float64)))
    expected = -log_q[np.arange(6), labels]
    one_hot = np.eye(10)[labels]
    np.testing.assert_allclose(
        losses.cross_entropy(tf.constant(labels), tf.constant(logits)), expected, 1e-5
    )
    np.testing.assert_allclose(
        losses.cross_entropy(tf.constant(one_hot), tf.constant(logits)), expected, 1e-5
    )
    smooth = 0.9 * one_hot + 0.1 / 10
    for target in (tf.constant(labels), tf.constant(one_hot)):
        np.testing.assert_allclose(
            losses.cross_entropy(target, tf.constant(logits), 0.1),
            -np.sum(smooth * log_q, axis=-1),
            rtol=1e-5,
        )


def test_e2_wants_the_source_map_to_be_real_and_the_own_map_to_be_fake():
    # By hand: (1 - 0.75)^2 + 0.5^2 = 0.3125; a perfect D has no loss, a fooled one 2.
    np.testing.assert_allclose(losses.discriminator_loss([[0.75]], [[0.5]]), [0.3125])
    np.testing.assert_allclose(losses.discriminator_loss([1.0], [0.0]), [0.0])
    np.testing.assert_allclose(losses.discriminator_loss([0.0], [1.0]), [2.0])


def test_e3_wants_the_own_map_to_pass_for_real():
    np.testing.assert_allclose(losses.generator_loss([[0.25], [1.0]]), [0.5625, 0.0])


def test_e2_and_e3_gradients_equal_the_equations():
    real, own = tf.constant([0.2, 0.9]), tf.constant([0.6, 0.3])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([real, own])
        e2 = losses.discriminator_loss(real, own)
        e3 = losses.generator_loss(own)
    np.testing.assert_allclose(tape.gradient(e2, real), [-1.6, -0.2], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(e2, own), [1.2, 0.6], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(e3, own), [-0.8, -1.4], rtol=1e-6)


def test_alignment_is_the_mean_over_elements_and_spares_the_source():
    own = tf.constant(np.arange(8).reshape(1, 2, 2, 2), tf.float32)
    source = tf.ones((1, 2, 2, 2))
    np.testing.assert_allclose(losses.l1(own, source), [22 / 8])
    np.testing.assert_allclose(losses.l2(own, source), [92 / 8])
    with tf.GradientTape() as tape:
        tape.watch([own, source])
        loss = losses.l2(own, source)
    to_own, to_source = tape.gradient(loss, [own, source])
    assert to_source is None
    np.testing.assert_allclose(to_own, 2 * (own - source) / 8)


def test_weights_multiply_examples_and_none_counts_each_once():
    np.testing.assert_allclose(losses.weighted_sum([1.0, 2.0, 4.0]), 7.0)
    weighted = losses.weighted_sum(tf.constant([1.0, 2.0, 4.0]), [2.0, 0.0, 0.5])
    np.testing.assert_allclose(weighted, 4.0)
