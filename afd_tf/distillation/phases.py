"""Phases of a step: an optimizer, the variables it owns, its schedule and its decay."""

import dataclasses

import keras
import tensorflow as tf
from keras import ops

from afd_tf.distillation import optimizers, schedules
from afd_tf.distillation.fused_optimizers import SGD, Adam
from afd_tf.errors import InvalidValue

_NORMALIZATION = ("gamma", "beta")


def logit_optimizer():
    """Return the default optimizer for E1: SGD 0.1, momentum 0.9 (paper), Nesterov."""
    return SGD(0.1, momentum=0.9, nesterov=True, name="logit_optimizer")


def feature_optimizer():
    """Return the default optimizer for E3: Adam 2e-5 (paper), epsilon 1e-8."""
    return Adam(2e-5, epsilon=1e-8, name="feature_optimizer")


def discriminator_optimizer():
    """Return the default optimizer for E2: Adam 2e-5 (paper), epsilon 1e-8."""
    return Adam(2e-5, epsilon=1e-8, name="discriminator_optimizer")


# The paper's optimizer and schedule, whose boundaries are fractions of training.
DEFAULTS = {
    "logit": (logit_optimizer, lambda: schedules.StepDecay((0.5, 0.75))),
    "feature": (feature_optimizer, lambda: schedules.StepDecay((0.25, 0.5))),
    "discriminator": (
        discriminator_optimizer,
        lambda: schedules.StepDecay((0.25, 0.5)),
    ),
}


@dataclasses.dataclass(frozen=True)
class WeightDecay:
    """How weights decay.

    Attributes:
        kind: "coupled" (L2: `g += amount * w` before the optimizer's moments, as the
            authors' framework does), "decoupled" (Keras' own: `w -= lr * amount * w`)
            or "none".
        amount: float >= 0.
        normalization: bool, whether gammas and betas decay too.
        bias: bool, whether biases decay too.
    """

    kind: str
    amount: float
    normalization: bool = True
    bias: bool = True

    @property
    def coupled(self):
        return self.kind == "coupled" and self.amount > 0

    @property
    def decoupled(self):
        return self.kind == "decoupled" and self.amount > 0

    def applies_to(self, variable):
        """Whether a variable decays; by the name layers give it."""
        if variable.name in _NORMALIZATION:
            return self.normalization
        return self.bias or variable.name != "bias"


