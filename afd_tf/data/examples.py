"""Labelled images, decoded in memory or fetched one by one when they are needed."""

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
class OnDemand:
    """Images that do not fit in memory: each is decoded whenever it is used.

    Attributes:
        count: int, number of examples.
        image_shape: tuple (height, width, channels) after decoding.
        fetch: function from an int64 scalar tensor, the row, to a uint8 image tensor of
            `image_shape` and an int32 scalar label; called inside a pipeline.
        read_labels: function to an int32 array (count,); may have to read the files.
        rows: int64 array (examples,), the rows of `fetch` used here, or None for all.
    """

    count: int
    image_shape: tuple[int, int, int]
    fetch: Callable
    read_labels: Callable[[], np.ndarray]
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


def check_labels(labels, num_classes, where):
    """Return `labels` as int32.

    Raises:
        ValueError: if a label is outside [0, num_classes), with the first such example.
    """
    labels = np.asarray(labels)
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise ValueError(
            f"Invalid label in {where}. Expected 0 <= label < {num_classes}, the "
            f"number of classes. Received: {labels[wrong[0]]} at example {wrong[0]} "
            f"({len(wrong)} such labels). A split without labels cannot be used; "
            "choose another with `test_split`."
        )
    return labels.astype(np.int32)
