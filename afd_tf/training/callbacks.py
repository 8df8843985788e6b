"""What happens during a run besides training: watching, recording, saving."""

import csv
import io
import math
import threading
import time

import keras

from afd_tf.training.run_directory import write_text

_ROLES = {
    "logit": "optimizer",
    "feature": "feature_optimizer",
    "discriminator": "discriminator_optimizer",
}


class NonFiniteLossError(FloatingPointError):
    """A loss became NaN or infinite; training cannot go on from here."""


class StopOnNonFinite(keras.callbacks.Callback):
    """Stop with an error at the first NaN or infinite loss.

    Losses in the logs are running means, so that a bad step stays visible until the end
    of its epoch, and nothing is saved before that is looked at.

    Args:
        steps_per_execution: int, how many steps a call of `on_train_batch_end` covers.
    """

    # Logs are fetched by a thread while the next step computes; hence the lock, and
    # the error is raised from the main thread.
    async_safe = True

    def __init__(self):
        super().__init__()
        self._lock = threading.Lock()
        self._first = None
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._first = epoch, None

    def on_train_batch_end(self, batch, logs=None):
        bad = _not_finite(logs)
        if bad:
            with self._lock:
                if self._first is None or batch < self._first[0]:
                    self._first = (batch, bad)

    def on_train_batch_begin(self, batch, logs=None):
        self._stop_if_bad()

    def on_epoch_end(self, epoch, logs=None):
        if self._first is None and _not_finite(logs):
            self._first = (self.params["steps"] - 1, _not_finite(logs))
        self._stop_if_bad()

    def _stop_if_bad(self):
        if self._first is None:
            return
        batch, bad = self._first
        names = self.model.network_names
        owners = {owner(key.removeprefix("val_"), names) for key in bad}
        networks = [str(network) for network in names if network in owners]
        whose = f" of {' and '.join(networks)}" if networks else ""
        kept = (
            f"The checkpoint of epoch {self._epoch} is kept."
            if self._epoch
            else "No epoch was finished."
        )
        key, value = next(iter(bad.items()))
        raise NonFiniteLossError(
            f"Loss{whose} is {value} ({key}) at epoch {self._epoch + 1}, step "
            f"{batch + 1}. {kept} Lower a learning rate, or use precision='float32'."
        )


def owner(key, network_names):
    """Return the network whose metric a key such as `resnet20_2_loss` is, or None."""
    owners = [name for name in network_names if key.startswith(f"{name}_")]
    return max(owners, key=len, default=None)


def _not_finite(logs):
    """Return the losses that are not finite: dict of key to value."""
    return {
        key: value
        for key, value in (logs or {}).items()
        if key.endswith(("loss", "cross_entropy", "kl")) and not math.isfinite(value)
    }


class MetricsFile(keras.callbacks.Callback):
    """Write `metrics.csv`: a row per epoch with its step, time, rates and metrics.

    The file is rewritten as a whole, so that it is never half a row.

    Args:
        path: path of the file.
        done: int, epochs of the restored checkpoint; later rows are dropped.
        steps_per_epoch: int.
    """

    def __init__(self, path, done, steps_per_epoch):
        super().__init__()
        self._path = path
        self._steps_per_epoch = steps_per_epoch
        self._rows = [row for row in read_metrics(path) if int(row["epoch"]) <= done]
        self._seconds = float(self._rows[-1]["seconds"]) if self._rows else 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self._seconds += time.monotonic() - self._started
        row = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self._steps_per_epoch,
            "seconds": round(self._seconds, 3),
        }
        row |= {f"{k}_learning_rate": v for k, v in learning_rates(self.model).items()}
        self._rows.append(row | dict(logs or {}))
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, text.getvalue())


def read_metrics(path):
    """Return the rows of `metrics.csv` as dicts of str; none if there is no file."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def learning_rates(distiller):
    """Return the rates in force, by role; only of the optimizers that there are."""
    optimizers = {role: getattr(distiller, a, None) for role, a in _ROLES.items()}
    return {
        role: float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        for role, optimizer in optimizers.items()
        if optimizer is not None
    }


class Save(keras.callbacks.Callback):
    """Save a checkpoint after each epoch, when all else of the epoch is on disk.

    Args:
        checkpoints: `Checkpoints`.
    """

    def __init__(self, checkpoints):
        super().__init__()
        self._checkpoints = checkpoints

    def on_epoch_end(self, epoch, logs=None):
        self._checkpoints.save(epoch + 1)
