"""What Keras 3 lacks under `tf.distribute.MultiWorkerMirroredStrategy`.

Keras does not support this strategy (https://github.com/keras-team/keras/issues/20585)
for two reasons: before training it reduces a batch of data over replicas, in order to
build a model, and after each step it reduces scalars along an axis that they do not
have. Here the first is left out, since a distiller is built when it is made, and logs
leave the step as one vector with an axis. Everything of this is in this module, so that
it can go when Keras supports the strategy.
"""

import keras
import tensorflow as tf


def over_workers(strategy):
    """Whether a strategy spans several processes."""
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and strategy.extended._in_multi_worker_mode()
    )


def total(strategy, values):
    """Sum vectors over all replicas; every worker must call it at the same point.

    Args:
        strategy: the strategy.
        values: list of tensors of one shape, one for each replica of this process.

    Returns:
        Tensor of that shape, the same on all workers.
    """
    first = first_replica(strategy)
    per_replica = strategy.experimental_distribute_values_from_function(
        lambda context: values[context.replica_id_in_sync_group - first]
    )
    return strategy.reduce("SUM", per_replica, axis=None)


def examples_everywhere(images):
    """Return the number of examples of the global batch, a float32 scalar.

    Args:
        images: tensor `(batch, ...)`, the rows of the replica that calls.
    """
    strategy = tf.distribute.get_strategy()
    count = tf.cast(tf.shape(images)[0], tf.float32)
    known = images.shape[0] is not None and not tf.executing_eagerly()
    if known or strategy.num_replicas_in_sync == 1:
        # Only batches that are equal on all replicas have a size known beforehand.
        return count * strategy.num_replicas_in_sync
    replica = tf.distribute.get_replica_context()
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, count)


def first_replica(strategy):
    """Return the number of the first replica of this process among all, an int."""
    if not over_workers(strategy):
        return 0
    return strategy.cluster_resolver.task_id * len(strategy.extended.worker_devices)


def own_rows(strategy, data):
    """Distribute a data set of which this process makes its own rows only.

    Args:
        strategy: the strategy.
        data: what `fit` or `evaluate` was given.

    Returns:
        A distributed data set where `data` is one of `afd_tf.data` and the strategy
        spans several processes; else `data`.
    """
    if not over_workers(strategy) or not hasattr(data, "share_of"):
        return data
    own = len(strategy.extended.worker_devices)
    distributed = strategy.distribute_datasets_from_function(
        lambda context: data.share_of(
            context.input_pipeline_id * own, own, context.num_replicas_in_sync
        )
    )
    # Keras takes the number of steps from here; replicas of a process take turns.
    distributed._cardinality = data.cardinality().numpy()
    return distributed


class MultiWorkerModel(keras.Model):
    """A model, built before training, that trains over several workers as well."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Do nothing; on one machine Keras' way fails for shares of different sizes."""

    def make_train_function(self, force=False):
        if not over_workers(self.distribute_strategy):
            super().make_train_function(force)
        elif self.train_function is None or force:
            self.train_function = self._with_one_vector(self.train_step)

    def make_test_function(self, force=False):
        if not over_workers(self.distribute_strategy):
            super().make_test_function(force)
        elif self.test_function is None or force:
            self.test_function = self._with_one_vector(self.test_step)

    def _with_one_vector(self, step):
        """Make a step's function whose logs are reduced together: one collective."""
        names = []

        def packed(data):
            logs = step(data)
            names[:] = logs
            return tf.stack([tf.cast(v, tf.float32) for v in logs.values()])[None]

        # Metrics of replicas differ; a replica's share of the mean is its own.
        function = self._make_function(packed)

        def unpacked(iterator):
            return dict(zip(names, tf.unstack(function(iterator)), strict=True))

        return unpacked
