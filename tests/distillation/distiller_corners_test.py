"""Corners of `compile` and of counting steps: overflows, layers that thaw."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from afd_tf import OnlineDistiller


@pytest.fixture(autouse=True)
def policy_as_before():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("role", ["logit", "feature", "discriminator"])
@pytest.mark.parametrize("scaled", [False, True])
def test_averages_that_keras_would_write_into_other_networks_are_refused(role, scaled):
    optimizer = keras.optimizers.SGD(0.1, use_ema=True)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    with pytest.raises(ValueError, match=f"`{role}_optimizer`.*without use_ema"):
        tiny.distiller(compiled={f"{role}_optimizer": optimizer})


@pytest.mark.parametrize("value", [0, -3, 1.5, True, "4"])
def test_steps_per_execution_is_a_count(value):
    with pytest.raises(ValueError, match=r"`steps_per_execution`.*an int >= 1"):
        tiny.distiller(compiled={"steps_per_execution": value})


def test_jit_compile_is_a_bool_or_auto():
    with pytest.raises(ValueError, match=r"`jit_compile`.*True, False or"):
        tiny.distiller(compiled={"jit_compile": "yes"})
    assert tiny.distiller(compiled={"jit_compile": "auto"}).jit_compile is False


class Rates(keras.callbacks.Callback):
    """The logit and feature learning rates after every step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        rates = (self.model.optimizer, self.model.feature_optimizer)
        self.seen.append([float(o.learning_rate) for o in rates])


def test_schedules_count_batches_where_the_optimizer_accumulates_gradients():
    images, labels = tiny.batch(20)
    model = tiny.distiller(
        compiled={
            "optimizer": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
            "logit_schedule": "step_decay",
            "feature_schedule": "step_decay",
        }
    )
    rates = Rates()
    model.fit(images, labels, 1, epochs=1, verbose=0, callbacks=[rates])
    # A tenth at a half and three quarters of 20 batches, for both.
    expected = [0.1] * 10 + [0.01] * 5 + [0.001] * 5
    np.testing.assert_allclose(np.array(rates.seen), np.stack([expected] * 2, 1), 1e-5)


def test_steps_that_overflow_are_steps():
    keras.config.set_dtype_policy("mixed_float16")
    model = tiny.distiller(compiled={"feature_every": 2})
    images, labels = tiny.batch()
    counts = []
    for step in range(4):
        # Beyond float16: the gradients are not finite, and the optimizer waits.
        batch = images * 1e6 if step < 2 else images
        before = int(model.discriminator_optimizer.inner_optimizer.iterations)
        scale = float(model.discriminator_optimizer.dynamic_scale)
        model.train_on_batch(batch, labels)
        after = int(model.discriminator_optimizer.inner_optimizer.iterations)
        rescaled = float(model.discriminator_optimizer.dynamic_scale) != scale
        counts.append(after > before or rescaled)
    assert int(model.optimizer.inner_optimizer.iterations) == 2
    assert counts == [True, False, True, False]
    assert int(model.trained_steps) == 4


def test_a_training_that_overflows_goes_on_where_its_schedule_is():
    keras.config.set_dtype_policy("mixed_float16")
    images, labels = tiny.batch(8)
    model = tiny.distiller(compiled={"logit_schedule": "step_decay"})
    model.fit(images * 1e6, labels, 4, epochs=2, verbose=0)
    rates = Rates()
    model.fit(
        images, labels, 4, epochs=4, initial_epoch=2, verbose=0, callbacks=[rates]
    )
    # Steps 4 to 7 of 8, whatever became of the first four.
    seen = np.array(rates.seen)[:, 0]
    np.testing.assert_allclose(seen, [0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_compiling_again_with_the_same_optimizers_goes_on_counting():
    images, labels = tiny.batch()
    model = tiny.distiller()
    model.train_on_batch(images, labels)
    optimizers = (model.optimizer, model.feature_optimizer)
    model.compile(*optimizers, model.discriminator_optimizer, weight_decay="none")
    assert int(model.trained_steps) == 1
    model.compile()
    assert int(model.trained_steps) == 0


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


@pytest.mark.parametrize(("frozen", "what"), [(True, "unfrozen"), (False, "frozen")])
def test_layers_that_thaw_after_compile_are_named(frozen, what):
    networks = [tiny.network(name="a"), tiny.network(name="b")]
    layer = networks[0].get_layer("conv")
    layer.trainable = not frozen
    model = tiny.distiller(networks)
    layer.trainable = frozen
    message = f"were {what} after compile.*: 'conv/kernel', 'conv/bias'. Compile"
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(*tiny.batch())
    tiny.distiller(networks).train_on_batch(*tiny.batch())


@pytest.mark.parametrize("ensemble", ["logits", "probabilities"])
def test_the_ensembles_loss_is_that_of_equal_networks(ensemble):
    def sure_of_the_first_class():
        network = tiny.network()
        network.get_layer("logits").set_weights(
            [np.zeros((4, 3), "float32"), np.array([40, 0, 0], "float32")]
        )
        return network

    networks = [sure_of_the_first_class(), sure_of_the_first_class()]
    model = tiny.distiller(networks, names=["a", "b"], ensemble=ensemble)
    images, _ = tiny.batch(4)
    logs = model.evaluate(images, tf.ones(4, tf.int32), verbose=0, return_dict=True)
    np.testing.assert_allclose(
        [logs["a_loss"], logs["b_loss"], logs["ensemble_loss"]], [40.0] * 3, rtol=1e-5
    )


def test_weights_of_sixteen_bits_are_warned_of():
    keras.config.set_dtype_policy("bfloat16")
    try:
        short = [tiny.network(name="a"), tiny.network(name="b")]
        with pytest.warns(UserWarning, match="10 of 18 .*bfloat16.*mixed_bfloat16"):
            tiny.distiller(short)
        keras.config.set_dtype_policy("mixed_bfloat16")
        tiny.distiller()  # a warning is an error
    finally:
        keras.config.set_dtype_policy("float32")
