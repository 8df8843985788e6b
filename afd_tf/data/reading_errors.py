"""Errors of reading data, in one line that names the file."""

import contextlib
import re

import tensorflow as tf

from afd_tf.errors import InvalidValue

# What assertions in a graph say, inside a longer message.
_ASSERTED = re.compile(r"(Invalid (?:label|image:)[^\n]*)")
# TensorFlow hands on a Python error as text inside a longer message.
_PATTERNS = (
    re.compile(
        r"(?:InvalidValue|ValueError): ((?:Corrupt|Invalid|Damaged|Missing)[^\n]*)"
    ),
    _ASSERTED,
)
# What TensorFlow says of records and images that are whole, but nothing it can read.
_UNREADABLE = re.compile(
    r"(?:Could not parse example input|Unknown image file format|Input is empty|"
    r"Invalid (?:PNG|JPEG|GIF|BMP)|jpeg::Uncompress failed|Feature: \w+ \(data type|"
    r"Key: \w+\.  Can't parse)[^\n]*"
)


@contextlib.contextmanager
def readable(where):
    """Turn TensorFlow's errors of reading into one line.

    Args:
        where: str, what is read, for what does not say so itself.

    Raises:
        InvalidValue: in place of TensorFlow's error.
    """
    try:
        yield
    except tf.errors.OpError as error:
        line = reading_error(error)
        raise InvalidValue(line) if line else damaged(where, error) from error


def damaged(where, error):
    """Return the error for data that cannot be read.

    Args:
        where: str, the file or the set.
        error: exception, or what it says.
    """
    return InvalidValue(_damaged(where, error))


def reading_error(error):
    """Return the data set's own message inside an error raised while training.

    Images that are decoded during training (a set larger than `memory_limit`) are
    checked when they are read; TensorFlow wraps what they raise into a long message.

    Args:
        error: exception, as `fit` or an iteration over a data set raised it.

    Returns:
        str, one line that names the file or the example, or None if the error did not
        come from reading data.
    """
    text = str(error)
    for pattern in _PATTERNS:
        match = pattern.search(text)
        if match:
            return match.group(1).strip()
    match = _UNREADABLE.search(text)
    return match and _damaged("an image of the data set", match.group().strip())


def _damaged(where, error):
    text = getattr(error, "message", None) or str(error)
    asserted = _ASSERTED.search(text)
    lines = asserted.groups() if asserted else text.strip().splitlines()
    reason = lines[0].split("}} ")[-1][:200] if lines else type(error).__name__
    return f"Damaged data: {where} cannot be read ({reason}). Prepare it again."
