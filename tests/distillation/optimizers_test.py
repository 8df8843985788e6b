"""Which optimizer object trains, wherever it was made, and with what it was told."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from afd_tf import OnlineDistiller
from afd_tf.distillation.optimizers import in_this_strategy


def one_device():
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def two_devices():
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


def scope(strategy):
    return strategy.scope() if strategy else contextlib.nullcontext()


def model_in(strategy):
    with scope(strategy):
        return OnlineDistiller([tiny.network(), tiny.network()], "vanilla")


def scaled(optimizer):
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)


class Capped(keras.optimizers.SGD):
    """An optimizer with a setting that its config does not hold."""

    def __init__(self, learning_rate=0.1, cap=None, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.cap = cap


class Fixed(keras.optimizers.SGD):
    """An optimizer that cannot be made from its config."""

    def __init__(self):
        super().__init__(0.1)


@pytest.mark.multi_device
@pytest.mark.parametrize("make_strategy", [one_device, two_devices])
@pytest.mark.parametrize("wrap", [lambda o: o, scaled])
def test_an_optimizer_made_in_the_scope_is_the_one_that_trains(make_strategy, wrap):
    strategy = make_strategy()
    model = model_in(strategy)
    with strategy.scope():
        optimizer = wrap(keras.optimizers.SGD(0.5))
    model.compile(optimizer)
    assert model.optimizer is optimizer

    def halt(batch, logs):
        optimizer.learning_rate = 0.0
        weights.append(tiny.values(model.trainable_variables))

    weights = []
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=halt)
    model.fit(tiny.dataset(24), shuffle=False, verbose=0, callbacks=[callback])
    for first, second in zip(weights[0], weights[1], strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.multi_device
@pytest.mark.parametrize("by", ["var_names", "var_list"])
@pytest.mark.parametrize(
    ("make_strategy", "inside"),
    [(lambda: None, False), (two_devices, True), (two_devices, False)],
)
def test_what_is_excluded_from_decay_stays_so(make_strategy, inside, by):
    strategy = make_strategy()
    model = model_in(strategy)
    head = model.networks[0].get_layer("logits")
    with scope(strategy if inside else None):
        optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
        excluded = {"var_names": ["bias"], "var_list": [head.bias]}
        optimizer.exclude_from_weight_decay(**{by: excluded[by]})
    model.compile(optimizer, weight_decay="none")
    for v in head.trainable_variables:
        v.assign(np.full(v.shape, 2.0))
    # No example counts: only decay can move a weight.
    images, labels = tiny.batch()
    model.train_on_batch(images, labels, sample_weight=np.zeros(8, "float32"))
    np.testing.assert_array_equal(head.bias, np.full(3, 2.0))
    np.testing.assert_allclose(head.kernel, np.full((4, 3), 1.9), rtol=1e-5)


@pytest.mark.multi_device
def test_an_optimizer_made_outside_is_made_again_in_the_scope():
    optimizer = keras.optimizers.SGD(0.5, momentum=0.3)
    optimizer.learning_rate = 0.25
    with two_devices().scope():
        again = in_this_strategy(optimizer)
    assert again is not optimizer
    assert again.get_config() == optimizer.get_config()
    assert again.get_config()["learning_rate"] == 0.25
    assert isinstance(again.iterations.value, tf.distribute.DistributedValues)


@pytest.mark.multi_device
def test_what_scales_losses_is_made_again_with_the_optimizer_in_it():
    strategy = two_devices()
    with strategy.scope():
        inside = keras.optimizers.SGD(0.1)
    # Its class is not registered with Keras.
    outside = Capped(0.1, weight_decay=0.5)
    outside.exclude_from_weight_decay(var_names=["bias"])
    wrapped = [scaled(inside), scaled(outside)]
    with strategy.scope():
        again = [in_this_strategy(optimizer) for optimizer in wrapped]
        bias = keras.Variable([1.0], name="bias").value
    assert [optimizer.initial_scale for optimizer in again] == [8.0, 8.0]
    assert again[0].inner_optimizer is inside
    assert isinstance(again[1].inner_optimizer, Capped)
    assert not again[1].inner_optimizer._use_weight_decay(bias)


@pytest.mark.multi_device
def test_an_optimizer_of_a_strategy_serves_a_model_outside_of_it():
    with two_devices().scope():
        optimizer = keras.optimizers.SGD(0.5)
    model = model_in(None)
    model.compile(optimizer)
    model.fit(tiny.dataset(), verbose=0)
    assert int(model.optimizer.iterations) == 2


@pytest.mark.multi_device
def test_what_no_config_holds_is_refused():
    added = Capped(0.1)
    added.update_by = "hand"
    capped = Capped(0.1, cap=2.0)
    for wrong, what in ((capped, "'cap'"), (added, "'update_by'"), (Fixed(), "unexpe")):
        for optimizer in (wrong, scaled(wrong)):
            with (
                two_devices().scope(),
                pytest.raises(ValueError, match=f"does not hold.*{what}.*the scope"),
            ):
                in_this_strategy(optimizer)
    assert in_this_strategy(capped) is capped


@pytest.mark.multi_device
def test_an_optimizer_built_outside_cannot_serve_several_replicas():
    for strategy in (one_device(), two_devices()):
        model = model_in(strategy)
        optimizer = keras.optimizers.Adam(0.1)
        optimizer.build(model.trainable_variables)
        if strategy.num_replicas_in_sync == 1:
            model.compile(optimizer)
            assert model.optimizer is optimizer
        else:
            with pytest.raises(ValueError, match="built outside"):
                model.compile(optimizer)
