"""What went wrong while reading, in one line."""

import re

# TensorFlow hands on a Python error as text inside a longer message.
_PATTERNS = (
    re.compile(r"ValueError: ((?:Corrupt|Invalid|Damaged)[^\n]*)"),
    re.compile(r"(Invalid label[^\n]*)"),
)


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
    return None
