"""Splits: labelled images in memory or decoded on demand, and parts of them."""

import abc
import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable

import numpy as np

from afd_tf.errors import InvalidValue, invalid


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Decoded images.

    Attributes:
        images: uint8 array (examples, height, width, channels).
        labels: int32 array (examples,).
        files: str, digest of the files that they were read from; None without files.
    """

    images: np.ndarray
    labels: np.ndarray
    files: str | None = None

    def __len__(self):
        return len(self.labels)

    @property
    def image_shape(self):
        """Tuple (height, width, channels)."""
        return tuple(self.images.shape[1:])

    def digest(self):
        """Return the SHA-256 of the labels, and of the files or else the pixels."""
        origin = self.images if self.files is None else self.files
        return sha256(self.labels.astype("<i4"), origin)

    def subset(self, rows):
        """Return the examples `rows`, in that order."""
        files = self.files and sha256(self.files, np.asarray(rows, "<i8"))
        return InMemory(self.images[rows], self.labels[rows], files)


@dataclasses.dataclass(frozen=True)
class OnDemand:
    """Images that do not fit in memory: each is decoded whenever it is used.

    Attributes:
        count: int, number of examples.
        image_shape: tuple (height, width, channels) after decoding.
        fetch: function from an int64 scalar tensor, the row, to a uint8 image tensor of
            `image_shape` and an int32 scalar label; called inside a pipeline.
        read_labels: function to an int32 array (count,); may have to read the files.
        files: str, digest of the files that the images are read from.
        fetch_part: as `fetch`, of a part of the whole image resized to `image_shape`;
            called with the row, a Python function `draw`, and the tuple of scalar
            tensors that, with the (height, width) of the whole image behind them, are
            `draw`'s arguments: it gives what `draw_part` does. None if there are no
            whole images.
        rows: int64 array (examples,), the rows of `fetch` used here, or None for all.
    """

    count: int
    image_shape: tuple[int, int, int]
    fetch: Callable
    read_labels: Callable[[], np.ndarray]
    files: str
    fetch_part: Callable | None = None
    rows: np.ndarray | None = None

    def __len__(self):
        return self.count if self.rows is None else len(self.rows)

    @property
    def labels(self):
        """int32 array (examples,)."""
        labels = self.read_labels()
        return labels if self.rows is None else labels[self.rows]

    def digest(self):
        """Return the SHA-256 of the files, which stands for the labels, too."""
        return sha256(self.files)

    def subset(self, rows):
        """Return the examples `rows`, in that order."""
        files = sha256(self.files, np.asarray(rows, "<i8"))
        if self.rows is not None:
            rows = self.rows[rows]
        return dataclasses.replace(self, files=files, rows=np.asarray(rows, np.int64))


class EncodedSplit(abc.ABC):
    """A split in files, of which nothing is decoded yet.

    Attributes:
        where: str, what it is, for messages ("the train split of cifar100/3.0.2").
        count: int, number of examples.
        image_shape: tuple (height, width, channels) after decoding.
        num_classes: int.
    """

    where: str
    count: int
    image_shape: tuple[int, int, int]
    num_classes: int

    @abc.abstractmethod
    def decode(self) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Yield (images uint8 (some, *image_shape), labels int (some,)) in order."""

    @abc.abstractmethod
    def on_demand(self) -> OnDemand:
        """Return the same examples in the same order, decoded when they are used."""

    @abc.abstractmethod
    def files_digest(self) -> str:
        """Return a SHA-256 of the names and sizes of the files."""

    def examples(self, memory_limit, parts=False):
        """Make the examples available.

        Args:
            memory_limit: int, bytes of decoded images that may be held in memory.
            parts: bool, whether parts of the whole images are wanted.

        Returns:
            `InMemory` within the limit; beyond it, or for parts, `OnDemand`.

        Raises:
            InvalidValue: if the files are not `count` examples, or a label is no class.
        """
        size = self.count * math.prod(self.image_shape)
        if parts or size > memory_limit:
            return self.on_demand()
        images = np.empty((self.count, *self.image_shape), np.uint8)
        labels = np.empty(self.count, np.int32)
        done = 0
        for some, their in self.decode():
            their = check_labels(their, self.num_classes, self.where, done)
            end = done + len(their)
            if end > self.count:
                raise self._wrong_count("more")
            images[done:end], labels[done:end] = some, their
            done = end
        if done < self.count:
            raise self._wrong_count(done)
        return InMemory(images, labels, self.files_digest())

    def _wrong_count(self, received):
        return InvalidValue(
            f"Damaged data set: {self.where}. Expected {self.count} examples. "
            f"Received: {received}. Prepare it again."
        )


