"""What `fit` adds to Keras': the length of training, and errors a person can read."""

import contextlib
import inspect
import re
import warnings

import keras
import numpy as np
import tensorflow as tf

from afd_tf.devices.multi_worker import MultiWorkerModel, own_rows

LABEL_ERROR = "Labels must lie in [0, "

_RATE_DRIVERS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)


class TrainingLength(keras.callbacks.Callback):
    """Tell the model how long training is, and the data set which epoch it is.

    Schedules are fractions of training: they need the number of steps before the first
    one. The data set's order and augmentation are functions of the epoch.

    Args:
        initial_epoch: int, first epoch of this call of `fit`.
        dataset: the training data; its attribute `position` is set where it has one.
    """

    def __init__(self, initial_epoch, dataset):
        super().__init__()
        self._initial_epoch = initial_epoch
        self._position = getattr(dataset, "position", None)

    def on_train_begin(self, logs=None):
        steps = self.params.get("steps")
        phases = self.model.phases
        if self.model.length_is_fixed or not any(p.scheduled for p in phases):
            return
        if not steps:
            raise ValueError(
                "The learning-rate schedules are fractions of training, and the number "
                "of steps of this data set is unknown. Pass `steps_per_epoch=` to "
                "fit(), `total_steps=` to compile(), or compile() without schedules "
                "(logit_schedule=None, feature_schedule=None, "
                "discriminator_schedule=None)."
            )
        done = int(keras.ops.convert_to_numpy(self.model.trained_steps))
        self.model.first_step.assign(done - self._initial_epoch * steps)
        self.model.total_steps.assign(self.params["epochs"] * steps)

    def on_epoch_begin(self, epoch, logs=None):
        if self._position is not None:
            self._position.assign(epoch)
        self.rates = self.scheduled_rates()

    def on_epoch_end(self, epoch, logs=None):
        self.rates = self.scheduled_rates()

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.rates = self.scheduled_rates()

    def scheduled_rates(self):
        """Return the learning rates that schedules set, by role."""
        return {
            phase.role: float(keras.ops.convert_to_numpy(phase.optimizer.learning_rate))
            for phase in self.model.phases
            if phase.scheduled and not phase.suspended
        }


class RateGuard(keras.callbacks.Callback):
    """Warn when a callback sets a learning rate that a schedule sets again.

    Args:
        length: the TrainingLength, called before the user's callbacks; the guard is
            called after them.
    """

    def __init__(self, length):
        super().__init__()
        self._length = length

    def on_epoch_begin(self, epoch, logs=None):
        self._compare()

    def on_epoch_end(self, epoch, logs=None):
        self._compare()

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self._compare()

    def _compare(self):
        for role, rate in self._length.scheduled_rates().items():
            if rate != self._length.rates[role]:
                warnings.warn(
                    f"A callback sets the learning rate of `{role}_optimizer`, but its "
                    f"schedule sets it again at every step. Pass `{role}_schedule="
                    "None` to compile() to let the callback have it.",
                    stacklevel=2,
                )


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar with the loss, accuracies and the user's metrics alone.

    With two networks there are over 25 metrics; history and callbacks get them all.
    """

    # As Keras treats its own: without it, every step waits for its metrics.
    async_safe = True

    _DETAILS = re.compile(
        r".+_(loss|cross_entropy|kl|gradient_ratio|discriminator_(real|own|accuracy))"
    )

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._shown(logs))

    def _shown(self, logs):
        return {
            name: value
            for name, value in (logs or {}).items()
            if name == "val_loss" or not self._DETAILS.fullmatch(name)
        }


def can_shuffle(data):
    """Whether Keras shuffles this kind of data: arrays and its own data sets."""
    arrays = (np.ndarray, tf.Tensor, keras.utils.PyDataset, list, tuple, dict)
    return data is None or isinstance(data, arrays)


def drives_learning_rate(callbacks):
    """Whether one of Keras' own callbacks sets the learning rate."""
    callbacks = getattr(callbacks, "callbacks", callbacks) or ()
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    return any(isinstance(callback, _RATE_DRIVERS) for callback in callbacks)


