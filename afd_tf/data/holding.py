"""Where the decoded images of a split are held: memory, a cache on disk, nowhere."""

import dataclasses
import math
from collections.abc import Callable, Iterable

import numpy as np

from afd_tf.data import cache
from afd_tf.data.examples import InMemory, OnDemand, check_labels


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a source, of which nothing is decoded yet.

    Attributes:
        where: str, what it is, for messages ("the train split of cifar100/3.0.2").
        count: int, number of examples.
        image_shape: tuple (height, width, channels) after decoding.
        num_classes: int.
        decode: function to an iterable of (images uint8 (some, *image_shape), labels
            int (some,)), contiguous, which together are the whole split in its order.
        on_demand: function to the same examples as an `OnDemand`, in the same order.
        identity: function to a dict that JSON can hold: everything that decides what
            the decoded images are, the state of the files included.
    """

    where: str
    count: int
    image_shape: tuple[int, int, int]
    num_classes: int
    decode: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
    on_demand: Callable[[], OnDemand]
    identity: Callable[[], dict]

    def batches(self):
        """Yield what `decode` gives, checked.

        Raises:
            ValueError: if it is not `count` examples, or a label is no class.
        """
        done = 0
        for images, labels in self.decode():
            labels = check_labels(labels, self.num_classes, self.where, done)
            done += len(labels)
            if done > self.count:
                break
            yield images, labels
        if done != self.count:
            found = "more" if done > self.count else str(done)
            raise ValueError(
                f"Damaged data set: {self.where}. Expected {self.count} examples. "
                f"Received: {found}. Prepare it again."
            )


def hold(split, memory_limit, cache_dir=None, parts=False):
    """Make the examples of a split available.

    Args:
        split: `Split`.
        parts: bool, whether parts of the whole images are wanted; they are `OnDemand`.
        memory_limit: int, bytes of decoded images that may be held in memory.
        cache_dir: str, folder of the decoded images on disk, or None.

    Returns:
        `InMemory` within the limit; beyond it `OnDisk` with a `cache_dir` and
        `OnDemand` without.

    Raises:
        ValueError: if the split is damaged, a label is outside of the classes, or the
            cache cannot be written or is damaged.
    """
    if parts:
        return split.on_demand()
    fits = split.count * math.prod(split.image_shape) <= memory_limit
    if cache_dir is not None:
        stored = cache.decoded_once(split, cache_dir)
        if not fits:
            return stored
        images = stored.gather(np.arange(len(stored)))
        return InMemory(images, stored.labels)
    if not fits:
        return split.on_demand()
    images = np.empty((split.count, *split.image_shape), np.uint8)
    labels = np.empty(split.count, np.int32)
    row = 0
    for some, their in split.batches():
        end = row + len(their)
        images[row:end], labels[row:end] = some, their
        row = end
    return InMemory(images, labels)
