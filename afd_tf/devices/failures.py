"""Failures of the machine: lack of memory, lost workers, TensorFlow's own."""

import re

from afd_tf.errors import Mistake


class OutOfMemoryError(Mistake, MemoryError):
    """There is less memory than a step needs."""


class WorkerLostError(Mistake, ConnectionError):
    """Another worker of the run does not answer any more.

    Attributes:
        exit_status: int, that of a command it ends: "try again" (EX_TEMPFAIL).
    """

    exit_status = 75


def worker_lost(task=None):
    """Return the error for a worker that was lost, of which the number may be known."""
    return WorkerLostError(
        f"{'Another worker' if task is None else f'Worker {task}'} was lost: it ended "
        "or does not answer any more; its own output says why. What was saved is kept. "
        "Start all workers again with the same command to go on."
    )


def one_line(error):
    """Return what an error says, in a line, without the operation that met it."""
    text = getattr(error, "message", None) or str(error)
    lines = text.split("}} ")[-1].splitlines()
    first = lines[0] if lines else type(error).__name__
    return re.sub(r" \[Op:\w+\]$", "", first.strip())[:200]
