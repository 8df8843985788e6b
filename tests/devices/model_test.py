"""The Keras shim: several steps per call of the train function."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from afd_tf import OnlineDistiller


def trained(steps_per_execution, strategy):
    """Return the variables after two epochs of five batches, and the metrics."""
    keras.utils.set_random_seed(1)
    with strategy.scope():
        networks = [tiny.network(4), tiny.network(4)]
        model = OnlineDistiller(networks, tiny.afd(), names=["a", "b"])
    model.compile(
        tiny.sgd(0.1),
        feature_optimizer=tiny.sgd(0.1),
        discriminator_optimizer=tiny.sgd(0.1),
        steps_per_execution=steps_per_execution,
    )
    history = model.fit(
        tiny.dataset(40),
        epochs=2,
        validation_data=tiny.dataset(24),
        shuffle=False,
        verbose=0,
    )
    assert int(keras.ops.convert_to_numpy(model.trained_steps)) == 10
    return tiny.values(model.variables), history.history


@pytest.mark.multi_device
@pytest.mark.parametrize("devices", [["CPU:0"], ["CPU:0", "CPU:1"]])
def test_steps_in_one_call_are_steps_in_several(devices):
    strategy = tf.distribute.MirroredStrategy(devices)
    one, one_history = trained(1, strategy)
    three, three_history = trained(3, strategy)  # the last call has two
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one_history == three_history
