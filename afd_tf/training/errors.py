"""TensorFlow's errors in words that say what to do."""

import contextlib
import re

import tensorflow as tf

from afd_tf import data

_SMALLER = (
    "Lower `train.batch_size`, to which the memory for feature maps is proportional, "
    "or use precision='mixed_bfloat16', smaller images, or smaller or fewer networks. "
    "This is another configuration, for which choose another --workdir."
)


class OutOfMemoryError(MemoryError):
    """There is less memory than a step needs."""


@contextlib.contextmanager
def readable(hint=""):
    """Turn errors in the data and lack of memory into errors of one line.

    Args:
        hint: str, appended.

    Raises:
        ValueError: in place of TensorFlow's error, if it is one of the data.
        OutOfMemoryError: in place of TensorFlow's or Python's.
    """
    try:
        yield
    except tf.errors.OpError as error:
        reason = data.reading_error(error)
        if reason is not None:
            raise ValueError(f"{reason} {hint}".strip()) from error
        if not isinstance(error, tf.errors.ResourceExhaustedError):
            raise
        raise _out_of_memory(error, hint) from error
    except MemoryError as error:
        raise _out_of_memory(error, hint) from error


def _out_of_memory(error, hint):
    found = re.search(r"shape\s?\[[\d,]*\]", str(error))
    what = f" for a tensor of {found.group()}" if found else ""
    return OutOfMemoryError(f"Out of memory{what}. {_SMALLER} {hint}".strip())


def one_line(error):
    """Return what an error says, in a line, without the operation that met it."""
    text = getattr(error, "message", None) or str(error)
    lines = text.split("}} ")[-1].splitlines()
    first = lines[0] if lines else type(error).__name__
    return re.sub(r" \[Op:\w+\]$", "", first.strip())[:200]
