"""Runs that take a second or two: tiny networks on the embedded digits."""

import csv
import functools

import keras
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from afd_tf import data, training
from afd_tf.training.checkpoints import Checkpoints

load_quietly = functools.partial(data.load, padding=1)


def tiny_network(
    num_classes, input_shape, channels=4, name="small", dropout=0.0, normalization=True
):
    """Return a classifier with batch normalisation and, if asked, dropout."""
    images = keras.Input(input_shape)
    x = keras.layers.Conv2D(channels, 3, strides=4, use_bias=False)(images)
    if normalization:
        together = normalization == "sync"
        x = keras.layers.BatchNormalization(momentum=0.9, synchronized=together)(x)
    x = keras.layers.ReLU(name="feature_map")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(num_classes, dtype="float32")(x)
    return keras.Model(images, x, name=name)


small = functools.partial(tiny_network, channels=4, name="small")
large = functools.partial(tiny_network, channels=6, name="large", dropout=0.2)


def arguments(**changes):
    """Return arguments of `train`: two epochs of five steps."""
    return {
        "networks": [small, large],
        "method": "vanilla",
        "epochs": 2,
        "batch_size": 256,
        "tensorboard": False,
        **changes,
    }


def train(workdir, **changes):
    return training.train(workdir, **arguments(**changes))


class AfterStep(keras.callbacks.Callback):
    """Calls a function with the model once a step is done.

    Args:
        epoch: int, from 0.
        step: int, from 1; after the epoch's last, while it is evaluated.
        function: callable from the model.
    """

    def __init__(self, epoch, step, function):
        super().__init__()
        self._wanted = (epoch, step)
        self._function = function

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 < self.params["steps"]:
            self._call(batch + 1)

    def on_test_batch_begin(self, batch, logs=None):
        if batch == 1:
            self._call(self.params["steps"])

    def _call(self, step):
        if (self._epoch, step) == self._wanted:
            self._function(self.model)


class AfterEpoch(keras.callbacks.Callback):
    """Raises a KeyboardInterrupt once an epoch, from 1, is done and saved."""

    def __init__(self, epoch):
        super().__init__()
        self._done = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._done:
            raise KeyboardInterrupt


def checkpoint_values(run):
    """Return every value in a run's newest checkpoint: dict of key to array."""
    return Checkpoints(run / "checkpoints").newest().values


def rows(run):
    """Return the rows of a run's `metrics.csv` as dicts of str, without the time."""
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


def events(run):
    """Return what TensorBoard shows of a run: (tag, step, value), without the speed."""
    shown = EventAccumulator(str(run / "logs"), {"tensors": 0}).Reload()
    return [
        (tag, event.step, event.tensor_proto.SerializeToString())
        for tag in shown.Tags()["tensors"]
        for event in shown.Tensors(tag)
        if not tag.startswith("speed")
    ]


def assert_same_values(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=key)
