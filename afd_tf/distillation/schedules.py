"""Learning-rate schedules as fractions of training.

A schedule is called with the step and the total number of steps and gives the factor
on the optimizer's base learning rate, so that one definition serves any length of run.
"""

import abc
import math

import keras
import tensorflow as tf

from afd_tf.errors import fraction, instance, invalid, lookup, number


def _register(cls):
    return keras.saving.register_keras_serializable(package="afd_tf")(cls)


class Schedule(abc.ABC):
    """Factor on a base learning rate as a function of the fraction of training done."""

    @abc.abstractmethod
    def factor(self, progress) -> tf.Tensor:
        """Return the factor, a float64 scalar tensor.

        Args:
            progress: float64 scalar tensor in [0, 1].
        """

    def __call__(self, step, total_steps):
        """Return the factor for one step.

        Args:
            step: int scalar, steps done before this one: 0 for the first.
            total_steps: int scalar; 0 means unknown: the start of training.

        Returns:
            float32 scalar tensor.
        """
        progress = tf.math.divide_no_nan(
            tf.cast(step, tf.float64), tf.cast(total_steps, tf.float64)
        )
        return tf.cast(self.factor(tf.minimum(progress, 1.0)), tf.float32)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@_register
class StepDecay(Schedule):
    """Multiply by `factor` once each of the `boundaries` is reached.

    Args:
        boundaries: ascending fractions of training in (0, 1).
        factor: float, applied once for each boundary passed.

    Example:
    ```python
    # x0.1 from step 150 of 300 on, x0.01 from step 225 on
    schedule = afd_tf.schedules.StepDecay(boundaries=(0.5, 0.75), factor=0.1)
    float(schedule(150, 300))  # 0.1
    ```
    """

    def __init__(self, boundaries=(0.5, 0.75), factor=0.1):
        expected = "a tuple of ascending fractions of training in (0, 1)"
        hint = "Divide epochs by the total number of epochs."
        instance("boundaries", boundaries, list | tuple, expected)
        between = all(isinstance(b, float) and 0 < b < 1 for b in boundaries)
        if not between or list(boundaries) != sorted(set(boundaries)):
            raise invalid("boundaries", expected, boundaries, hint=hint)
        self.boundaries = tuple(boundaries)
        self.multiplier = number("factor", factor)

    def factor(self, progress):
        passed = tf.reduce_sum(
            tf.cast(progress >= tf.constant(self.boundaries, tf.float64), tf.float64)
        )
        return tf.pow(tf.constant(self.multiplier, tf.float64), passed)

    def get_config(self):
        return {"boundaries": self.boundaries, "factor": self.multiplier}

    def __repr__(self):
        return f"x{self.multiplier:g} at " + ", ".join(
            f"{b:g}" for b in self.boundaries
        )


@_register
class Cosine(Schedule):
    """Anneal from 1 to `final` along half a cosine.

    Args:
        final: float in [0, 1], the factor at the end of training.
    """

    def __init__(self, final=0.0):
        self.final = fraction("final", final, one=True)

    def factor(self, progress):
        half = 0.5 * (1.0 + tf.cos(tf.constant(math.pi, tf.float64) * progress))
        return self.final + (1.0 - self.final) * half

    def get_config(self):
        return {"final": self.final}

    def __repr__(self):
        return f"cosine to x{self.final:g}"


@_register
class Constant(Schedule):
    """Keep the base learning rate."""

    def factor(self, progress):
        return tf.ones_like(progress)

    def __repr__(self):
        return "constant"


SCHEDULES = {"step_decay": StepDecay, "cosine": Cosine, "constant": Constant}


def get(schedule, argument="schedule"):
    """Return a Schedule from a name, a Schedule or None (constant).

    Raises:
        ValueError: if the name is unknown (the nearest is suggested) or the object is
            not a Schedule.
    """
    if schedule is None:
        return Constant()
    if isinstance(schedule, Schedule):
        return schedule
    return lookup(argument, schedule, SCHEDULES)()
