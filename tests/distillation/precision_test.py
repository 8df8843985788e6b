"""Half precision: losses near float32's, loss scaling, overflows."""

import keras
import numpy as np
import pytest
import tiny

from afd_tf import OnlineDistiller


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("forward", ["shared", "fresh"])
def test_mixed_precision_stays_near_float32(policy, forward):
    results = {}
    for name in ("float32", policy):
        keras.config.set_dtype_policy(name)
        keras.utils.set_random_seed(1)
        method = tiny.afd(discriminator_normalization="none")
        model = tiny.distiller(None, method, names=["a", "b"], forward=forward)
        logs = [
            model.train_on_batch(*tiny.batch(), return_dict=True) for _ in range(3)
        ][-1]
        kernel = model.networks[0].get_layer("conv").kernel
        assert kernel.dtype == "float32"
        results[name] = logs, np.array(kernel)
    (expected_logs, expected), (logs, kernel) = results.values()
    np.testing.assert_allclose(kernel, expected, atol=5e-3)
    for key, value in expected_logs.items():
        np.testing.assert_allclose(logs[key], value, atol=0.03, rtol=0.05, err_msg=key)


def test_float16_decay_and_ratio_do_not_know_of_the_loss_scale():
    results = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(1)
        model = tiny.named(weight_decay="coupled", logit_weight_decay=0.5)
        logs = model.train_on_batch(*tiny.batch(), return_dict=True)
        kernel = np.array(model.networks[0].get_layer("logits").kernel)
        results.append((kernel, logs["a_gradient_ratio"]))
    np.testing.assert_allclose(results[1][0], results[0][0], atol=2e-3)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=0.05)


def test_a_step_whose_gradients_overflow_is_left_out_of_the_ratio():
    keras.config.set_dtype_policy("mixed_float16")
    model = tiny.named(run_eagerly=True, gradient_ratio_every=1)
    images, labels = tiny.batch()
    before = tiny.values(model.networks[0].trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**40)
    model.train_on_batch(images, labels)
    for b, a in zip(before, model.networks[0].trainable_variables, strict=True):
        if "logits" in a.path:
            np.testing.assert_array_equal(a, b)
    model.optimizer.dynamic_scale.assign(2.0**10)
    second = model.train_on_batch(images, labels, return_dict=True)
    assert np.isfinite(second["a_gradient_ratio"])
    assert second["a_gradient_ratio"] > 0


def test_a_loss_scale_that_grows_within_a_step_is_not_in_the_ratio():
    ratios = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(1)
        model = tiny.distiller(names=["a", "b"], rates=(0, 0.1, 0.1), forward="fresh")
        if policy == "mixed_float16":
            growing = model.optimizer
            growing.step_counter.assign(growing.dynamic_growth_steps - 1)
        logs = model.train_on_batch(*tiny.batch(), return_dict=True)
        ratios.append(logs["a_gradient_ratio"])
    assert float(growing.dynamic_scale) == 2 * growing.initial_scale
    np.testing.assert_allclose(ratios[1], ratios[0], rtol=0.05)


def test_steps_that_overflow_are_steps():
    keras.config.set_dtype_policy("mixed_float16")
    model = tiny.distiller()
    images, labels = tiny.batch()
    for step in range(4):
        # Beyond float16: the gradients are not finite, and the optimizer waits.
        model.train_on_batch(images * 1e6 if step < 2 else images, labels)
    assert int(model.optimizer.inner_optimizer.iterations) == 2
    assert int(model.trained_steps) == 4


def test_a_training_that_overflows_goes_on_where_its_schedule_is():
    keras.config.set_dtype_policy("mixed_float16")
    images, labels = tiny.batch(8)
    model = tiny.distiller(compiled={"logit_schedule": "step_decay"})
    model.fit(images * 1e6, labels, 4, epochs=2, verbose=0)
    rates = tiny.Rates()
    model.fit(
        images, labels, 4, epochs=4, initial_epoch=2, verbose=0, callbacks=[rates]
    )
    # Steps 4 to 7 of 8, whatever became of the first four.
    seen = np.array(rates.rates)[:, 0]
    np.testing.assert_allclose(seen, [0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_loss_scaling_looks_at_layers_of_networks_that_were_loaded(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    for name in ("a", "b"):
        tiny.network().save(tmp_path / f"{name}.keras")
    keras.config.set_dtype_policy("float32")
    networks = [keras.models.load_model(tmp_path / f"{n}.keras") for n in ("a", "b")]
    model = OnlineDistiller(networks, tiny.afd())
    model.compile()
    for phase in model.phases:
        assert isinstance(phase.optimizer, keras.optimizers.LossScaleOptimizer)
