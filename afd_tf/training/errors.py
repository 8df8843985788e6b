"""TensorFlow's errors in words that say what to do."""

import contextlib

import tensorflow as tf

from afd_tf import data


@contextlib.contextmanager
def readable(hint=""):
    """Turn errors in the data into a ValueError of one line.

    Args:
        hint: str, appended.

    Raises:
        ValueError: in place of TensorFlow's error.
    """
    try:
        yield
    except tf.errors.OpError as error:
        reason = data.reading_error(error)
        if reason is None:
            raise
        raise ValueError(f"{reason} {hint}".strip()) from error
