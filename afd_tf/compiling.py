"""What `compile` makes of its arguments."""

import dataclasses
import inspect
from numbers import Integral

import keras
import tensorflow as tf
from keras import ops

from afd_tf import evaluation, losses, metrics
from afd_tf.naming import lookup
from afd_tf.optimization import DEFAULTS, Phase, WeightDecay, check_ownership
from afd_tf.step import Phases, TrainStep

_NAMED_LOSSES = {
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
}

ARGUMENTS = (
    *(f"{role}_{what}" for role in DEFAULTS for what in ("optimizer", "schedule")),
    *(f"{role}_weight_decay" for role in DEFAULTS),
    "loss",
    "weight_decay",
    "decay_normalization",
    "decay_bias",
    "label_smoothing",
    "metrics",
    "feature_every",
    "gradient_ratio_every",
    "total_steps",
)


@dataclasses.dataclass(frozen=True)
class CompiledParts:
    """The step, its metrics, and the arguments they were made from.

    Attributes:
        step: TrainStep.
        arguments: dict, the arguments of `compile`.
        train_metrics: StepMetrics.
        test_metrics: StepMetrics.
        user_metrics: list per network of lists of keras metrics.
    """

    step: TrainStep
    arguments: dict
    train_metrics: metrics.StepMetrics
    test_metrics: metrics.StepMetrics
    user_metrics: list

    def ratio_due(self, iterations):
        """Whether to compute the gradient ratio: every n-th step, an epoch's first."""
        names = [n for n in self.train_metrics.names if n.endswith("_gradient_ratio")]
        if not names:
            return tf.constant(False)
        every = self.arguments["gradient_ratio_every"]
        first = tf.equal(self.train_metrics.count(names[0]), 0.0)
        return first | tf.equal(tf.cast(iterations, tf.int64) % every, 0)

    def exchange_due(self):
        """Whether to make the E2 and E3 updates: every n-th step, from the first."""
        # Of steps, whatever the optimizer does in each: it may accumulate gradients.
        step = self.step.phases.logit.inner_optimizer._iterations.value
        return tf.equal(step % self.step.feature_every, 0)

    def update_train(self, labels, logits, values, ensemble):
        """Add a training step to the metrics."""
        names = self.step.names
        predicted = evaluation.probabilities(names, logits, ensemble)
        values = {**values, **evaluation.count_right(names, labels, predicted)}
        values["loss"] = _mean_loss(names, values)
        self.train_metrics.update_state(values)
        self._update_user_metrics(labels, predicted)

    def update_test(self, labels, logits, weight, ensemble):
        """Add an evaluation step to the metrics."""
        names = self.step.names
        predicted = evaluation.probabilities(names, logits, ensemble)
        values = evaluation.count_right(names, labels, predicted)
        count = ops.cast(ops.shape(labels)[0], "float32")

        def total(scores):
            per_example = self.step.classification_loss(labels, scores)
            return losses.weighted_sum(per_example, weight), count

        for name, z in zip(names, logits, strict=True):
            values[f"{name}_loss"] = total(ops.cast(z, "float32"))
        values["loss"] = _mean_loss(names, values)
        # Logarithms of probabilities are logits of the same distribution.
        together = ops.log(ops.maximum(predicted["ensemble"], keras.config.epsilon()))
        values["ensemble_loss"] = total(together)
        self.test_metrics.update_state(values)
        self._update_user_metrics(labels, predicted)

    def _update_user_metrics(self, labels, predicted):
        for name, own in zip(self.step.names, self.user_metrics, strict=True):
            for metric in own:
                metric.update_state(labels, predicted[name])


def _mean_loss(names, values):
    totals = [values[f"{name}_loss"][0] for name in names]
    return tf.add_n(totals) / len(totals), values[f"{names[0]}_loss"][1]


def compile_parts(model, arguments):
    """Build everything a compiled distiller needs; under the strategy's scope.

    Args:
        model: OnlineDistiller.
        arguments: dict, the arguments of its `compile`.

    Raises:
        ValueError: if arguments contradict each other or a variable's owner is unclear.
    """
    _check_optimizers(arguments)
    for name in ("feature_every", "gradient_ratio_every"):
        every = arguments[name]
        if not isinstance(every, Integral) or isinstance(every, bool) or every < 1:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected an int >= 1. "
                f"Received: {name}={every!r}."
            )
    _check_feature_every(model, arguments["feature_every"])
    step = TrainStep(
        names=tuple(model.network_names),
        method=model.method,
        wiring=model._wiring,
        discriminators=list(model.discriminators),
        phases=_phases(model, arguments),
        classification_loss=classification_loss(
            arguments["loss"], arguments["label_smoothing"]
        ),
        temperature=model.temperature,
        kl_weight=model.kl_weight,
        feature_weight=model.feature_weight,
        fresh=model.forward == "fresh",
        feature_every=arguments["feature_every"],
    )
    check_ownership(model.trainable_variables, step.phases)
    train_names, test_names = metrics.metric_names(model.network_names, model.method)
    taken = {*train_names, *test_names}
    return CompiledParts(
        step=step,
        arguments=arguments,
        train_metrics=metrics.StepMetrics(train_names, name="train_metrics"),
        test_metrics=metrics.StepMetrics(test_names, name="test_metrics"),
        user_metrics=metrics.for_each_network(
            arguments["metrics"], model.network_names, taken
        ),
    )


