"""Labelled images: in memory, decoded on disk, or decoded whenever they are needed."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Decoded images.

    Attributes:
        images: uint8 array (examples, height, width, channels).
        labels: int32 array (examples,).
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    @property
    def image_shape(self):
        """Tuple (height, width, channels)."""
        return tuple(self.images.shape[1:])

    def subset(self, rows):
        """Return the examples `rows`, in that order."""
        return InMemory(self.images[rows], self.labels[rows])


@dataclasses.dataclass(frozen=True)
class OnDisk:
    """Decoded images in a memory-mapped file, read a batch at a time.

    Attributes:
        mapped: uint8 array (count, height, width, channels), the memory map.
        checksums: uint64 array (count,), `checksums` of the images as written.
        every_label: int32 array (count,).
        path: str, the file, for messages.
        rows: int64 array (examples,), the images used here, or None for all.
    """

    mapped: np.ndarray
    checksums: np.ndarray
    every_label: np.ndarray
    path: str
    rows: np.ndarray | None = None

    def __len__(self):
        return len(self.mapped) if self.rows is None else len(self.rows)

    @property
    def image_shape(self):
        """Tuple (height, width, channels)."""
        return tuple(self.mapped.shape[1:])

    @property
    def labels(self):
        """int32 array (examples,)."""
        return self.every_label if self.rows is None else self.every_label[self.rows]

    def gather(self, indices):
        """Read the images at `indices` and check that they are what was written.

        Args:
            indices: int array (batch,).

        Returns:
            uint8 array (batch, height, width, channels).

        Raises:
            ValueError: naming the file, if an image is not as it was written.
        """
        rows = indices if self.rows is None else self.rows[indices]
        images = np.take(self.mapped, rows, axis=0)
        wrong = np.flatnonzero(checksums(images) != self.checksums[rows])
        if len(wrong):
            raise ValueError(
                f"Damaged cache file {self.path!r}: image {rows[wrong[0]]} is not what "
                "was written. Delete its folder, and it will be written again."
            )
        return images

    def subset(self, rows):
        """Return the examples `rows`, in that order."""
        if self.rows is not None:
            rows = self.rows[rows]
        return dataclasses.replace(self, rows=np.asarray(rows, np.int64))


def checksums(images):
    """Sum the bytes of each image as words, modulo 2**64.

    As fast as memory is read, which a check at every use needs, and any single error
    changes it, as do lost pages.

    Args:
        images: contiguous uint8 array (examples, height, width, channels).

    Returns:
        uint64 array (examples,).
    """
    lines = images.reshape(len(images), -1)
    width = next(size for size in (8, 4, 2, 1) if lines.shape[1] % size == 0)
    return lines.view(f"<u{width}").sum(axis=1, dtype=np.uint64)


@dataclasses.dataclass(frozen=True)
class OnDemand:
    """Images that do not fit in memory: each is decoded whenever it is used.

    Attributes:
        count: int, number of examples.
        image_shape: tuple (height, width, channels) after decoding.
        fetch: function from an int64 scalar tensor, the row, to a uint8 image tensor of
            `image_shape` and an int32 scalar label; called inside a pipeline.
        fetch_part: likewise, of a part of the whole image resized to `image_shape`;
            called with the row, a Python function `draw`, and the tuple of scalar
            tensors that, with the (height, width) of the whole image behind them, are
            `draw`'s arguments: it gives what `draw_part` does. None if the source has
            no whole images.
        read_labels: function to an int32 array (count,); may have to read the files.
        rows: int64 array (examples,), the rows of `fetch` used here, or None for all.
    """

    count: int
    image_shape: tuple[int, int, int]
    fetch: Callable
    read_labels: Callable[[], np.ndarray]
    fetch_part: Callable | None = None
    rows: np.ndarray | None = None

    def __len__(self):
        return self.count if self.rows is None else len(self.rows)

    @property
    def labels(self):
        """int32 array (examples,)."""
        labels = self.read_labels()
        return labels if self.rows is None else labels[self.rows]

    def subset(self, rows):
        """Return the examples `rows`, in that order."""
        if self.rows is not None:
            rows = self.rows[rows]
        return dataclasses.replace(self, rows=np.asarray(rows, np.int64))


def check_labels(labels, num_classes, where, first=0):
    """Return `labels` as int32.

    Args:
        labels: int array (examples,).
        num_classes: int.
        where: str, what they are the labels of, for the message.
        first: int, number of the first example, for the message.

    Raises:
        ValueError: if a label is outside [0, num_classes), with the first such example.
    """
    labels = np.asarray(labels)
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise ValueError(
            f"Invalid label in {where}. Expected 0 <= label < {num_classes}, the "
            f"number of classes. Received: {labels[wrong[0]]} at example "
            f"{first + wrong[0]}. A split without labels cannot be used; choose "
            "another with `test_split`."
        )
    return labels.astype(np.int32)
