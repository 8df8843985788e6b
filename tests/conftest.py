"""What every test starts from: two CPU devices, a fixed seed, a clean Keras state."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import pytest
import tensorflow as tf

# Fixed once the runtime starts, so it is set here for the tests marked `multi_device`.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)


@pytest.fixture(autouse=True)
def clean_state():
    """Reset names, seed and dtype policy so that no test depends on another."""
    policy = keras.config.dtype_policy()
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    # A second strategy of one process would meet the first one's collective keys.
    tf.distribute.MirroredStrategy._collective_key_base += 1000
    yield
    keras.config.set_dtype_policy(policy)