def _phases(model, arguments):
    feature = model.method.feature
    extractors, everything = [], []
    for tap in model.taps:
        extractors += tap.extractor_variables
        everything += tap.extractor_variables + tap.head_variables
    transfers = [v for layer in model.transfers for v in layer.trainable_variables]
    judges = [v for d in model.discriminators for v in d.trainable_variables]
    if feature and feature.joins_logit_loss:
        everything, transfers = everything + transfers, []
    half = any(n.compute_dtype == "float16" for n in model.networks)

    def phase(role, variables):
        decay = WeightDecay(
            arguments["weight_decay"],
            arguments[f"{role}_weight_decay"],
            normalization=arguments["decay_normalization"],
            bias=arguments["decay_bias"],
        )
        optimizer = arguments[f"{role}_optimizer"]
        schedule = arguments[f"{role}_schedule"]
        return Phase(role, optimizer, schedule, decay, variables, scale_losses=half)

    own_update = feature and not feature.joins_logit_loss
    return Phases(
        logit=phase("logit", everything),
        feature=phase("feature", extractors + transfers) if own_update else None,
        discriminator=phase("discriminator", judges) if model.discriminators else None,
    )


def _check_feature_every(model, every):
    if every == 1:
        return
    feature = model.method.feature
    if feature is None or feature.joins_logit_loss:
        raise ValueError(
            "Argument `feature_every` does not apply: method "
            f"'{model.method.name}' has no update of its own on feature maps. "
            f"Received: feature_every={every}. Leave it out."
        )
    strategy = model.distribute_strategy
    mirrored = (
        tf.distribute.MirroredStrategy,
        tf.distribute.MultiWorkerMirroredStrategy,
    )
    if strategy.num_replicas_in_sync > 1 or isinstance(strategy, mirrored):
        raise ValueError(
            "Argument `feature_every` works on one device only: TensorFlow cannot "
            "reduce gradients over replicas in a step that may leave the update out. "
            f"Received: feature_every={every} under {type(strategy).__name__}. Leave "
            "it out, or build the model outside of the strategy's scope."
        )


def check_alias(logit_optimizer):
    """Check that one of the two names of the logit optimizer is in use.

    Raises:
        ValueError: if `logit_optimizer` is given as well.
    """
    if logit_optimizer is not None:
        raise ValueError(
            "Arguments `optimizer` and `logit_optimizer` are two names of one thing. "
            "Received both. Leave one out."
        )


def _check_optimizers(arguments):
    given = {
        role: arguments[role]
        for role in ("logit_optimizer", "feature_optimizer", "discriminator_optimizer")
        if isinstance(arguments[role], keras.optimizers.Optimizer)
    }
    if len({id(optimizer) for optimizer in given.values()}) < len(given):
        raise ValueError(
            f"Arguments {', '.join(f'`{role}`' for role in given)} must be different "
            "optimizer objects: one optimizer has one step count and one set of "
            "moments. Build one for each."
        )


def serialize(parts):
    """Return the arguments of `compile` in serializable form."""
    config = dict(parts.arguments)
    for phase in (
        parts.step.phases.logit,
        parts.step.phases.feature,
        parts.step.phases.discriminator,
    ):
        if phase:
            config[f"{phase.role}_optimizer"] = phase.serialized_optimizer()
            config[f"{phase.role}_schedule"] = phase.schedule
    return keras.saving.serialize_keras_object(config)


def classification_loss(loss, label_smoothing):
    """Return a function `(labels, logits) -> (batch,)` in nats per example.

    Args:
        loss: None (cross-entropy), a keras.losses.Loss, its name, or a function of
            labels and logits that returns one value per example.
        label_smoothing: float in [0, 1), for None.

    Raises:
        ValueError: if the loss takes probabilities, or smoothing is asked for twice.
        TypeError: if it is not a loss.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(
            "Invalid value for argument `label_smoothing`. Expected a float in [0, 1). "
            f"Received: label_smoothing={label_smoothing!r}."
        )
    if loss is None:
        return lambda labels, logits: losses.cross_entropy(
            labels, logits, label_smoothing
        )
    if label_smoothing:
        raise ValueError(
            "Argument `label_smoothing` belongs to the default loss. Received: loss="
            f"{loss!r} and label_smoothing={label_smoothing}. Give the smoothing to "
            "your loss."
        )
    if isinstance(loss, str):
        loss = lookup("loss", loss, _NAMED_LOSSES)(from_logits=True)
    _refuse_probabilities(loss)
    if isinstance(loss, keras.losses.Loss):
        return _per_example(loss.call)
    if not callable(loss):
        raise TypeError(
            "Invalid value for argument `loss`. Expected a keras.losses.Loss, its name "
            f"or a function (labels, logits) -> (batch,). Received: loss={loss!r}."
        )
    return _per_example(loss)


def _refuse_probabilities(loss):
    name = getattr(loss, "__name__", type(loss).__name__)
    takes = name in ("KLDivergence", "kl_divergence")
    if isinstance(loss, keras.losses.Loss):
        takes |= loss.get_config().get("from_logits") is False
    elif inspect.isfunction(loss):
        argument = inspect.signature(loss).parameters.get("from_logits")
        takes |= argument is not None and argument.default is False
    if takes:
        raise ValueError(
            "Invalid value for argument `loss`. Expected a loss on logits. Received: "
            f"{name}, which takes probabilities. Pass from_logits=True to a "
            "keras.losses class, or leave `loss` out for cross-entropy."
        )


def _per_example(loss):
    def checked(labels, logits):
        values = loss(labels, logits)
        if len(values.shape) != 1:
            raise ValueError(
                "Invalid value for argument `loss`. Expected one value per example, "
                f"shape (batch,). Received: shape {tuple(values.shape)}. Leave out the "
                "mean over the batch."
            )
        return values

    return checked
