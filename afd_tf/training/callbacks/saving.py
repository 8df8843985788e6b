"""Saving: checkpoints while training goes on, and resuming from them."""

import concurrent.futures
import time
import warnings

import keras

from afd_tf.training.checkpoints import Position
from afd_tf.training.interruption import SIGNALS, Interrupted
from afd_tf.training.state import METRICS, compact, not_finite


class Saver:
    """Write checkpoints while training goes on.

    The state is taken at once, which is quick; a thread writes it.

    Args:
        checkpoints: `Checkpoints`.
        state: `State`.
        workers: `Workers`, of which the chief writes and all read.

    Attributes:
        last: `Position` of the newest checkpoint that is known to be whole, or None.
    """

    def __init__(self, checkpoints, state, workers):
        self.last = None
        self._workers = workers
        self._checkpoints = checkpoints
        self._state = state
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending = None

    def restore(self):
        """Load the newest checkpoint that is whole; on all workers the chief's.

        Returns:
            Checkpoint, or None.

        Raises:
            InvalidValue: if all are damaged, it is of another model, or a worker does
                not find it; nothing is set.
        """
        newest = self._checkpoints.newest() if self._workers.is_chief else None
        own = (1, newest.position.epoch, newest.position.step) if newest else (0, 0, 0)
        exists, epoch, step = self._workers.total(*own)
        if exists and not self._workers.is_chief:
            newest = self._checkpoints.at(Position(epoch, step))
        if newest is not None:
            newest.load(self._state.write)
            self.last = newest.position
        return newest

    def save(self, position, record, trained_metrics=()):
        """Begin to save the state of this moment.

        A failure is a warning: what was saved before stays.

        Args:
            position: Position.
            record: dict, kept with the state.
            trained_metrics: dict of the state's metrics, where those of this moment
                are not the epoch's.
        """
        self.wait()
        values = self._state.gather() | dict(trained_metrics)
        if not self._workers.is_chief:
            self.last = position
            return
        self._pending = self._thread.submit(self._write, position, values, record)

    def metrics(self):
        """Return the metrics of this moment, as `save` takes them."""
        return self._state.gather(METRICS)

    def wait(self):
        """Wait until what is being saved is saved."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            self.last = pending.result()
        except (OSError, FloatingPointError) as error:
            kept = f"That of {self.last} is kept." if self.last else "There is none."
            warnings.warn(
                f"A checkpoint could not be written to {self._checkpoints.directory}: "
                f"{error}. {kept} Training goes on.",
                stacklevel=2,
            )

    def free(self):
        """Delete a checkpoint that is not the newest; return whether there was one."""
        self.wait()
        return self._checkpoints.free()

    def close(self):
        """Wait, and end the thread."""
        self.wait()
        self._thread.shutdown()

    def _write(self, position, values, record):
        values = compact(values)
        bad = not_finite(values)
        if bad is not None:
            raise FloatingPointError(f"'{bad}' holds NaN or infinity")
        self._checkpoints.save(position, values, record)
        return position


class Save(keras.callbacks.Callback):
    """Save after every epoch and now and then within one; stop when asked to.

    Args:
        saver: Saver.
        record: callable that returns what is kept with the state.
        watch: StopOnNonFinite, so that no bad state is saved.
        interruption: Interruption.
        workers: Workers, which stop and save together.
        start: Position at which this process begins.
        steps: int, steps of an epoch.
        every_steps: int, steps after which to save, or None.
        every_minutes: float, minutes after which to save, or None.
        within_epochs: bool, whether training can go on in the middle of an epoch.
    """

    def __init__(
        self,
        saver,
        record,
        watch,
        interruption,
        workers,
        *,
        start,
        steps,
        every_steps,
        every_minutes,
        within_epochs,
    ):
        super().__init__()
        self._saver = saver
        self._record = record
        self._watch = watch
        self._interruption = interruption
        self._workers = workers
        self._last = start
        self._steps = steps
        self._every_steps = every_steps or float("inf")
        self._every_seconds = 60 * (every_minutes or float("inf"))
        self._within_epochs = within_epochs
        self._trained_metrics = ()

    def on_train_begin(self, logs=None):
        self._saved_at = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self._reached(Position(self._epoch, batch))

    def on_test_begin(self, logs=None):
        # Evaluation uses some of the metrics for itself.
        self._trained_metrics = self._saver.metrics()
        self._reached(Position(self._epoch, self._steps))

    def on_test_batch_begin(self, batch, logs=None):
        self._reached(Position(self._epoch, self._steps), only_if_asked=True)

    def on_epoch_end(self, epoch, logs=None):
        self._trained_metrics = ()
        # After the last one, an optimizer that averages weights still has to set them.
        if epoch + 1 < self.params["epochs"] and not self.model.stop_training:
            self._save(Position(epoch + 1))
            self._stop_if_asked()

    def on_train_end(self, logs=None):
        # The last one, unless a callback has ended training earlier.
        self._save(Position(self._epoch + 1))
        self._stop_if_asked()

    def _reached(self, position, only_if_asked=False):
        # A resumed epoch's first steps, which are not done again, come by here too.
        due = self._is_due(position) and not only_if_asked
        due, asked = _agree(self._workers, self._interruption, due)
        if self._within_epochs and position > self._last and (due or asked):
            self._save(position)
        self._stop(asked)

    def _is_due(self, position):
        epochs = position.epoch - self._last.epoch
        steps = epochs * self._steps + position.step - self._last.step
        seconds = time.monotonic() - self._saved_at
        return steps >= self._every_steps or seconds >= self._every_seconds

    def _save(self, position):
        if not self._trained_metrics:
            self._watch.look(self.model.get_metrics_result())
        record = {**self._record(), "stopped": bool(self.model.stop_training)}
        self._saver.save(position, record, self._trained_metrics)
        self._last, self._saved_at = position, time.monotonic()

    def _stop_if_asked(self):
        self._stop(_agree(self._workers, self._interruption)[1])

    def _stop(self, asked):
        if asked:
            self._saver.wait()
            # Nobody leaves before the chief has written.
            self._workers.wait()
            raise Interrupted(asked, self._saver.last)


def joined_records(callbacks):
    """Join what callbacks keep in a checkpoint: one dict of all their `record()`.

    Args:
        callbacks: list of `keras.callbacks.Callback`; one without `record` keeps
            nothing.

    Raises:
        ValueError: if a key is another's, or "stopped", which is `Save`'s own.
    """
    joined = {}
    for callback in callbacks:
        own = callback.record() if hasattr(callback, "record") else {}
        if taken := sorted(own.keys() & {*joined, "stopped"}):
            raise ValueError(
                f"{type(callback).__name__}.record() has {taken}, which another "
                "callback's record has. Expected keys of its own: rename it."
            )
        joined |= own
    return joined


class StopIfAsked(keras.callbacks.Callback):
    """Stop between two steps of what has nothing to save.

    Args:
        interruption: Interruption.
        workers: Workers, which stop together.
    """

    def __init__(self, interruption, workers):
        super().__init__()
        self._interruption = interruption
        self._workers = workers

    def on_train_batch_begin(self, batch, logs=None):
        _, heard = _agree(self._workers, self._interruption)
        if heard:
            raise Interrupted(heard)


def _agree(workers, interruption, due=False):
    """Return whether to save, by the chief's clock, and a signal that any got."""
    numbers = [interruption.requested == signal for signal in SIGNALS]
    due, *heard = workers.total(due and workers.is_chief, *numbers)
    return due, next((s for s, n in zip(SIGNALS, heard, strict=True) if n), None)


class RestoredEpoch(keras.callbacks.Callback):
    """Put back the metrics and the data's position in the epoch that is continued.

    `fit` itself leaves out the steps that were made.

    Args:
        start: Position.
        steps: int, steps of an epoch.
        position: `EpochPosition` of the training data.
        set_metrics: callable that gives the metrics the values they had.
    """

    def __init__(self, start, steps, position, set_metrics):
        super().__init__()
        self._start = start
        self._steps = steps
        self._position = position
        self._set_metrics = set_metrics

    def on_epoch_begin(self, epoch, logs=None):
        if epoch != self._start.epoch or not self._start.step:
            return
        self._set_metrics()
        # A whole epoch's data would begin with the next epoch, and is not asked for.
        if self._start.step < self._steps:
            self._position.assign(epoch, self._start.step)
