"""Workers of a run, and sums over all of them between two steps."""

import hashlib
import json

import tensorflow as tf

from afd_tf.devices.model import over_workers, total
from afd_tf.devices.rendezvous import check_same


class Workers:
    """The processes that train together; one, where the strategy knows no others.

    Args:
        strategy: `tf.distribute.Strategy`.
        rendezvous: `Rendezvous` through which they talk, so that signals and losses
            are noticed while they wait; None, by collectives of the strategy.

    Attributes:
        count: int, how many there are.
        index: int, which of them this is.
        is_chief: bool, whether this one writes.
    """

    def __init__(self, strategy, rendezvous=None):
        self._strategy = strategy
        self._rendezvous = rendezvous
        self.count, self.index = 1, 0
        if over_workers(strategy):
            resolver = strategy.cluster_resolver
            self.count = resolver.cluster_spec().num_tasks("worker")
            self.index = resolver.task_id
        self.is_chief = self.index == 0

    def total(self, *numbers):
        """Add up integers over all workers; each must call it at the same point.

        Args:
            *numbers: this worker's.

        Returns:
            List of int.
        """
        if self.count == 1:
            return list(numbers)
        if self._rendezvous is not None:
            every = self._rendezvous.gather([int(number) for number in numbers])
            return [sum(each) for each in zip(*every, strict=True)]
        own = tf.constant([int(number) for number in numbers], tf.int64)
        local = len(self._strategy.extended.worker_devices)
        values = [own, *[tf.zeros_like(own)] * (local - 1)]
        return total(self._strategy, values).numpy().tolist()

    def check_same(self, what, values):
        """Check that all workers have the same; each must call it at the same point.

        Args:
            what: str, for the message.
            values: dict with str keys, of what JSON can hold.

        Raises:
            InvalidValue: if not.
        """
        if self._rendezvous is not None:
            every = self._rendezvous.gather(values)
        else:
            text = json.dumps(values, sort_keys=True).encode()
            digest = int(hashlib.sha256(text).hexdigest()[:8], 16)
            places = [digest * (i == self.index) for i in range(self.count)]
            every = [{"digest": each} for each in self.total(*places)]
        check_same(what, every)

    def wait(self):
        """Wait until all workers have come here."""
        self.total(0)