class Phase:
    """One optimizer with all it needs to make its update.

    Args:
        role: "logit", "feature" or "discriminator".
        optimizer: keras optimizer, or None for the paper's.
        schedule: "auto" (the paper's with the paper's optimizer, none with another),
            a name, a `schedules.Schedule` or None.
        decay: WeightDecay.
        variables: list of keras Variables that this optimizer alone updates here.
        scale_losses: bool, wrap in a `LossScaleOptimizer` (float16).
        before: Phase of an earlier `compile`, or None: its optimizer may come again.

    Raises:
        ValueError: if decay is asked for twice or a schedule meets a schedule.
    """

    def __init__(
        self, role, optimizer, schedule, decay, variables, scale_losses, before=None
    ):
        make_optimizer, make_schedule = DEFAULTS[role]
        if isinstance(schedule, str) and schedule == "auto":
            schedule = make_schedule() if optimizer is None else None
        self.role = role
        self.argument = optimizers.ARGUMENTS[role]
        self.schedule = schedules.get(schedule, f"{role}_schedule")
        self.decay = decay
        self.variables = list(variables)
        optimizer = make_optimizer() if optimizer is None else optimizer
        self.optimizer = optimizers.in_this_strategy(
            optimizers.get(optimizer, self.argument)
        )
        inner = self.inner_optimizer
        # An optimizer that comes again has this decay from the last time.
        decayed = before is not None and (before.inner_optimizer, before.decay) == (
            inner,
            decay,
        )
        self._check(decayed)
        if decay.decoupled and not decayed:
            inner.weight_decay = decay.amount
            inner.exclude_from_weight_decay(
                var_list=[v for v in self.variables if not decay.applies_to(v)]
            )
        self._decays = [decay.applies_to(v) for v in self.variables]
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        if scale_losses and not scaled:
            self.optimizer = keras.optimizers.LossScaleOptimizer(self.optimizer)
        self.optimizer.build(self.variables)
        rate = ops.convert_to_numpy(self.optimizer.learning_rate)
        self.base_learning_rate = float(rate)

    def _check(self, decayed):
        role, optimizer, decay = self.role, self.inner_optimizer, self.decay
        optimizers.check_built_for(optimizer, self.argument, self.variables)
        own_schedule = optimizer.get_config().get("learning_rate")
        if self.scheduled and isinstance(own_schedule, dict):
            raise InvalidValue(
                f"`{self.argument}` has a learning-rate schedule of its own and "
                f"`{role}_schedule` asks for another. Pass `{role}_schedule=None`, or "
                "give the optimizer a float learning rate."
            )
        if decayed or not (decay.coupled or decay.decoupled):
            return
        if own := getattr(optimizer, "weight_decay", None):
            raise InvalidValue(
                f"Weight decay is set twice: `{self.argument}` has weight_decay={own} "
                f"and compile() would add {decay.kind} decay of {decay.amount}. Pass "
                f"`{role}_weight_decay=0` to keep the optimizer's own, or build the "
                "optimizer with weight_decay=None."
            )
        if decay.decoupled and optimizer.built:
            raise InvalidValue(
                f"`{self.argument}` is built already, too late for decoupled weight "
                "decay. Pass a new optimizer."
            )

    @property
    def inner_optimizer(self):
        """The optimizer itself, without loss scaling."""
        return getattr(self.optimizer, "inner_optimizer", self.optimizer)

    @property
    def scheduled(self):
        return not isinstance(self.schedule, schedules.Constant)

    def scale_loss(self, loss):
        return self.optimizer.scale_loss(loss)

    def set_learning_rate(self, step, total_steps):
        """Assign the scheduled learning rate of a step; also inside a tf.function."""
        if self.scheduled:
            factor = self.schedule(step, total_steps)
            self.optimizer.learning_rate.assign(self.base_learning_rate * factor)

    def apply(self, gradients):
        """Add coupled decay and update the owned variables.

        An optimizer's own clipping comes after that decay and before the sum over
        replicas: Keras clips the share of each. `global_clipnorm` bounds one norm, that
        of the variables of all networks together.

        Args:
            gradients: list of tensors or None, in the order of `variables`, of the
                (scaled) loss divided by the number of replicas.
        """
        if self.decay.coupled:
            # Gradients are summed over replicas, on which the weights are equal: an
            # equal share from each adds up to one whole decay after the reduction.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            rate = self.scale_loss(tf.constant(self.decay.amount / replicas))
            gradients = [
                g + ops.cast(rate, g.dtype) * ops.cast(v.value, g.dtype)
                if decays and g is not None
                else g
                for g, v, decays in zip(
                    gradients, self.variables, self._decays, strict=True
                )
            ]
        self.optimizer.apply(gradients, self.variables)

    def serialized_optimizer(self):
        """Return the optimizer's config as `compile` received it."""
        config = keras.optimizers.serialize(self.optimizer)
        own = config["config"]
        own = own["inner_optimizer"]["config"] if "inner_optimizer" in own else own
        if self.scheduled:
            own["learning_rate"] = self.base_learning_rate
        if self.decay.decoupled:
            own["weight_decay"] = None
        return config

    def describe(self):
        """Return the settings on one line."""
        decay = "none"
        if self.decay.coupled or self.decay.decoupled:
            decay = f"{self.decay.kind} {self.decay.amount:g}"
        kind = type(self.inner_optimizer).__name__
        return (
            f"{kind}, learning rate {self.base_learning_rate:g} ({self.schedule!r}), "
            f"weight decay {decay}"
        )


def check_ownership(trainable_variables, phases):
    """Check that every variable has exactly one owner per phase.

    Raises:
        ValueError: if a variable is trained by no phase, or stands twice in one.
    """
    owned = set()
    for phase in phases:
        ids = [id(v) for v in phase.variables]
        if len(set(ids)) != len(ids):
            twice = next(v for v in phase.variables if ids.count(id(v)) > 1)
            raise InvalidValue(
                f"Variable '{twice.path}' has two owners in the {phase.role} update: "
                "two networks, discriminators or transfer layers share a layer. Build "
                "each from layers of its own."
            )
        owned.update(ids)
    for variable in trainable_variables:
        if id(variable) not in owned:
            raise InvalidValue(
                f"Variable '{variable.path}' belongs to no update of this method. Set "
                "`trainable=False` on its layer or leave the layer out."
            )


def check_unchanged(phases, trainable_variables):
    """Check that what is trainable is what it was when the phases were made.

    Raises:
        ValueError: if a layer was frozen or unfrozen since.
    """
    owned = {id(v): v for phase in phases for v in phase.variables}
    trainable = {id(v): v for v in trainable_variables}
    different = owned.keys() ^ trainable.keys()
    changed = [v for key, v in {**owned, **trainable}.items() if key in different]
    if changed:
        what = "unfrozen" if id(changed[0]) in trainable else "frozen"
        paths = ", ".join(f"'{v.path}'" for v in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InvalidValue(
            f"Variables were {what} after compile(): {paths}{more}. Compile the model "
            "again."
        )
