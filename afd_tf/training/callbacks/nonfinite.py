"""Losses that are NaN or infinite: stop the run, or skip the step."""

import math
import warnings

import keras

from afd_tf.errors import Mistake

_MOST_IN_A_ROW = 10


class NonFiniteLossError(Mistake, FloatingPointError):
    """A loss became NaN or infinite; training cannot go on from here."""


class StopOnNonFinite(keras.callbacks.Callback):
    """Stop with an error at the first NaN or infinite loss.

    Losses in the logs are running means, so that a bad step stays visible until the end
    of its epoch, and nothing is saved before that is looked at.

    Args:
        saver: `Saver`, which knows what checkpoint there is.
    """

    def __init__(self, saver):
        super().__init__()
        self._saver = saver

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._batch = epoch, -1

    def on_train_batch_end(self, batch, logs=None):
        self._batch = batch
        self.look(logs)

    def on_epoch_end(self, epoch, logs=None):
        self.look(logs)

    def look(self, logs):
        """Look at metrics after the step that was done last.

        Args:
            logs: dict from metric to number.

        Raises:
            NonFiniteLossError: if a loss is not finite.
        """
        specs = self.model.metric_specs
        bad = bad_losses(logs, specs)
        if not bad:
            return
        owners = {spec_of(key, specs).network for key in bad}
        networks = [name for name in self.model.network_names if name in owners]
        whose = f" of {' and '.join(networks)}" if networks else ""
        self._saver.wait()
        last = self._saver.last
        kept = (
            f"The checkpoint of {last} is kept." if last else "Nothing was saved yet."
        )
        key, value = next(iter(bad.items()))
        raise NonFiniteLossError(
            f"Loss{whose} is {value} ({key}) at epoch {self._epoch + 1}, step "
            f"{self._batch + 1}. {kept} Lower a learning rate, or use "
            "precision='float32'."
        )


def bad_losses(logs, specs):
    """Return the losses that are not finite: dict of key to value.

    Args:
        logs: dict from metric to number.
        specs: dict from metric to `MetricSpec`.
    """
    return {
        key: value
        for key, value in (logs or {}).items()
        if (spec := spec_of(key, specs)) and spec.is_loss and not math.isfinite(value)
    }


def spec_of(key, specs):
    """Return the `MetricSpec` of a key in logs, such as `val_loss`, or None."""
    return specs.get(key) or specs.get(key.removeprefix("val_"))


class SkipNonFinite(keras.callbacks.Callback):
    """Undo a step that makes a loss or a variable NaN or infinite; count it.

    Everything is put back to what it was before the step, optimizers' step counts and
    metrics included; the data goes on. A call of the train function is undone as a
    whole, where it is of several steps.

    Args:
        state: State.
        workers: Workers, which skip together.
        record: dict, what `record` returned when the state was saved; `{}` at the
            beginning.
    """

    def __init__(self, state, workers, record):
        super().__init__()
        self._state = state
        self._workers = workers
        self._skipped = record.get("skipped", 0)
        self._in_a_row = record.get("skipped_in_a_row", 0)

    def record(self):
        """Return what a checkpoint holds of this: a dict that JSON can hold."""
        return {"skipped": self._skipped, "skipped_in_a_row": self._in_a_row}

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self._batch, self._before = batch, self._state.read()

    def on_train_batch_end(self, batch, logs=None):
        before, self._before = self._before, None
        if not logs:  # a step that was done before the run was interrupted
            return
        bad = bad_losses(logs, self.model.metric_specs)
        # Losses are those of all replicas; statistics are each one's own.
        (bad_states,) = self._workers.total(not self._state.finite())
        if not bad and not bad_states:
            self._in_a_row = 0
            return
        self._state.put_back(before)
        self._skipped += self.model.steps_per_execution
        self._in_a_row += 1
        what = next(iter(bad), "a variable")
        where = f"epoch {self._epoch + 1}, step {self._batch + 1}"
        if self._in_a_row >= _MOST_IN_A_ROW:
            raise NonFiniteLossError(
                f"{self._in_a_row} steps in a row made {what} NaN or infinite, the "
                f"last at {where}. Skipping does not help. Look at the data, lower a "
                "learning rate, or use precision='float32'."
            )
        warnings.warn(
            f"Skipped {where}: it made {what} NaN or infinite ({self._skipped} skipped "
            "so far).",
            stacklevel=2,
        )
        # Other callbacks look at the same dict.
        logs.update(
            (name, float(value))
            for name, value in self.model.get_metrics_result().items()
        )

    def on_epoch_end(self, epoch, logs=None):
        logs["skipped_steps"] = self._skipped
