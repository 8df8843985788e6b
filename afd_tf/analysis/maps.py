"""Similarity of feature maps, accumulated a batch at a time in float64."""

import itertools

import numpy as np


class MapDistances:
    """L1, L2 and cosine between the maps of two networks (paper, table 7).

    L1 is the mean of |a - b| and L2 the mean of (a - b)^2 over all elements of all
    maps, as in the losses of these names. The cosine is a . b / (|a| |b|) of an image's
    whole maps, flattened, and its mean over images; that of a map of zeros is 0.
    """

    def __init__(self):
        self._count = 0
        self._sums = np.zeros(3)

    def update(self, first, second):
        """Add the maps of a batch.

        Args:
            first: float array `(batch, height, width, channels)`.
            second: float array of the same shape.
        """
        a, b = (
            np.asarray(maps, np.float64).reshape(len(maps), -1)
            for maps in (first, second)
        )
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
        each = [np.abs(a - b).mean(axis=1), np.square(a - b).mean(axis=1), cosine]
        self._sums += np.sum(each, axis=1)
        self._count += len(a)

    def result(self):
        """Return a dict of "l1", "l2" and "cosine" to float."""
        means = self._sums / self._count
        return dict(zip(("l1", "l2", "cosine"), means.tolist(), strict=True))


class LinearCKA:
    """Linear centred kernel alignment (Kornblith et al. 2019, equation 3).

        CKA(X, Y) = |Y'X|^2 / (|X'X| |Y'Y|)        Frobenius norms, X and Y centred

    Each position of each image is an observation (a row), its channels are the features
    (the columns). So only sums of products of channels are kept, not the maps; numbers
    of channels may differ.

    Args:
        channels: list of int, the channels of each network's map.
    """

    def __init__(self, channels):
        ends = list(itertools.accumulate(channels, initial=0))
        self._blocks = [slice(*pair) for pair in itertools.pairwise(ends)]
        self._count = 0
        self._sum = np.zeros(ends[-1])
        self._products = np.zeros((ends[-1], ends[-1]))
        self._origin = None

    def update(self, maps):
        """Add the maps of a batch.

        Args:
            maps: list of float arrays `(batch, height, width, channels)`, one per
                network, of one height and width.
        """
        rows = np.concatenate([np.asarray(m, np.float64) for m in maps], axis=-1)
        rows = rows.reshape(-1, rows.shape[-1])
        if self._origin is None:
            # Products of what is nearly centred lose no digits when they are centred.
            self._origin = rows.mean(axis=0)
        rows = rows - self._origin
        self._count += len(rows)
        self._sum += rows.sum(axis=0)
        self._products += rows.T @ rows

    def result(self, first, second):
        """Return the alignment of two networks, given by their indices, in [0, 1].

        It is NaN where a network's map is the same everywhere.
        """
        centred = self._products - np.outer(self._sum, self._sum) / self._count

        def norm(i, j):
            return np.linalg.norm(centred[self._blocks[i], self._blocks[j]])

        own = norm(first, first) * norm(second, second)
        # What is left of rounding is no variation.
        smallest = np.finfo(np.float64).eps * np.linalg.norm(self._products)
        if own <= smallest**2:
            return float("nan")
        return float(norm(first, second) ** 2 / own)
