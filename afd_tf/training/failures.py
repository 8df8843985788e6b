"""Failures in training: errors of data, memory and workers as one line for users."""

import contextlib
import re

import tensorflow as tf

from afd_tf import data
from afd_tf.devices.failures import OutOfMemoryError, worker_lost
from afd_tf.errors import InvalidValue

KEPT = "What was saved is kept."
_SMALLER = (
    "Lower `train.batch_size`, to which the memory for feature maps is proportional, "
    "or use precision='mixed_bfloat16', smaller images, or smaller or fewer networks. "
    "This is another configuration, for which choose another --workdir."
)


@contextlib.contextmanager
def readable(hint=""):
    """Turn errors in the data, lack of memory and of workers into errors of one line.

    Args:
        hint: str, appended.

    Raises:
        InvalidValue: in place of TensorFlow's error, if it is one of the data.
        OutOfMemoryError: in place of TensorFlow's or Python's.
        WorkerLostError: in place of TensorFlow's.
    """
    try:
        yield
    except tf.errors.OpError as error:
        reason = data.reading_error(error)
        if reason is not None:
            raise InvalidValue(f"{reason} {hint}".strip()) from error
        if _of_workers(error):
            raise _worker_lost(error) from error
        if not isinstance(error, tf.errors.ResourceExhaustedError):
            raise
        raise _out_of_memory(error, hint) from error
    except MemoryError as error:
        raise _out_of_memory(error, hint) from error


def _out_of_memory(error, hint):
    shape = re.search(r"shape\s?\[[\d,]*\]", str(error))
    what = f" for a tensor of {shape.group()}" if shape else ""
    return OutOfMemoryError(f"Out of memory{what}. {_SMALLER} {hint}".strip())


def _of_workers(error):
    phrases = ("Collective ops is aborted", "CoordinationService", "heartbeat")
    return isinstance(error, tf.errors.UnavailableError) or any(
        phrase in str(error) for phrase in phrases
    )


def _worker_lost(error):
    # The first task named is where the operation ran, here.
    text = getattr(error, "message", None) or str(error)
    tasks = re.findall(r"/task:(\d+)", text.split("}} ")[-1])
    own = re.search(r"/task:(\d+)", text.split("}} ")[0])
    lost = sorted({int(t) for t in tasks} - {int(own[1]) if own else None})
    return worker_lost(lost[0] if len(lost) == 1 else None)
