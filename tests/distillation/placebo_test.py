"""Noise of the same norm in place of gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from afd_tf import OnlineDistiller
from afd_tf.distillation.step import noise_like

SEED = tf.constant([5, 0], tf.int64)


def gradients():
    rng = np.random.default_rng(0)
    shapes = [(40, 50), None, (40, 50), (7,)]
    return [
        None if s is None else tf.constant(rng.exponential(3.0, s), tf.float32)
        for s in shapes
    ]


def drawn(seed=SEED, step=3):
    return noise_like(gradients(), seed, tf.constant(step, tf.int64))


def test_noise_has_each_gradients_norm_and_is_gaussian():
    noise = drawn()
    assert noise[1] is None
    for one, other in zip(noise, gradients(), strict=True):
        if other is not None:
            np.testing.assert_allclose(tf.norm(one), tf.norm(other), rtol=1e-5)
    x = noise[0].numpy().ravel()
    x = x / x.std()
    # Of 2000 draws, each within four standard errors: mean, skewness, kurtosis.
    assert abs(x.mean()) < 4 / 2000**0.5
    assert abs((x**3).mean()) < 4 * (15 / 2000) ** 0.5
    assert abs((x**4).mean() - 3) < 4 * (96 / 2000) ** 0.5
    assert abs(np.corrcoef(x, noise[2].numpy().ravel())[0, 1]) < 4 / 2000**0.5
    assert abs(np.corrcoef(x, gradients()[0].numpy().ravel())[0, 1]) < 4 / 2000**0.5


def test_noise_is_a_function_of_seed_and_step():
    np.testing.assert_array_equal(drawn()[0], drawn()[0])
    for other in (drawn(step=4), drawn(seed=tf.constant([6, 0], tf.int64))):
        assert abs(np.corrcoef(np.ravel(drawn()[0]), np.ravel(other[0]))[0, 1]) < 0.1


def test_a_gradient_of_zero_stays_zero():
    (noise,) = noise_like([tf.zeros(3)], SEED, tf.constant(0, tf.int64))
    np.testing.assert_array_equal(noise, np.zeros(3))


def moved(forward, **compiled):
    """Return what the feature update alone adds to each of its variables."""
    keras.utils.set_random_seed(1)
    model = tiny.distiller(rates=(0, 1, 0), compiled=compiled, forward=forward)
    variables = model.phases.feature.variables
    before = tiny.values(variables)
    model.train_on_batch(*tiny.batch())
    after = tiny.values(variables)
    return [a - b for a, b in zip(after, before, strict=True)], before


@pytest.mark.parametrize("forward", ["shared", "fresh"])
def test_the_update_has_the_norm_of_the_true_one_and_keeps_the_decay(forward):
    true, _ = moved(forward)
    placebo, before = moved(
        forward,
        placebo=True,
        weight_decay="coupled",
        feature_weight_decay=0.5,
        logit_weight_decay=0.0,
    )
    assert len(true) == 4
    for one, other, weights in zip(true, placebo, before, strict=True):
        without_decay = other + 0.5 * weights
        np.testing.assert_allclose(
            np.linalg.norm(without_decay), np.linalg.norm(one), rtol=1e-3
        )
        assert not np.allclose(without_decay, one, rtol=0.1)


def test_a_saved_model_goes_on_with_its_noise(tmp_path):
    model = tiny.distiller(compiled={"placebo": True})
    model.train_on_batch(*tiny.batch())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(tiny.dataset(), verbose=0, epochs=1)
    for one, other in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7, err_msg=one.path)


def test_another_seed_draws_other_noise_and_the_same_one_the_same():
    first, again, other = (
        np.concatenate([np.ravel(m) for m in moved("shared", placebo=seed)[0]])
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    # Noise of one norm, in directions that have nothing to do with each other.
    cosine = first @ other / (np.linalg.norm(first) * np.linalg.norm(other))
    assert abs(cosine) < 0.5


@pytest.mark.parametrize("placebo", [0, 1.5, "yes"])
def test_a_seed_that_is_none_is_refused(placebo):
    with pytest.raises(ValueError, match=r"`placebo`\. Expected .*an int >= 1"):
        tiny.distiller(compiled={"placebo": placebo})


@pytest.mark.parametrize("method", ["dml", "one"])
def test_without_an_update_of_maps_there_is_no_placebo(method):
    with pytest.raises(ValueError, match="`placebo` does not apply"):
        tiny.of_method(method, compiled={"placebo": True})


@pytest.mark.multi_device
def test_two_devices_give_the_weights_of_one():
    method = tiny.afd(discriminator_normalization="none")
    tiny.assert_two_devices_equal_one(
        lambda: OnlineDistiller([tiny.network(4), tiny.network(4)], method),
        placebo=True,
    )
