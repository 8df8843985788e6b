"""What `compile` makes of its arguments."""

import dataclasses
from numbers import Integral

import keras
import tensorflow as tf
from keras import ops

from afd_tf import evaluation, losses, metrics
from afd_tf.classification import classification_loss
from afd_tf.optimization import DEFAULTS, Phase, WeightDecay, check_ownership
from afd_tf.step import Phases, TrainStep

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
    "placebo",
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

        for name, z in zip(names, logits[: len(names)], strict=True):
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
    counts = ["feature_every", "gradient_ratio_every", "total_steps"]
    for name in counts[: 2 + (arguments["total_steps"] is not None)]:
        every = arguments[name]
        if not isinstance(every, Integral) or isinstance(every, bool) or every < 1:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected an int >= 1. "
                f"Received: {name}={every!r}."
            )
    _check_feature_every(model, arguments["feature_every"])
    if arguments["placebo"]:
        _check_has_feature_update(model, "placebo", arguments["placebo"])
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
        placebo_seed=model.placebo_seed,
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
    if model.branched is not None:  # branches share their trunk
        everything = list(model.branched.trainable_variables)
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
    _check_has_feature_update(model, "feature_every", every)
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


def _check_has_feature_update(model, argument, value):
    feature = model.method.feature
    if feature is None or feature.joins_logit_loss:
        raise ValueError(
            f"Argument `{argument}` does not apply: method '{model.method.name}' has "
            f"no update of its own on feature maps. Received: {argument}={value}. "
            "Leave it out."
        )


def placebo_seed(placebo):
    """Return the seed of a placebo's noise, or None without one.

    Raises:
        ValueError: if `placebo` is neither a bool nor an int >= 1.
    """
    if isinstance(placebo, bool):
        return keras.random.SeedGenerator() if placebo else None
    if not isinstance(placebo, Integral) or placebo < 1:
        raise ValueError(
            "Invalid value for argument `placebo`. Expected True, False or an int >= "
            f"1, the seed of the noise. Received: placebo={placebo!r}."
        )
    return keras.random.SeedGenerator(int(placebo))


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
    if config["placebo"]:
        state = keras.ops.convert_to_numpy(parts.step.placebo_seed.state)
        config["placebo"] = int(state[0])
    for phase in (
        parts.step.phases.logit,
        parts.step.phases.feature,
        parts.step.phases.discriminator,
    ):
        if phase:
            config[f"{phase.role}_optimizer"] = phase.serialized_optimizer()
            config[f"{phase.role}_schedule"] = phase.schedule
    return keras.saving.serialize_keras_object(config)
