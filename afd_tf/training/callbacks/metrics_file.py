"""`metrics.csv`: a row per epoch."""

import csv
import io
import time
import warnings

import keras

from afd_tf.files import with_room, write_text


class MetricsFile(keras.callbacks.Callback):
    """Write a row per epoch with its step, time, rates and metrics.

    The file is rewritten as a whole, so that it is never half a row. Checkpoints hold
    the rows too: the file always is what the state that training goes on from has seen.

    Args:
        path: path of the file.
        steps_per_epoch: int.
        free: callable that makes room on a full disk, see `afd_tf.files.with_room`.
        record: dict, what `record` returned when the state was saved; `{}` at the
            beginning.
    """

    def __init__(self, path, steps_per_epoch, record, free=lambda: False):
        super().__init__()
        self._path = path
        self._steps_per_epoch = steps_per_epoch
        self._free = free
        self._rows = list(record.get("rows", ()))
        self._seconds = record.get("seconds", 0.0)
        self._started = None

    def record(self):
        """Return what a checkpoint holds of this: a dict that JSON can hold."""
        return {"rows": list(self._rows), "seconds": self._time()}

    def _time(self):
        """Return the seconds of training so far, those of earlier processes too."""
        if self._started is None:
            return self._seconds
        return self._seconds + time.monotonic() - self._started

    def on_train_begin(self, logs=None):
        self._started = time.monotonic()
        if self._rows or self._path.exists():
            self._try_to_write()

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self._steps_per_epoch,
            "seconds": round(self._time(), 3),
        }
        row |= {f"{k}_learning_rate": v for k, v in learning_rates(self.model).items()}
        # Plain numbers, as they come back from a checkpoint.
        self._rows.append(row | {k: _plain(v) for k, v in (logs or {}).items()})
        self._try_to_write()

    def _try_to_write(self):
        try:
            self.write()
        except OSError as error:
            warnings.warn(
                f"{self._path} could not be written: {error}. Its rows are kept and "
                "written after the next epoch. Training goes on.",
                stacklevel=2,
            )

    def write(self):
        """Write the file.

        Raises:
            OSError: if it cannot be written.
        """
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        with_room(lambda: write_text(self._path, text.getvalue()), self._free)


def _plain(value):
    return value if isinstance(value, int) else float(value)


def learning_rates(distiller):
    """Return the rates in force: dict of a phase's role to float."""
    return {
        phase.role: float(keras.ops.convert_to_numpy(phase.optimizer.learning_rate))
        for phase in distiller.phases
    }
