"""What went wrong while reading, in one line."""

import contextlib
import re

# TensorFlow hands on a Python error as text inside a longer message.
_PATTERNS = (
    re.compile(r"ValueError: ((?:Corrupt|Invalid|Damaged|Missing)[^\n]*)"),
    re.compile(r"(Invalid label[^\n]*)"),
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
        ValueError: in place of TensorFlow's error.
    """
    # Also when TensorFlow is not loaded yet, which then cannot have failed.
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise ValueError(reading_error(error) or damaged(where, error)) from error


def damaged(where, error):
    """Return the line that says what cannot be read, and why.

    Args:
        where: str, the file or the set.
        error: exception, or what it says.
    """
    lines = (getattr(error, "message", None) or str(error)).strip().splitlines()
    reason = lines[0].split("}} ")[-1][:200] if lines else type(error).__name__
    return f"Damaged data: {where} cannot be read ({reason}). Prepare it again."


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
    return match and damaged("an image of the data set", match.group().strip())
