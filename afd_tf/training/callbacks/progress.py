"""Progress of a run on a terminal or in a log file."""

import sys
import threading
import time
from typing import Any

import keras

from afd_tf.text import duration


class Progress(keras.callbacks.Callback):
    """Show epochs, time left and every network's accuracy; for people and log files.

    On a terminal the current epoch is a bar that is redrawn; elsewhere each epoch is
    one line, and a long one a line every minute.

    Args:
        stream: where to write; default the standard output of the moment.
    """

    # Logs are fetched by a thread while the next step computes; hence the lock.
    async_safe = True

    def __init__(self, stream=None):
        super().__init__()
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._pause = 0.2 if self._terminal else 60.0
        self._lock = threading.Lock()
        self._started: Any = None
        self._timed_from: Any = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._started is None:
            self._started = time.monotonic()
            self._drawn = self._started
        self._epoch, self._batch = epoch, -1

    def on_train_batch_end(self, batch, logs=None):
        if not logs:  # a step that was done before the run was interrupted
            return
        now = time.monotonic()
        fraction = min((batch + 1) / (self.params["steps"] or batch + 1), 1.0)
        with self._lock:
            if self._timed_from is None:
                # The first step, which compiles, says nothing of the others.
                self._timed_from = (self._epoch + fraction, now)
                seconds = duration(now - self._started)
                self._stream.write(f"First step after {seconds} of compiling.\n")
                self._stream.flush()
            # Threads may come late.
            if batch <= self._batch or now - self._drawn < self._pause:
                return
            self._batch, self._drawn = batch, now
            bar = "=" * round(20 * fraction)
            shown = accuracies(self.model, logs)
            end = "" if self._terminal else "\n"
            self._write(f"[{bar:<20}]", shown, self._epoch + fraction, end)

    def on_epoch_end(self, epoch, logs=None):
        evaluated = accuracies(self.model, logs, "val_")
        shown = evaluated or accuracies(self.model, logs)
        whose = "accuracy" if evaluated else "training accuracy"
        loss = f"loss {logs['loss']:.3f}  {whose}"
        self._drawn = time.monotonic()
        self._write(loss, shown, epoch + 1, "\n")

    def _write(self, first, second, done, end):
        epochs = self.params["epochs"]
        head = f"epoch {self._epoch + 1:>{len(str(epochs))}}/{epochs}"
        line = "  ".join([head, first, second, self._time(epochs, done)])
        if self._terminal:
            line = f"\r{line}\033[K"
        self._stream.write(line + end)
        self._stream.flush()

    def _time(self, epochs, done):
        """Extrapolate from what this process has done since its first step."""
        now = time.monotonic()
        if done >= epochs:
            return f"{duration(now - self._started)} in all"
        begin, since = self._timed_from or (done, now)
        if done <= begin:
            return "? left"
        return f"{duration((now - since) / (done - begin) * (epochs - done))} left"


def accuracies(distiller, logs, prefix=""):
    """Write the accuracies in logs: each network's and the ensemble's, in percent."""
    shown = [*distiller.network_names, "ensemble"]
    return "  ".join(
        f"{spec.network} {100 * logs[prefix + name]:.1f}%"
        for name, spec in distiller.metric_specs.items()
        if spec.quantity == "accuracy" and spec.network in shown
        if prefix + name in logs
    )
