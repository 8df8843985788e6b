"""Metrics: each declared once, running means kept together in two vectors."""

import contextlib
import dataclasses

import keras
import tensorflow as tf
from keras import ops

from afd_tf import losses
from afd_tf.distillation import evaluation
from afd_tf.errors import instance, invalid


@dataclasses.dataclass(frozen=True)
class MetricSpec:
    """What a metric is.

    Attributes:
        name: str, the key in logs, without `val_`.
        quantity: str, what is measured: "loss", "accuracy", "kl", ...
        network: str, whose it is; "mean" and "ensemble" stand for all networks, None
            for the loss of them all.
        phases: tuple of "train", "test", where it is measured.
        is_loss: bool, whether a NaN or infinity in it tells of a bad step.
        shown: bool, whether progress bars show it.
    """

    name: str
    quantity: str
    network: str | None
    phases: tuple
    is_loss: bool = False
    shown: bool = False


# quantity: (whether a method has it, whether it is a loss, whether it is shown), in the
# order of the logs. To add a metric of networks, declare it here and return its
# `(total, count)` as `{network}_{quantity}` from `objectives.py` or `step.py`. One that
# is measured in evaluation as well: in `_EVALUATED`, and in `Meters.update_test`.
_PER_NETWORK = {
    "loss": (lambda method: True, True, False),
    "cross_entropy": (lambda method: method.kl or method.feature, True, False),
    "kl": (lambda method: method.kl, True, False),
    "accuracy": (lambda method: True, False, True),
    "feature_loss": (lambda method: method.feature, True, False),
    "gradient_ratio": (lambda method: method.feature_update, False, False),
    "discriminator_loss": (lambda method: method.adversarial, True, False),
    "discriminator_real": (lambda method: method.adversarial, False, False),
    "discriminator_own": (lambda method: method.adversarial, False, False),
    "discriminator_accuracy": (lambda method: method.adversarial, False, False),
}
_EVALUATED = ("loss", "accuracy")


