"""Small runs of several worker processes; started as a program, one such worker."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras

from afd_tf import data

ROOT = Path(__file__).resolve().parents[2]


def settings(normalization=False):
    """Return arguments of `train` whose runs do not depend on the replicas.

    Args:
        normalization: False or "sync".
    """
    import small_runs

    options = {"normalization": normalization, "dropout": 0.0}
    return {
        "networks": [
            functools.partial(small_runs.small, **options),
            functools.partial(small_runs.large, **options),
        ],
        "method": "afd",
        "method_options": {
            "discriminator_channels": (4,),
            "discriminator_normalization": {True: "batch", False: "none"}.get(
                normalization, normalization
            ),
        },
    }


def signalled(task, number):
    """Return arguments of `train` that let a signal come to one worker."""

    def for_worker(own):
        import small_runs

        stop = small_runs.AfterStep(1, 2, lambda _: signal.raise_signal(number))
        return {"callbacks": [stop]} if own == task else {}

    return for_worker


terminate_the_second = signalled(1, signal.SIGTERM)
kill_the_second = signalled(1, signal.SIGKILL)
kill_the_chief = signalled(0, signal.SIGKILL)


def spoil_a_batch_of_the_second(task):
    """Let the second worker's own rows of step 3 be NaN."""
    import tensorflow as tf

    from afd_tf.data import ImageDataset

    happening = ImageDataset.for_replicas

    def spoil(number, batch):
        images, labels = batch
        # Training only: an evaluation has two batches here.
        return tf.where(tf.equal(number, 2), float("nan"), images), labels

    def spoiled(self, *replicas):
        return happening(self, *replicas).enumerate().map(spoil)

    if task == 1:
        ImageDataset.for_replicas = spoiled
    return {}


def hide_checkpoints_from_the_second(task):
    """Let the second worker look for checkpoints on a disk of its own."""
    from afd_tf.training.checkpoints import Checkpoints

    happening = Checkpoints.path
    if task == 1:
        Checkpoints.path = lambda self, position: (
            self.directory / "elsewhere" / happening(self, position).name
        )
    return {}


class _At(keras.callbacks.Callback):
    """Calls a function at a stage: "evaluating" or "saving"."""

    def __init__(self, stage, function):
        super().__init__()
        self._stage, self._function = stage, function

    def _reach(self, stage):
        if stage == self._stage:
            self._function()

    def on_test_batch_begin(self, batch, logs=None):
        self._reach("evaluating")

    def on_epoch_end(self, epoch, logs=None):
        self._reach("saving")


def die_while(own, stage, dead):
    """Let a worker die at a stage.

    While it is built the other does something long, in which it asks for nobody.
    """

    def die():
        if own == dead:
            os.kill(os.getpid(), signal.SIGKILL)

    def load_data(*arguments, **options):
        if stage == "building":
            die()
            time.sleep(600)
        return data.load(*arguments, **options)

    if stage == "joining":
        die()
    return {
        "load_data": load_data,
        "callbacks": [_At(stage, die)],
        "method": "vanilla",
        "method_options": None,
    }


def give_the_second_another_seed(task):
    return {"seed": 7} if task == 1 else {}


def environment():
    """Return the environment of a worker."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {
        **{k: v for k, v in os.environ.items() if k != "TF_CONFIG"},
        "PYTHONPATH": path,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def start(workdir, ports, normalization=False, prepare=None, **changes):
    """Start the workers of a run.

    Args:
        workdir: path; beside it their output is kept, in `<name>-<task>.txt`.
        ports: list of int, one for each.
        normalization: see `settings`.
        prepare: str, the name of a function here, called first in each with its task;
            it returns further arguments of `train`. Or a list of it and arguments.
        **changes: arguments of `train` that JSON can hold.

    Returns:
        List of `subprocess.Popen`.
    """
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    processes = []
    for task in range(len(ports)):
        cluster = {"strategy": "multi_worker", "workers": addresses, "task": task}
        arguments = [str(workdir), normalization, prepare, {**changes, **cluster}]
        with open(output_path(workdir, task), "w") as file:
            processes.append(
                subprocess.Popen(
                    [sys.executable, __file__, json.dumps(arguments)],
                    env=environment(),
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


def output_path(workdir, task):
    return workdir.with_name(f"{workdir.name}-{task}.txt")


def output(workdir, task):
    """Return what a worker wrote."""
    return output_path(workdir, task).read_text()


def main(workdir, normalization, prepare, changes):
    import small_runs

    from afd_tf import training
    from afd_tf.errors import Mistake

    arguments = {**settings(normalization), **changes}
    if prepare:
        name, *options = [prepare] if isinstance(prepare, str) else prepare
        arguments |= globals()[name](changes["task"], *options)
    try:
        training.train(workdir, **small_runs.arguments(**arguments))
    except KeyboardInterrupt as error:
        return 128 + getattr(error, "signal", 2)
    except Mistake as error:
        print(f"mistake: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 2)
    return 0


if __name__ == "__main__":
    sys.exit(main(*json.loads(sys.argv[1])))
