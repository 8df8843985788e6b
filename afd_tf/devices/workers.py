"""Workers of a run, and sums over all of them between two steps."""

import tensorflow as tf

from afd_tf.devices.model import over_workers, total


class Workers:
    """The processes that train together; one, where the strategy knows no others.

    Args:
        strategy: `tf.distribute.Strategy`.

    Attributes:
        count: int, how many there are.
        index: int, which of them this is.
        is_chief: bool, whether this one writes.
    """

    def __init__(self, strategy):
        self._strategy = strategy
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
        own = tf.constant([int(number) for number in numbers], tf.int64)
        local = len(self._strategy.extended.worker_devices)
        values = [own, *[tf.zeros_like(own)] * (local - 1)]
        return total(self._strategy, values).numpy().tolist()

    def wait(self):
        """Wait until all workers have come here."""
        self.total(0)
