"""Optimizers of one kernel per variable against Keras' own."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from afd_tf.distillation import fused_optimizers

# name: (optimizer, arguments, the kernels that a step is made of)
MOMENTUM, ADAM = {"ResourceApplyKerasMomentum"}, {"ResourceApplyAdam"}
OPTIMIZERS = {
    "sgd": ("SGD", {}, {"ResourceApplyGradientDescent"}),
    "momentum": ("SGD", {"momentum": 0.9}, MOMENTUM),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}, MOMENTUM),
    "clipped": ("SGD", {"momentum": 0.9, "clipnorm": 0.1}, MOMENTUM),
    "averaged": (
        "SGD",
        {"momentum": 0.9, "use_ema": True, "ema_momentum": 0.5},
        MOMENTUM,
    ),
    "scheduled": (
        "Adam",
        {
            "learning_rate": keras.optimizers.schedules.PiecewiseConstantDecay(
                [1, 2], [0.01, 1e-3, 1e-4]
            )
        },
        ADAM,
    ),
    "adam": ("Adam", {"beta_1": 0.8, "epsilon": 1e-3}, ADAM),
    "decayed": ("Adam", {"weight_decay": 0.1}, ADAM),
    "amsgrad": ("Adam", {"amsgrad": True}, set()),
    "accumulated": ("Adam", {"gradient_accumulation_steps": 2}, set()),
}


def make(name, library):
    kind, arguments, _ = OPTIMIZERS[name]
    return getattr(library, kind)(**{"learning_rate": 0.01, **arguments})


def train(optimizer, strategy=None, dtype="float32", steps=4):
    """Return all variables after some steps, and the operations of a step."""
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        variables = [
            keras.Variable(np.linspace(-1, 1, 5), dtype=dtype),
            keras.Variable(np.ones((2, 3)), dtype=dtype),
        ]
        optimizer = optimizer()
        optimizer.build(variables)

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


def both(name, **options):
    """Return the variables that our optimizer and Keras' lead to."""
    libraries = (fused_optimizers, keras.optimizers)
    return [train(partial(make, name, library), **options)[0] for library in libraries]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_variables_move_as_those_of_keras_do(name):
    # Keras rounds its constants to float32 whatever the dtype.
    for ours, theirs in zip(*both(name, dtype="float64"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "decayed"])
def test_variables_in_half_precision_move_as_keras_moves_them(name, dtype):
    # In bfloat16 Adam's 0.999 is 1: a kernel would keep its second moment at 0.
    for ours, theirs in zip(*both(name, dtype=dtype), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.multi_device
@pytest.mark.parametrize("name", ["nesterov", "decayed"])
def test_kernels_move_the_variables_of_every_replica(name):
    results = []
    for library in (fused_optimizers, keras.optimizers):
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        results.append(train(partial(make, name, library), strategy)[0])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_kernel_serves_where_the_equation_is_the_kernels(name):
    _, operations = train(partial(make, name, fused_optimizers))
    used = {o for o in operations if o.startswith("ResourceApply")}
    assert used == OPTIMIZERS[name][2]


@pytest.mark.parametrize("name", ["nesterov", "adam"])
def test_rows_that_an_embedding_did_not_look_up_get_what_keras_gives_them(name):
    results = []
    for library in (fused_optimizers, keras.optimizers):
        table = keras.Variable(np.arange(6.0).reshape(3, 2))
        optimizer = make(name, library)
        optimizer.build([table])
        for _ in range(3):
            rows = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([0, 2]), (3, 2))
            optimizer.apply([rows], [table])
        results.append([np.array(v) for v in [table, *optimizer.variables]])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_scaled_losses_are_unscaled_before_the_kernels():
    results = []
    for scale in (1.0, 8.0):
        variable = keras.Variable([1.0, -2.0])
        optimizer = make("nesterov", fused_optimizers)
        if scale > 1:
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, initial_scale=scale
            )
        optimizer.build([variable])
        for _ in range(3):
            optimizer.apply([tf.constant([0.5, 0.25]) * scale], [variable])
        results.append(np.array(variable))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["nesterov", "adam"])
def test_an_optimizer_survives_serialization(name):
    config = keras.optimizers.serialize(make(name, fused_optimizers))
    again = keras.optimizers.deserialize(config)
    assert type(again) is getattr(fused_optimizers, OPTIMIZERS[name][0])
    assert again.get_config() == config["config"]
