"""From a flag to a `tf.distribute` strategy."""

import tensorflow as tf

from afd_tf.naming import lookup


def strategy(name="auto"):
    """Return the strategy to build and train the networks in.

    Args:
        name: "auto" (mirrored on two or more GPUs, else single), "single" (one
            device) or "mirrored" (all GPUs; without any, all logical CPUs).

    Returns:
        `tf.distribute.Strategy`.

    Raises:
        ValueError: if the name is unknown, or "multi_worker".
    """
    if name == "multi_worker":
        raise ValueError(
            "Invalid value for argument `strategy`. Expected 'auto', 'single' or "
            "'mirrored': training over several machines is not available yet. "
            "Received: strategy='multi_worker'."
        )
    return lookup("strategy", name, STRATEGIES)()


def _auto():
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return _mirrored()
    return _single()


def _single():
    return tf.distribute.get_strategy()


def _mirrored():
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices(
        "CPU"
    )
    return tf.distribute.MirroredStrategy([device.name for device in devices])


STRATEGIES = {
    "auto": _auto,
    "single": _single,
    "mirrored": _mirrored,
}
