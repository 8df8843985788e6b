"""What `compile` makes of its arguments."""

import dataclasses
from numbers import Integral

import keras
import tensorflow as tf
from keras import ops

from afd_tf import losses
from afd_tf.distillation import compile_checks, evaluation, metrics
from afd_tf.distillation.classification import classification_loss
from afd_tf.distillation.objectives import Objectives
from afd_tf.distillation.phases import DEFAULTS, Phase, WeightDecay, check_ownership
from afd_tf.distillation.step import Now, Phases, TrainStep

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

    def now(self, step):
        """Return what a step depends on that comes after `step` others."""
        return Now(step, self._ratio_due(step), self._exchange_due(step))

    def _ratio_due(self, step):
        """Whether to compute the gradient ratio: every n-th step, an epoch's first."""
        names = [n for n in self.train_metrics.names if n.endswith("_gradient_ratio")]
        if not names:
            return tf.constant(False)
        every = self.arguments["gradient_ratio_every"]
        first = tf.equal(self.train_metrics.count(names[0]), 0.0)
        return first | tf.equal(step % every, 0)

    def _exchange_due(self, step):
        """Whether to make the E2 and E3 updates: every n-th step, from the first."""
        return tf.equal(step % self.step.feature_every, 0)

    def update_train(self, labels, logits, values, ensemble):
        """Add a training step to the metrics."""
        names = self.step.objectives.names
        predicted = evaluation.probabilities(names, logits, ensemble)
        values = {**values, **evaluation.count_right(names, labels, predicted)}
        values["loss"] = _mean_loss(names, values)
        self.train_metrics.update_state(values)
        self._update_user_metrics(labels, predicted)

    def update_test(self, labels, logits, weight, ensemble):
        """Add an evaluation step to the metrics."""
        names = self.step.objectives.names
        predicted = evaluation.probabilities(names, logits, ensemble)
        values = evaluation.count_right(names, labels, predicted)
        count = ops.cast(ops.shape(labels)[0], "float32")

        def total(scores):
            per_example = self.step.objectives.classification_loss(labels, scores)
            return losses.weighted_sum(per_example, weight), count

        for name, z in zip(names, logits[: len(names)], strict=True):
            values[f"{name}_loss"] = total(ops.cast(z, "float32"))
        values["loss"] = _mean_loss(names, values)
        together = evaluation.ensemble_logits(names, logits, predicted, ensemble)
        values["ensemble_loss"] = total(together)
        self.test_metrics.update_state(values)
        self._update_user_metrics(labels, predicted)

    def _update_user_metrics(self, labels, predicted):
        names = self.step.objectives.names
        for name, own in zip(names, self.user_metrics, strict=True):
            for metric in own:
                metric.update_state(labels, predicted[name])


def _mean_loss(names, values):
    totals = [values[f"{name}_loss"][0] for name in names]
    return losses.add_in_order(totals) / len(totals), values[f"{names[0]}_loss"][1]


def compile_parts(model, arguments):
    """Build everything a compiled distiller needs; under the strategy's scope.

    Args:
        model: OnlineDistiller.
        arguments: dict, the arguments of its `compile`.

    Raises:
        ValueError: if arguments contradict each other or a variable's owner is unclear.
    """
    compile_checks.check_optimizers(arguments)
    for name in ("feature_every", "gradient_ratio_every"):
        compile_checks.check_count(name, arguments[name])
    if arguments["total_steps"] is not None:
        compile_checks.check_count("total_steps", arguments["total_steps"])
    compile_checks.check_feature_every(model, arguments["feature_every"])
    if arguments["placebo"]:
        placebo = arguments["placebo"]
        compile_checks.check_has_feature_update(model, "placebo", placebo)
    objectives = Objectives(
        names=tuple(model.network_names),
        method=model.method,
        wiring=model._wiring,
        discriminators=list(model.discriminators),
        classification_loss=classification_loss(
            arguments["loss"], arguments["label_smoothing"]
        ),
        temperature=model.temperature,
        kl_weight=model.kl_weight,
        feature_weight=model.feature_weight,
    )
    step = TrainStep(
        objectives=objectives,
        phases=_phases(model, arguments),
        fresh=model.forward == "fresh",
        feature_every=arguments["feature_every"],
        placebo_seed=model.placebo_seed,
    )
    check_ownership(model.trainable_variables, step.phases)
    compile_checks.warn_of_short_weights(model.trainable_variables)
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
    # Of every layer: a model that was loaded has forgotten its own policy.
    trained = (*model.networks, *model.transfers, *model.discriminators)
    half = any(
        layer.compute_dtype == "float16"
        for part in trained
        for layer in part._flatten_layers()
    )

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
