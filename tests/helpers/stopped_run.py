"""A small run that stops itself at a step, for tests that start it as a process."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import small_runs

from afd_tf.training.callbacks.progress import Progress

SETTINGS = {
    "method": "afd",
    "epochs": 4,
    "deterministic": True,
    "tensorboard": True,
    "checkpoint_steps": 2,
}


def stop_at(when, number, delay=0.0):
    """Send a signal to this process.

    Args:
        when: int, global step after which, or a later one where the run is already
            beyond it; or None for never.
        number: signal.
        delay: float, seconds from the end of the step to the signal, while which
            training goes on.
    """
    if when is None:
        return
    done = Progress.on_train_batch_end

    def send():
        time.sleep(delay)
        os.kill(os.getpid(), number)

    def on_train_batch_end(self, batch, logs=None):
        nonlocal when
        done(self, batch, logs)
        if logs and self._epoch * self.params["steps"] + batch + 1 >= when:
            when = float("inf")
            if delay:
                threading.Thread(target=send).start()
            else:
                signal.raise_signal(number)

    Progress.on_train_batch_end = on_train_batch_end


def main(workdir, when, number, delay):
    stop_at(when, number, delay)
    small_runs.train(Path(workdir), **SETTINGS)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