def declare(names, method):
    """List the metrics of networks that learn by a method.

    Args:
        names: names of the networks.
        method: Method.

    Returns:
        List of MetricSpec, in the order of the logs.
    """
    both = ("train", "test")
    specs = [MetricSpec("loss", "loss", None, both, is_loss=True, shown=True)]
    for network in names:
        for quantity, (has, is_loss, shown) in _PER_NETWORK.items():
            if has(method):
                phases = both if quantity in _EVALUATED else ("train",)
                name = f"{network}_{quantity}"
                specs.append(
                    MetricSpec(name, quantity, network, phases, is_loss, shown)
                )
    for summary in ("mean", "ensemble"):
        name = f"{summary}_accuracy"
        specs.append(MetricSpec(name, "accuracy", summary, both, shown=True))
    phases = both if method.branches else ("test",)
    specs.append(MetricSpec("ensemble_loss", "loss", "ensemble", phases, is_loss=True))
    return specs


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

        Raises:
            ValueError: if there are others than `names`.
        """
        if odd := set(values) ^ set(self.names):
            raise ValueError(
                "Expected the metrics that are declared in distillation/metrics.py. "
                f"Declared without a value, or not declared: {sorted(odd)}."
            )
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


class Meters:
    """All metrics of a compiled distiller.

    Args:
        objectives: Objectives.
        ensemble: "probabilities" or "logits", see `OnlineDistiller`.
        user_metrics: list of keras metrics or their names, or None.

    Attributes:
        specs: tuple of MetricSpec, in the order of the logs.
    """

    def __init__(self, objectives, ensemble, user_metrics=None):
        exchange = objectives.exchange
        self._names, self._ensemble = exchange.names, ensemble
        self._classification_loss = objectives.classification_loss
        declared = declare(exchange.names, exchange.method)
        self._train, self._test = (
            StepMetrics(
                [spec.name for spec in declared if phase in spec.phases],
                name=f"{phase}_metrics",
            )
            for phase in ("train", "test")
        )
        taken = {spec.name for spec in declared}
        self._user = _for_each_network(user_metrics, exchange.names, taken)
        own = [
            MetricSpec(
                metric.name,
                metric.name.removeprefix(f"{network}_"),
                network,
                ("train", "test"),
                shown=True,
            )
            for network, metrics in zip(exchange.names, self._user, strict=True)
            for metric in metrics
        ]
        self.specs = (*declared, *own)

    def metrics(self, evaluating):
        """List the keras metrics of training or of evaluation."""
        own = self._test if evaluating else self._train
        return [own, *(metric for each in self._user for metric in each)]

    def ratio_due(self, step, every):
        """Whether to compute the gradient ratio: every n-th step, an epoch's first."""
        names = [s.name for s in self.specs if s.quantity == "gradient_ratio"]
        if not names:
            return tf.constant(False)
        first = tf.equal(self._train.count(names[0]), 0.0)
        return first | tf.equal(step % every, 0)

    def update_train(self, batch, logits, values):
        """Add a training step.

        Args:
            batch: Batch.
            logits: list of float32 tensors `(batch, classes)`, a gate's last.
            values: dict from metric to `(total, count)`, what the step returned.
        """
        predicted = evaluation.probabilities(self._names, logits, self._ensemble)
        right = evaluation.count_right(self._names, batch.labels, predicted)
        values = {**values, **right}
        values["loss"] = self._mean_loss(values)
        self._train.update_state(values)
        self._update_user(batch, predicted)

    def update_test(self, batch, logits):
        """Add an evaluation step; arguments as for `update_train`."""
        names, ensemble = self._names, self._ensemble
        predicted = evaluation.probabilities(names, logits, ensemble)
        values = evaluation.count_right(names, batch.labels, predicted)

        def total(scores):
            per_example = self._classification_loss(batch.labels, scores)
            return losses.weighted_sum(per_example, batch.weight), batch.count

        for name, z in zip(names, logits[: len(names)], strict=True):
            values[f"{name}_loss"] = total(ops.cast(z, "float32"))
        values["loss"] = self._mean_loss(values)
        together = evaluation.ensemble_logits(names, logits, predicted, ensemble)
        values["ensemble_loss"] = total(together)
        self._test.update_state(values)
        self._update_user(batch, predicted)

    def _mean_loss(self, values):
        totals = [values[f"{name}_loss"][0] for name in self._names]
        count = values[f"{self._names[0]}_loss"][1]
        return losses.add_in_order(totals) / len(totals), count

    def _update_user(self, batch, predicted):
        for name, metrics in zip(self._names, self._user, strict=True):
            for metric in metrics:
                metric.update_state(batch.labels, predicted[name])


def _for_each_network(metrics, network_names, taken):
    """Make a copy of each of the user's metrics for each network.

    Args:
        metrics: list of keras metrics or their names, as `keras.Model.compile` takes.
        network_names: list of str.
        taken: set of names that other metrics have.

    Returns:
        List of lists of `keras.metrics.Metric`: per network, named
        `{network}_{metric}`, to be fed class probabilities.
    """
    expected = (
        "a list of keras.metrics.Metric objects or names of such, e.g. "
        "[keras.metrics.SparseTopKCategoricalAccuracy(5)]"
    )
    instance("metrics", metrics, list | tuple | None, expected)
    copies, taken = [], set(taken)
    for network in network_names:
        own = []
        for metric in metrics or ():
            if metric in ("accuracy", "acc"):  # what everybody writes; it is there
                continue
            with contextlib.suppress(ValueError):  # an unknown name
                metric = keras.metrics.get(metric)
            instance("metrics", metric, keras.metrics.Metric, expected)
            name = f"{network}_{metric.name}"
            if name in taken:
                raise invalid(
                    "metrics",
                    f"other metrics than '{name}', which exists already: losses and "
                    "accuracies are always reported",
                    metrics,
                    hint="Leave it out, or give it another name.",
                )
            taken.add(name)
            config = {**metric.get_config(), "name": name}
            own.append(type(metric).from_config(config))
        copies.append(own)
    return copies