def sha256(*parts):
    """Return the SHA-256 of texts, bytes and arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            part = part.encode()
        elif isinstance(part, np.ndarray):
            part = np.ascontiguousarray(part).tobytes()
        digest.update(part)
    return digest.hexdigest()


def check_labels(labels, num_classes, where, first=0):
    """Return `labels` as int32.

    Args:
        labels: int array (examples,).
        num_classes: int.
        where: str, what they are the labels of, for the message.
        first: int, number of the first example, for the message.

    Raises:
        InvalidValue: if a label is outside [0, num_classes), with the first such
            example.
    """
    labels = np.asarray(labels)
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise InvalidValue(
            f"Invalid label in {where}. Expected 0 <= label < {num_classes}, the "
            f"number of classes. Received: {labels[wrong[0]]} at example "
            f"{first + wrong[0]}. A split without labels cannot be used; choose "
            "another with `test_split`."
        )
    return labels.astype(np.int32)


def stratified(labels, fraction, seed, argument="validation", names=None):
    """Set a fraction of every class aside.

    Class shares are rounded by largest remainder, so that the total is
    round(fraction * examples); every class keeps at least one example.

    Args:
        labels: int array (examples,).
        fraction: float in (0, 1).
        seed: int in [0, 2**32).
        argument: str, the option's name for the message.
        names: sequence of str, the classes' names for the message, or None.

    Returns:
        Two int64 arrays, rows kept and rows set aside: disjoint, ascending, together
        every row.

    Raises:
        InvalidValue: if nothing would be set aside.
    """
    # RandomState's numbers are frozen by NumPy, so a split stays what it is.
    random = np.random.RandomState(seed)
    classes, counts = np.unique(labels, return_counts=True)
    wanted = fraction * counts
    aside = np.floor(wanted).astype(np.int64)
    missing = round(fraction * len(labels)) - int(aside.sum())
    by_remainder = np.argsort(aside - wanted, kind="stable")
    aside[by_remainder[: max(missing, 0)]] += 1
    aside = np.minimum(aside, counts - 1)
    if aside.sum() == 0:
        label, count = classes[counts.argmin()], counts.min()
        name = names[label] if names else int(label)
        raise invalid(
            argument,
            f"a fraction that sets at least one of {len(labels)} examples in "
            f"{len(classes)} classes aside",
            received=f"{argument}={fraction}, and of class {name!r} {count} of the "
            f"{examples_needed(fraction)} examples that it needs for one to be set "
            "aside",
            hint="Add examples or raise the fraction.",
        )
    held_out = np.zeros(len(labels), bool)
    for label, count in zip(classes, aside, strict=True):
        rows = np.flatnonzero(labels == label)
        held_out[random.permutation(rows)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def examples_needed(fraction):
    """Return how many examples a class needs for `stratified` to set one aside."""
    # Rounded, so that 1 / (1 / 49) is 49; one example always stays.
    return max(2, math.ceil(round(1 / fraction, 6)))


def first_of_each_class(labels, count, names):
    """Take the first examples of every class, in the set's own order.

    Args:
        labels: int array (examples,).
        count: int >= 1, examples to take of each class.
        names: sequence of str, the classes' names.

    Returns:
        int64 array (count * classes,) of rows, ascending.

    Raises:
        InvalidValue: if a class has fewer.
    """
    there = np.bincount(labels, minlength=len(names))
    if there.min() < count:
        smallest = int(there.argmin())
        raise invalid(
            "per_class",
            f"at most {there[smallest]}, the training examples of class "
            f"{names[smallest]!r}",
            count,
        )
    firsts = [np.flatnonzero(labels == label)[:count] for label in range(len(names))]
    return np.sort(np.concatenate(firsts))
