"""Callbacks that `fit` adds: the length of training, and a short progress bar."""

import keras

from afd_tf.data import position_of
from afd_tf.errors import InvalidValue

_RATE_CALLBACKS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)


class TrainingLength(keras.callbacks.Callback):
    """Tell the model how long training is, and the data set which epoch it is.

    Schedules are fractions of training: they need the number of steps before the first
    one. The data set's order and augmentation are functions of the epoch.

    Args:
        initial_epoch: int, first epoch of this call of `fit`.
        initial_step: int, the step of that epoch to begin with.
        dataset: the training data; its `EpochPosition` is set where it has one.
        fixed: bool, whether `compile` was told the number of steps.
    """

    def __init__(self, initial_epoch, initial_step, dataset, fixed):
        super().__init__()
        self._initial_epoch, self._initial_step = initial_epoch, initial_step
        self._position = position_of(dataset)
        self._fixed = fixed

    def on_train_begin(self, logs=None):
        if self._fixed or not any(phase.scheduled for phase in self.model.phases):
            return
        steps = self.params.get("steps")
        if not steps:
            raise InvalidValue(
                "The learning-rate schedules are fractions of training, and the number "
                "of steps of this data set is unknown. Pass `steps_per_epoch=` to "
                "fit(), `total_steps=` to compile(), or compile() without schedules "
                "(logit_schedule=None, feature_schedule=None, "
                "discriminator_schedule=None)."
            )
        done = int(keras.ops.convert_to_numpy(self.model.trained_steps))
        before = self._initial_epoch * steps + self._initial_step
        self.model.first_step.assign(done - before)
        self.model.total_steps.assign(self.params["epochs"] * steps)

    def on_epoch_begin(self, epoch, logs=None):
        if self._position is not None:
            self._position.assign(epoch)


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar with the metrics that are declared to be shown.

    With two networks there are over 25 metrics; history and callbacks get them all.

    Args:
        specs: list of MetricSpec.
    """

    # As Keras treats its own: without it, every step waits for its metrics.
    async_safe = True

    def __init__(self, specs):
        super().__init__()
        self._hidden = {spec.name for spec in specs if not spec.shown}

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._shown(logs))

    def _shown(self, logs):
        return {
            name: value
            for name, value in (logs or {}).items()
            if name.removeprefix("val_") not in self._hidden
        }


def with_own(callbacks, length, specs, verbose):
    """Return the user's callbacks with ours before and after them.

    Args:
        callbacks: what `fit` was given: a list, a callback, a CallbackList or None.
        length: TrainingLength.
        specs: list of MetricSpec.
        verbose: as in `fit`.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        own = [c for c in callbacks.callbacks if not isinstance(c, TrainingLength)]
        callbacks.callbacks = [length, *own]
        length.set_model(callbacks.model)
        length.set_params(callbacks.params)
        return callbacks
    own = [length, *as_list(callbacks)]
    if verbose and not any(isinstance(c, keras.callbacks.ProgbarLogger) for c in own):
        own.append(ProgressBar(specs))
    return own


def check_rates(callbacks, phase):
    """Refuse a callback that sets a learning rate which a schedule sets at every step.

    Args:
        callbacks: what `fit` was given.
        phase: Phase of the logit update, whose optimizer such callbacks drive.

    Raises:
        ValueError: if both are there.
    """
    drivers = [c for c in as_list(callbacks) if isinstance(c, _RATE_CALLBACKS)]
    if drivers and phase.scheduled:
        raise InvalidValue(
            f"{type(drivers[0]).__name__} sets the learning rate of `optimizer`, which "
            f"its schedule ({phase.schedule!r}) sets at every step. Pass "
            "`logit_schedule=None` to compile() to let the callback have it."
        )


def as_list(callbacks):
    """Return callbacks, in any form that `fit` takes, as a list."""
    callbacks = getattr(callbacks, "callbacks", callbacks) or ()
    single = isinstance(callbacks, keras.callbacks.Callback)
    return [callbacks] if single else list(callbacks)
