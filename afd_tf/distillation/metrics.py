"""Metrics of a step, kept together in two vectors."""

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="afd_tf")
class StepMetrics(keras.metrics.Metric):
    """Running means under many names, updated by one addition per step.

    Args:
        names: list of str, the keys of `result()`.
        name: str.
    """

    def __init__(self, names, name="step_metrics", **kwargs):
        super().__init__(name=name, **kwargs)
        self.names = tuple(names)
        shape = (len(self.names),)
        self.totals = self.add_variable(shape, "zeros", "float32", name="totals")
        self.counts = self.add_variable(shape, "zeros", "float32", name="counts")

    def update_state(self, values):
        """Add one step.

        Args:
            values: dict from each of `names` to `(total, count)`, float scalars: the
                sum over examples and their number.
        """
        totals, counts = zip(*(values[name] for name in self.names), strict=True)
        self.totals.assign_add(tf.stack([tf.cast(t, tf.float32) for t in totals]))
        self.counts.assign_add(tf.stack([tf.cast(c, tf.float32) for c in counts]))

    def count(self, name):
        """Return how much was counted under `name` since the last reset."""
        return ops.convert_to_tensor(self.counts)[self.names.index(name)]

    def result(self):
        """Return a dict from name to mean; 0 where nothing was counted."""
        means = tf.math.divide_no_nan(
            ops.convert_to_tensor(self.totals), ops.convert_to_tensor(self.counts)
        )
        return dict(
            zip(self.names, tf.unstack(means, num=len(self.names)), strict=True)
        )

    def get_config(self):
        return {**super().get_config(), "names": self.names}


def metric_names(network_names, method):
    """List the metrics of training and of evaluation.

    Args:
        network_names: list of str.
        method: Method.

    Returns:
        Two lists of str: training metrics and evaluation metrics.
    """
    ensemble = ["mean_accuracy", "ensemble_accuracy"]
    per_network = ["loss", "accuracy"]
    evaluation = ["loss", *_each(network_names, per_network), *ensemble]
    evaluation.append("ensemble_loss")
    if method.kl or method.feature:
        per_network = ["loss", "cross_entropy", "accuracy"]
    if method.kl:
        per_network.insert(2, "kl")
    if method.feature:
        per_network.append("feature_loss")
        if not method.feature.joins_logit_loss:
            per_network.append("gradient_ratio")
        if method.adversarial:
            per_network += [
                f"discriminator_{what}" for what in ("loss", "real", "own", "accuracy")
            ]
    training = ["loss", *_each(network_names, per_network), *ensemble]
    if method.branches:
        training.append("ensemble_loss")
    return training, evaluation


def _each(network_names, names):
    return [f"{network}_{name}" for network in network_names for name in names]


def for_each_network(metrics, network_names, taken=()):
    """Make a copy of each of the user's metrics for each network.

    Args:
        metrics: list of keras metrics or their names, as `keras.Model.compile` takes.
        network_names: list of str.
        taken: names that other metrics have.

    Returns:
        List of lists of `keras.metrics.Metric`: per network, named
        `{network}_{metric}`, to be fed class probabilities.

    Raises:
        TypeError: if an item is not a metric that can be copied.
        ValueError: if a name is taken.
    """
    copies, taken = [], set(taken)
    for network in network_names:
        own = []
        for metric in metrics or ():
            if metric in ("accuracy", "acc"):  # what everybody writes; it is there
                continue
            metric = keras.metrics.get(metric)
            if not isinstance(metric, keras.metrics.Metric):
                raise TypeError(
                    "Invalid value for argument `metrics`. Expected "
                    "keras.metrics.Metric objects or names of such, e.g. "
                    "keras.metrics.SparseTopKCategoricalAccuracy(5). Received: "
                    f"metrics={metrics!r}."
                )
            name = f"{network}_{metric.name}"
            if name in taken:
                raise ValueError(
                    f"Invalid value for argument `metrics`. Metric '{name}' exists "
                    "already: losses and accuracies are always reported. Received: "
                    f"metrics={metrics!r}. Leave it out, or give it another name."
                )
            taken.add(name)
            config = {**metric.get_config(), "name": name}
            own.append(type(metric).from_config(config))
        copies.append(own)
    return copies
