"""Where the training data stands: an epoch and a step within it."""

import operator
import threading

import tensorflow as tf


def _unmirrored_variable():
    """Create an int64 (2,) variable on the CPU that no strategy's scope replicates.

    A strategy's scope belongs to one thread, so another thread is outside of it. A
    mirrored variable would live on every replica, and creating one over several workers
    is a collective operation, which a data pipeline must not depend on.
    """
    created = []

    def create():
        with tf.device("/CPU:0"):
            created.append(tf.Variable([0, 0], dtype=tf.int64, trainable=False))

    thread = threading.Thread(target=create)
    thread.start()
    thread.join()
    return created[0]


class EpochPosition:
    """Epoch and step that the next pass over the training data begins with.

    A pass reads the position when its first batch is pulled and moves it on to
    (epoch + 1, 0); an iterator that is never pulled from changes nothing. Passes that
    have begun are not affected by a later `assign`.

    Args:
        steps_per_epoch: int >= 1, batches in a whole epoch.

    Example:
        >>> train, test, info = afd_tf.data.load("digits", 128)
        >>> train.position.assign(7, step=3)
        >>> rest_of_epoch_7 = list(train)  # batches 3, 4, ... of epoch 7
    """

    def __init__(self, steps_per_epoch):
        self.steps_per_epoch = steps_per_epoch
        self._variable = _unmirrored_variable()

    def assign(self, epoch, step=0):
        """Make the next pass yield epoch `epoch` from batch `step` on.

        Args:
            epoch: int >= 0.
            step: int, 0 <= step < steps_per_epoch.

        Raises:
            ValueError: if `epoch` or `step` is out of range.
        """
        epoch, step = operator.index(epoch), operator.index(step)
        if epoch < 0:
            raise ValueError(
                "Invalid value for argument `epoch`. Expected an integer >= 0. "
                f"Received: epoch={epoch}"
            )
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(
                "Invalid value for argument `step`. Expected 0 <= step < "
                f"{self.steps_per_epoch}, the steps of an epoch. Received: step={step}."
                " The end of an epoch is step 0 of the next one."
            )
        self._variable.assign([epoch, step])

    def value(self):
        """Return (epoch, step) of the next pass, two ints."""
        epoch, step = self._variable.numpy().tolist()
        return epoch, step

    def advance(self):
        """Read the position and move it to the next epoch, inside a pipeline.

        Returns:
            Two int64 scalar tensors, epoch and step.
        """
        epoch, step = tf.unstack(tf.identity(self._variable.read_value()))
        self._variable.assign(tf.stack([epoch + 1, tf.zeros_like(step)]))
        return epoch, step

    def __repr__(self):
        epoch, step = self.value()
        return f"EpochPosition(epoch={epoch}, step={step})"
