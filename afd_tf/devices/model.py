"""The Keras shim for several devices and workers: one train function of a built model.

Keras does not support `tf.distribute.MultiWorkerMirroredStrategy`
(https://github.com/keras-team/keras/issues/20585) for two reasons: before training it
reduces a batch of data over replicas, in order to build a model, and after each step it
reduces scalars along an axis that they do not have. Here the first is left out, since a
distiller is built when it is made, and logs leave the step as one vector with an axis.
Nor can Keras begin in the middle of an epoch. All of this is in this module, so that it
can go when Keras does it.
"""

import keras
import tensorflow as tf

from afd_tf.errors import integer

# Logs of steps that are left out.
_NO_LOGS = {}


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


def global_count(images):
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
    if not over_workers(strategy) or not hasattr(data, "for_replicas"):
        return data
    own = len(strategy.extended.worker_devices)
    distributed = strategy.distribute_datasets_from_function(
        lambda context: data.for_replicas(
            context.input_pipeline_id * own, own, context.num_replicas_in_sync
        )
    )
    # Keras takes the number of steps from here; replicas of a process take turns.
    distributed._cardinality = data.cardinality().numpy()
    return distributed


class DistributedModel(keras.Model):
    """A model, built before training, that trains on one device, several or workers.

    Its train function makes `steps_per_execution` steps, returns the logs of all
    replicas, and may leave out the first steps of an epoch.
    """

    _steps_left_out = 0

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Do nothing; on one machine Keras' way fails for shares of different sizes."""

    def fit(self, x=None, *, initial_step=0, validation_data=None, **arguments):
        """Train as `keras.Model.fit` does, with its arguments.

        Args:
            x: as in Keras.
            initial_step: int, the step of the first epoch to begin with. The steps
                before it are not made and no data is asked for; callbacks see them.
            validation_data: as in Keras.
            **arguments: as in Keras.
        """
        self._steps_left_out = integer("initial_step", initial_step, 0)
        strategy = self.distribute_strategy
        try:
            return super().fit(
                own_rows(strategy, x),
                validation_data=own_rows(strategy, validation_data),
                **arguments,
            )
        finally:
            self._steps_left_out = 0

    def evaluate(self, x=None, *arguments, **options):
        """Evaluate as `keras.Model.evaluate` does, with its arguments."""
        rows = own_rows(self.distribute_strategy, x)
        return super().evaluate(rows, *arguments, **options)

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return
        run = self._packed(self.train_step)

        def train_function(iterator):
            if self._steps_left_out <= 0:
                return run(iterator)
            self._steps_left_out -= self.steps_per_execution
            return _NO_LOGS

        self.train_function = train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            self.test_function = self._packed(self.test_step)

    def _get_metrics_result_or_logs(self, logs):
        # An epoch of which no step was left to make has the metrics it was given.
        if logs is _NO_LOGS:
            return self.get_metrics_result()
        return super()._get_metrics_result_or_logs(logs)

    def _packed(self, step):
        """Make a step's function whose logs are reduced together: one collective."""
        shapes = {}

        def packed(data):
            logs = {k: tf.cast(v, tf.float32) for k, v in step(data).items()}
            shapes.clear()
            shapes.update((name, value.shape) for name, value in logs.items())
            return tf.concat([tf.reshape(v, [-1]) for v in logs.values()], 0)[None]

        # Metrics of replicas differ; a replica's share of the mean is its own.
        many = self.steps_per_execution > 1
        run = self._several(packed) if many else self._make_function(packed)

        def unpacked(iterator):
            numbers = iter(tf.unstack(tf.reshape(run(iterator), [-1])))
            return {name: _next(numbers, shape) for name, shape in shapes.items()}

        return unpacked

    def _several(self, step):
        """Make a function of several steps; Keras' own fails on several replicas."""
        strategy, count = self.distribute_strategy, self.steps_per_execution
        # Some metrics do not know the size of their result before their first update.
        of_any_size = tuple(map(tf.TensorShape, ([], [None], [])))

        @tf.autograph.experimental.do_not_convert
        def one(data):
            return strategy.reduce("MEAN", strategy.run(step, args=(data,)), axis=0)

        # A function within the loop is what fails on several replicas.
        if self.jit_compile and not self.run_eagerly:
            one = tf.function(one, jit_compile=True)
        one = self._autoconvert_optionals(one)

        @tf.autograph.experimental.do_not_convert
        def several(iterator):
            def body(made, logs, _):
                batch = iterator.get_next_as_optional()
                more = batch.has_value()
                logs = tf.cond(more, lambda: one(batch.get_value()), lambda: logs)
                return made + tf.cast(more, tf.int32), logs, more

            start = (tf.constant(0), tf.zeros(0), tf.constant(True))
            made, logs, _ = tf.while_loop(
                lambda made, _, more: more & (made < count), body, start, of_any_size
            )
            return made, logs

        if not self.run_eagerly:
            several = tf.function(several, reduce_retracing=True)

        def run(iterator):
            kinds = (tf.data.Iterator, tf.distribute.DistributedIterator)
            if not isinstance(iterator, kinds):  # `train_on_batch`
                return one(next(iterator))
            made, logs = several(iterator)
            if not made:
                raise StopIteration
            return logs

        return run


def _next(numbers, shape):
    """Take a metric's value; one of a user may have a number for each class."""
    if shape.rank == 0:
        return next(numbers)
    return tf.reshape([next(numbers) for _ in range(shape.num_elements())], shape)
