"""Batches of a data set, its position in training, and the rows of replicas."""

import dataclasses
import itertools
import threading

import numpy as np
import tensorflow as tf

from afd_tf.errors import integer


class ImageDataset(tf.data.Dataset):
    """Batches of images and labels; every pass over those to train on is one epoch.

    Args:
        build: function from `ReplicaRows` to the tf.data.Dataset of these rows.
        position: `EpochPosition` that `build` reads, or None where all passes are the
            same.

    Attributes:
        position: `EpochPosition` of the next pass, or None.

    Example:
        >>> train, test, info = afd_tf.data.load("digits", 128)
        >>> train.position.assign(7, step=3)
        >>> rest_of_epoch_7 = list(train)  # batches 3, 4, ... of epoch 7
    """

    def __init__(self, build, position=None):
        self.position = position
        self._build = build
        self._batches = build(ReplicaRows())
        super().__init__(tf.data.experimental.to_variant(self._batches))

    def _inputs(self):
        return [self._batches]

    @property
    def element_spec(self):
        return self._batches.element_spec

    def for_replicas(self, first, count, replicas):
        """Return the rows of neighbouring replicas alone, from the position on.

        Args:
            first: int, the first of them.
            count: int >= 1, how many they are.
            replicas: int >= 1, how many there are in all.

        Returns:
            tf.data.Dataset of a batch for each of them in turn, step by step.
        """
        return self._build(ReplicaRows(first, count, replicas))


@dataclasses.dataclass(frozen=True)
class ReplicaRows:
    """The rows of neighbouring replicas in every batch.

    A batch is cut as `tf.distribute` does it: every replica but the last ones takes
    ceil(size / replicas) rows in their order, what is left goes to the next, and those
    after it take none.

    Attributes:
        first: int, the first of them.
        count: int >= 1, how many they are.
        replicas: int >= 1, how many there are in all.
    """

    first: int = 0
    count: int = 1
    replicas: int = 1

    def start(self, size):
        """Return the first row of a batch of `size` rows, an int."""
        return min(size, self.first * -(-size // self.replicas))

    def sizes(self, size):
        """Return how many rows of a batch each replica takes, a list of ints."""
        each = -(-size // self.replicas)
        edges = [min(size, (self.first + i) * each) for i in range(self.count + 1)]
        return [end - start for start, end in itertools.pairwise(edges)]

    def of_batches(self, count, batch_size):
        """Cut all batches of a fixed order, the last with the remainder.

        Args:
            count: int, number of examples.
            batch_size: int, rows of a whole batch.

        Returns:
            The rows, an int64 array, and how many of them are in each batch of each
            replica, a list of ints without the zeros at its end.
        """
        rows, sizes = [], []
        for begin in range(0, count, batch_size):
            size = min(batch_size, count - begin)
            own = self.sizes(size)
            start = begin + self.start(size)
            rows.append(np.arange(start, start + sum(own), dtype=np.int64))
            sizes += own
        while sizes and not sizes[-1]:
            sizes.pop()
        return np.concatenate(rows), sizes


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
            InvalidValue: if `epoch` or `step` is out of range.
        """
        epoch = integer("epoch", epoch, 0)
        # The end of an epoch is step 0 of the next one.
        step = integer("step", step, 0, self.steps_per_epoch)
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


def position_of(data):
    """Return the `EpochPosition` of what `fit` was given, or None if it has none."""
    position = getattr(data, "position", None)
    return position if isinstance(position, EpochPosition) else None
