"""A small run that stops itself at a step, for tests that start it as a process."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import keras
import small_runs

SETTINGS = {
    "method": "afd",
    "epochs": 4,
    "deterministic": True,
    "tensorboard": True,
    "checkpoint_steps": 2,
}


class Stop(keras.callbacks.Callback):
    """Sends a signal to this process.

    Args:
        when: int, global step after which, or a later one where the run is already
            beyond it; or None for never.
        number: signal.
        delay: float, seconds from the end of the step to the signal, while which
            training goes on.
    """

    def __init__(self, when, number, delay):
        super().__init__()
        self._when = float("inf") if when is None else when
        self._number, self._delay = number, delay

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self._epoch * self.params["steps"] + batch + 1 >= self._when:
            self._when = float("inf")
            threading.Thread(target=self._send).start()

    def _send(self):
        time.sleep(self._delay)
        os.kill(os.getpid(), self._number)


def main(workdir, when, number, delay):
    callbacks = [Stop(when, number, delay)]
    small_runs.train(Path(workdir), **SETTINGS, callbacks=callbacks)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
