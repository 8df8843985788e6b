"""Updates by kernels against those that Keras writes out."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from afd_tf.distillation.kernels import use_kernels

OPTIMIZERS = {
    "sgd": partial(keras.optimizers.SGD, 0.1),
    "momentum": partial(keras.optimizers.SGD, 0.1, momentum=0.9),
    "nesterov": partial(keras.optimizers.SGD, 0.1, momentum=0.9, nesterov=True),
    "clipped": partial(keras.optimizers.SGD, 0.1, momentum=0.9, clipnorm=0.1),
    "averaged": partial(
        keras.optimizers.SGD, 0.1, momentum=0.9, use_ema=True, ema_momentum=0.5
    ),
    "scheduled": partial(
        keras.optimizers.Adam,
        keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.01, 1e-3, 1e-4]),
    ),
    "accumulated": partial(keras.optimizers.Adam, 0.01, gradient_accumulation_steps=2),
    "adam": partial(keras.optimizers.Adam, 0.01, beta_1=0.8, epsilon=1e-3),
    "adamw": partial(keras.optimizers.AdamW, 0.01, weight_decay=0.1),
    "amsgrad": partial(keras.optimizers.Adam, 0.01, amsgrad=True),
    "rmsprop": partial(keras.optimizers.RMSprop, 0.01),
}
WITH_KERNELS = {
    "sgd": {"ResourceApplyGradientDescent"},
    "momentum": {"ResourceApplyKerasMomentum"},
    "nesterov": {"ResourceApplyKerasMomentum"},
    "clipped": {"ResourceApplyKerasMomentum"},
    "averaged": {"ResourceApplyKerasMomentum"},
    "scheduled": {"ResourceApplyAdam"},
    "adam": {"ResourceApplyAdam"},
    "adamw": {"ResourceApplyAdam"},
    "amsgrad": set(),
    "accumulated": set(),
    "rmsprop": set(),
}


def train(make, kernels, strategy=None, dtype="float32", steps=4):
    """Return all variables after some steps, and the operations of a step."""
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        variables = [
            keras.Variable(np.linspace(-1, 1, 5), dtype=dtype),
            keras.Variable(np.ones((2, 3)), dtype=dtype),
        ]
        optimizer = make()
        optimizer.build(variables)
        if kernels:
            use_kernels(optimizer)

    @tf.function
    def step(scale):
        def on_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            share = tf.cast(replica + 1, dtype) * scale
            a, b = (v.value for v in variables)
            optimizer.apply([tf.sin(a) * share, 0.3 * b * share], variables)

        strategy.run(on_replica)

    for i in range(steps):
        step(tf.constant(i + 1.0, dtype))
    graph = step.get_concrete_function(tf.constant(1.0, dtype)).graph
    operations = {op.type for op in graph.get_operations()}
    return [np.array(v) for v in variables + optimizer.variables], operations


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_kernels_move_all_variables_as_keras_does(name):
    # Keras rounds its constants to float32 whatever the dtype.
    written_out, _ = train(OPTIMIZERS[name], kernels=False, dtype="float64")
    by_kernel, _ = train(OPTIMIZERS[name], kernels=True, dtype="float64")
    for a, b in zip(by_kernel, written_out, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw"])
def test_variables_in_half_precision_move_as_keras_moves_them(name, dtype):
    # In bfloat16 Adam's 0.999 is 1: a kernel would keep its second moment at 0.
    written_out, _ = train(OPTIMIZERS[name], kernels=False, dtype=dtype)
    by_kernel, _ = train(OPTIMIZERS[name], kernels=True, dtype=dtype)
    for a, b in zip(by_kernel, written_out, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.multi_device
@pytest.mark.parametrize("name", ["nesterov", "adamw"])
def test_kernels_move_the_variables_of_every_replica(name):
    strategy = partial(tf.distribute.MirroredStrategy, ["CPU:0", "CPU:1"])
    written_out, _ = train(OPTIMIZERS[name], kernels=False, strategy=strategy())
    by_kernel, _ = train(OPTIMIZERS[name], kernels=True, strategy=strategy())
    for a, b in zip(by_kernel, written_out, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WITH_KERNELS)
def test_one_kernel_serves_where_the_equation_is_the_kernels(name):
    _, operations = train(OPTIMIZERS[name], kernels=True)
    used = {o for o in operations if o.startswith("ResourceApply")}
    assert used == WITH_KERNELS[name]


def test_an_update_of_the_users_own_is_left_alone():
    class Halved(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient / 2, variable, learning_rate)

    half, _ = train(partial(Halved, 0.1), kernels=True, steps=1)
    whole, _ = train(partial(keras.optimizers.SGD, 0.1), kernels=True, steps=1)
    start = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(2 * (half[0] - start), whole[0] - start, atol=1e-6)


def test_what_the_user_does_to_the_learning_rate_is_left_alone():
    class Halved(keras.optimizers.SGD):
        def _backend_update_step(self, grads, trainable_variables, learning_rate):
            super()._backend_update_step(grads, trainable_variables, learning_rate / 2)

    half, _ = train(partial(Halved, 0.1), kernels=True, steps=1)
    whole, _ = train(partial(keras.optimizers.SGD, 0.05), kernels=True, steps=1)
    np.testing.assert_allclose(half[0], whole[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam"])
@pytest.mark.parametrize("on_the_class", [True, False])
def test_ones_own_way_to_assign_is_left_alone(name, on_the_class):
    def make():
        keras_class = type(OPTIMIZERS[name]())
        written = []

        def noting(method):
            def assign(self, variable, value):
                written.append(method)
                getattr(keras_class, method)(self, variable, value)

            return assign

        own = {m: noting(m) for m in ("assign", "assign_add", "assign_sub")}
        if on_the_class:
            optimizer = type("Noting", (keras_class,), own).from_config(
                OPTIMIZERS[name]().get_config()
            )
        else:
            optimizer = OPTIMIZERS[name]()
            for method, function in own.items():
                setattr(optimizer, method, partial(function, optimizer))
        made.append(written)
        return optimizer

    made = []
    for kernels in (False, True):
        train(make, kernels, steps=1)
    assert made[1] == made[0] != []


def test_asking_for_kernels_again_changes_nothing():
    def make():
        optimizer = OPTIMIZERS["adam"]()
        use_kernels(optimizer)
        return optimizer

    once, _ = train(OPTIMIZERS["adam"], kernels=True)
    twice, operations = train(make, kernels=True)
    assert "ResourceApplyAdam" in operations
    for a, b in zip(twice, once, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["nesterov", "adam"])
def test_rows_that_an_embedding_did_not_look_up_get_what_keras_gives_them(name):
    results = []
    for kernels in (False, True):
        table = keras.Variable(np.arange(6.0).reshape(3, 2))
        optimizer = OPTIMIZERS[name]()
        optimizer.build([table])
        if kernels:
            use_kernels(optimizer)
        for _ in range(3):
            rows = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([0, 2]), (3, 2))
            optimizer.apply([rows], [table])
        results.append([np.array(v) for v in [table, *optimizer.variables]])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_scaled_losses_are_unscaled_before_the_kernels():
    results = []
    for scaled in (False, True):
        variable = keras.Variable([1.0, -2.0])
        optimizer = inner = OPTIMIZERS["nesterov"]()
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
        optimizer.build([variable])
        use_kernels(inner)
        for _ in range(3):
            gradient = tf.constant([0.5, 0.25]) * (8.0 if scaled else 1.0)
            optimizer.apply([gradient], [variable])
        results.append(np.array(variable))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)
