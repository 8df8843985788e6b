"""Options of `compile`, checked once, and the step that is built from them."""

import dataclasses
import inspect
import warnings
from numbers import Integral
from typing import Any

import keras

from afd_tf import losses
from afd_tf.distillation import optimizers
from afd_tf.distillation.phases import DEFAULTS, Phase, WeightDecay, check_ownership
from afd_tf.distillation.step import Phases, TrainStep
from afd_tf.errors import (
    InvalidType,
    InvalidValue,
    boolean,
    choice,
    fraction,
    inapplicable,
    invalid,
    lookup,
    number,
    positive_int,
)

_NAMED_LOSSES = {
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
}


@dataclasses.dataclass(frozen=True)
class CompileOptions:
    """The arguments of `OnlineDistiller.compile`, in its words.

    Raises:
        ValueError: if one is invalid, or two contradict each other.
        TypeError: if one is of the wrong type.
    """

    optimizer: Any
    loss: Any
    metrics: Any
    feature_optimizer: Any
    discriminator_optimizer: Any
    logit_schedule: Any
    feature_schedule: Any
    discriminator_schedule: Any
    weight_decay: str
    logit_weight_decay: float
    feature_weight_decay: float
    discriminator_weight_decay: float
    decay_normalization: bool
    decay_bias: bool
    label_smoothing: float
    placebo: bool | int
    gradient_ratio_every: int
    total_steps: int | None
    run_eagerly: bool
    steps_per_execution: int
    jit_compile: bool | str

    def __post_init__(self):
        _check_optimizers(
            {name: getattr(self, name) for name in optimizers.ARGUMENTS.values()}
        )
        choice("weight_decay", self.weight_decay, ("coupled", "decoupled", "none"))
        for role in DEFAULTS:
            name = f"{role}_weight_decay"
            number(name, getattr(self, name))
        boolean("decay_normalization", self.decay_normalization)
        boolean("decay_bias", self.decay_bias)
        fraction("label_smoothing", self.label_smoothing)
        whole = isinstance(self.placebo, bool | Integral)
        if not whole or not (self.placebo is False or 1 <= self.placebo < 2**32):
            expected = "True, False or an int >= 1, the seed of the noise"
            raise invalid("placebo", expected, self.placebo)
        positive_int("gradient_ratio_every", self.gradient_ratio_every)
        if self.total_steps is not None:
            positive_int("total_steps", self.total_steps)
        boolean("run_eagerly", self.run_eagerly)
        positive_int("steps_per_execution", self.steps_per_execution)
        if self.jit_compile != "auto":
            boolean("jit_compile", self.jit_compile)

    def serialize(self, step):
        """Return the options in serializable form.

        Args:
            step: TrainStep that was built from them, whose optimizers go on.
        """
        config = dict(vars(self))
        if step.placebo is not None:
            state = keras.ops.convert_to_numpy(step.placebo.state)
            config["placebo"] = int(state[0])
        for phase in step.phases:
            config[phase.argument] = phase.serialized_optimizer()
            config[f"{phase.role}_schedule"] = phase.schedule
        return keras.saving.serialize_keras_object(config)


def build_step(objectives, options, fresh, before=None):
    """Build the step; under the strategy's scope.

    Args:
        objectives: Objectives.
        options: CompileOptions.
        fresh: bool, whether maps are computed again after the logit update.
        before: TrainStep of an earlier `compile`, or None.

    Returns:
        TrainStep.

    Raises:
        ValueError: if options contradict the method or each other, or a variable's
            owner is unclear.
    """
    exchange, method = objectives.exchange, objectives.exchange.method
    if options.placebo and not method.feature_update:
        raise inapplicable(
            "placebo",
            options.placebo,
            f"method '{method.name}' has no update of its own on feature maps",
        )
    logit, feature, discriminator = (
        exchange.network_variables(),
        exchange.extractor_variables(),
        exchange.discriminator_variables(),
    )
    if method.feature_update:
        feature += exchange.transfer_variables()
    else:
        logit += exchange.transfer_variables()
    half = exchange.computes_in_half_precision()

    def phase(role, variables):
        decay = WeightDecay(
            options.weight_decay,
            getattr(options, f"{role}_weight_decay"),
            normalization=options.decay_normalization,
            bias=options.decay_bias,
        )
        return Phase(
            role,
            getattr(options, optimizers.ARGUMENTS[role]),
            getattr(options, f"{role}_schedule"),
            decay,
            variables,
            scale_losses=half,
            before=before and getattr(before.phases, role),
        )

    return TrainStep(
        objectives=objectives,
        phases=Phases(
            logit=phase("logit", logit),
            feature=phase("feature", feature) if method.feature_update else None,
            discriminator=phase("discriminator", discriminator)
            if exchange.discriminators
            else None,
        ),
        fresh=fresh,
        placebo=_noise_generator(options.placebo),
    )


def check_variables(trainable_variables, phases):
    """Check the owners of variables, and warn of weights in half precision.

    Raises:
        ValueError: if a variable's owner is unclear.
    """
    check_ownership(trainable_variables, phases)
    short = [v for v in trainable_variables if v.dtype in ("bfloat16", "float16")]
    if short:
        warnings.warn(
            f"{len(short)} of {len(trainable_variables)} trainable variables are "
            f"{short[0].dtype} ('{short[0].path}', ...). A step smaller than a few "
            "thousandths of a weight is rounded away there, and with it all that Adam "
            "does at the learning rates of the feature update. Build networks under "
            "the policy 'mixed_bfloat16': it computes in 16 bits and keeps weights in "
            "32.",
            stacklevel=3,
        )


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
    if loss is None:
        return lambda labels, logits: losses.cross_entropy(
            labels, logits, label_smoothing
        )
    if label_smoothing:
        raise InvalidValue(
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
        raise invalid(
            "loss",
            "a keras.losses.Loss, its name or a function (labels, logits) -> (batch,)",
            loss,
            kind=InvalidType,
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
        raise invalid(
            "loss",
            "a loss on logits",
            received=f"{name}, which takes probabilities",
            hint="Pass from_logits=True to a keras.losses class, or leave `loss` out "
            "for cross-entropy.",
        )


def _per_example(loss):
    def checked(labels, logits):
        values = loss(labels, logits)
        if len(values.shape) != 1:
            raise invalid(
                "loss",
                "one value per example, shape (batch,)",
                received=f"shape {tuple(values.shape)}",
                hint="Leave out the mean over the batch.",
            )
        return values

    return checked


def _check_optimizers(given):
    """Check that optimizers are different objects, and do what they can do here."""
    given = {
        name: optimizer
        for name, optimizer in given.items()
        if isinstance(optimizer, keras.optimizers.Optimizer)
    }
    for name, optimizer in given.items():
        if getattr(optimizer, "inner_optimizer", optimizer).use_ema:
            raise invalid(
                name,
                "an optimizer without use_ema=True: Keras' fit ends by writing "
                "averages by position, into the variables of another network",
                received=f"{type(optimizer).__name__}(use_ema=True)",
                hint="Average weights in a callback, or after training.",
            )
    if len({id(optimizer) for optimizer in given.values()}) < len(given):
        raise InvalidValue(
            f"Arguments {', '.join(f'`{name}`' for name in given)} must be different "
            "optimizer objects: one optimizer has one step count and one set of "
            "moments. Build one for each."
        )


def _noise_generator(placebo):
    if placebo is False:
        return None
    return keras.random.SeedGenerator(*([] if placebo is True else [int(placebo)]))