def with_own(callbacks, length, verbose):
    """Return the user's callbacks with ours: the length of training, a progress bar."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        own = [c for c in callbacks.callbacks if not isinstance(c, TrainingLength)]
        callbacks.callbacks = [length, *own]
        length.set_model(callbacks.model)
        length.set_params(callbacks.params)
        return callbacks
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    own = [length, *(callbacks or ())]
    if verbose and not any(isinstance(c, keras.callbacks.ProgbarLogger) for c in own):
        own.append(ProgressBar())
    return [*own, RateGuard(length)]


@contextlib.contextmanager
def readable_errors():
    """Turn a failed check inside a step into a ValueError with that check's message."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        for line in str(error).splitlines():
            if LABEL_ERROR in line:
                message = line[line.index(LABEL_ERROR) :].replace("Found:]", "Found:")
                message = message.strip(" '\"]")
                raise ValueError(message) from None
        raise


class Fitting(MultiWorkerModel):
    """A model with `phases`, whose schedules know their length.

    Attributes:
        evaluating: bool, whether the step that runs is one of evaluation.
    """

    evaluating = False

    def fit(self, *args, **kwargs):
        """Train as `keras.Model.fit` does, with its arguments.

        The number of steps ahead sets the schedules; a data set of `afd_tf.data` is
        told the epoch. A `LearningRateScheduler` or `ReduceLROnPlateau` callback takes
        the logit optimizer's learning rate over from the schedule.

        Raises:
            ValueError: if a label is out of range, images have another shape, or the
                length of training is unknown and a schedule needs it.
        """
        self._assert_compile_called("fit")
        bound = inspect.signature(super().fit).bind(*args, **kwargs)
        arguments = bound.arguments
        if not can_shuffle(arguments.get("x")):
            # Keras warns that it cannot shuffle what shuffles itself.
            arguments.setdefault("shuffle", False)
        callbacks = arguments.get("callbacks")
        self._suspend_schedule(drives_learning_rate(callbacks))
        arguments["callbacks"] = with_own(
            callbacks,
            TrainingLength(arguments.get("initial_epoch", 0), arguments.get("x")),
            verbose=arguments.get("verbose", "auto"),
        )
        for name in ("x", "validation_data"):
            if name in arguments:
                arguments[name] = own_rows(self.distribute_strategy, arguments[name])
        with readable_errors():
            return super().fit(*bound.args, **bound.kwargs)

    def _suspend_schedule(self, suspended):
        if self.phases.logit.suspended != suspended:
            self.phases.logit.suspended = suspended
            self.train_function = None

    def evaluate(self, *args, **kwargs):
        """Evaluate as `keras.Model.evaluate` does, with its arguments.

        Nothing but metrics changes: batch statistics, discriminators and optimizers are
        not touched.
        """
        bound = inspect.signature(super().evaluate).bind(*args, **kwargs)
        if "x" in bound.arguments:
            x = own_rows(self.distribute_strategy, bound.arguments["x"])
            bound.arguments["x"] = x
        with self._evaluation(), readable_errors():
            return super().evaluate(*bound.args, **bound.kwargs)

    def train_on_batch(self, *args, **kwargs):
        with readable_errors():
            return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        with self._evaluation(), readable_errors():
            return super().test_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _evaluation(self):
        # Training metrics outlive an evaluation within `fit`, and each step returns
        # exactly the metrics of its kind.
        before, self.evaluating = self.evaluating, True
        try:
            yield
        finally:
            self.evaluating = before


# What editors and `help` show; the wrapper passes everything on.
Fitting.fit.__signature__ = inspect.signature(keras.Model.fit)
Fitting.evaluate.__signature__ = inspect.signature(keras.Model.evaluate)
