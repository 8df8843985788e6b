"""TensorBoard's view of a run."""

import time

import keras
import tensorflow as tf

from afd_tf.training.callbacks import learning_rates, owner


class TensorBoard(keras.callbacks.Callback):
    """Write scalars per epoch, grouped by what they measure, against the global step.

    Args:
        directory: path.
        steps_per_epoch: int.
        batch_size: int, for images/s.
        text: str, the configuration.
    """

    def __init__(self, directory, steps_per_epoch, batch_size, text):
        super().__init__()
        self._directory = str(directory)
        self._steps_per_epoch = steps_per_epoch
        self._images_per_epoch = steps_per_epoch * batch_size
        self._text = text
        self._writer = None

    def on_train_begin(self, logs=None):
        self._writer = tf.summary.create_file_writer(self._directory)

    def on_epoch_begin(self, epoch, logs=None):
        if self._text is not None:
            # Indented, it is shown as it is written.
            quoted = "\n".join(f"    {line}" for line in self._text.splitlines())
            with self._writer.as_default(step=epoch * self._steps_per_epoch):
                tf.summary.text("configuration", quoted)
            self._text = None
        self._started = time.monotonic()
        self._trained = None

    def on_test_begin(self, logs=None):
        self._trained = self._trained or time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        seconds = (self._trained or time.monotonic()) - self._started
        scalars = {self._tag(key): value for key, value in (logs or {}).items()}
        for role, rate in learning_rates(self.model).items():
            scalars[f"learning_rate/{role}"] = rate
        scalars["speed/images_per_second"] = self._images_per_epoch / seconds
        with self._writer.as_default(step=(epoch + 1) * self._steps_per_epoch):
            for tag, value in scalars.items():
                tf.summary.scalar(tag, value)
        self._writer.flush()

    def on_train_end(self, logs=None):
        self._writer.close()

    def _tag(self, key):
        """From `val_resnet20_kl` to `kl/resnet20_validation`."""
        plain = key.removeprefix("val_")
        suffix = "_validation" if plain != key else ""
        for whose in (owner(plain, self.model.network_names), "mean", "ensemble"):
            if whose and plain.startswith(f"{whose}_"):
                return f"{plain[len(whose) + 1 :]}/{whose}{suffix}"
        return f"{plain}/all{suffix}"
