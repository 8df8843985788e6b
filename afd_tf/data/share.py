"""Which rows of every global batch a process makes."""

import dataclasses
import itertools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of neighbouring replicas in every batch.

    A batch is cut as `tf.distribute` does it: every replica but the last ones takes
    ceil(size / replicas) rows in their order, what is left goes to the next, and those
    after it take none.

    Attributes:
        first: int, the first replica of this process.
        local: int >= 1, how many replicas it has.
        replicas: int >= 1, how many there are in all.
    """

    first: int = 0
    local: int = 1
    replicas: int = 1

    def start(self, size):
        """Return the first row of a batch of `size` rows, an int."""
        return min(size, self.first * -(-size // self.replicas))

    def sizes(self, size):
        """Return how many rows of a batch each replica of this process takes."""
        each = -(-size // self.replicas)
        edges = [min(size, (self.first + i) * each) for i in range(self.local + 1)]
        return [end - start for start, end in itertools.pairwise(edges)]

    def of_batches(self, count, batch_size):
        """Cut all batches of a fixed order, the last with the remainder.

        Args:
            count: int, number of examples.
            batch_size: int, rows of a whole batch.

        Returns:
            Rows of this process, an int64 array, and how many of them are in each
            batch of each replica, a list of ints without the zeros at its end.
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
