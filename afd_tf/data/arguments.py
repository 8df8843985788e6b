"""Arguments of `load` checked: what is wrong, what was received."""

import math
import numbers

import numpy as np


def number_range(argument, value, highest):
    """Return (low, high) as floats, 0 < low <= high <= highest."""
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 < low <= high <= highest or math.isinf(high):
        most = "" if math.isinf(highest) else f" <= {highest:g}"
        raise invalid(argument, f"(low, high) with 0 < low <= high{most}", value)
    return low, high


def shorter_side(value, image_size):
    """Return the length to resize the shorter side to, or None."""
    if value is None:
        return None
    check_integer("resize", value, 1)
    size = height_and_width(image_size)
    if size is None or value < max(size):
        raise invalid(
            "resize",
            "None, or an integer of at least the longer side of `image_size`, "
            f"which is {size}",
            value,
        )
    return int(value)


def height_and_width(value):
    """Return (height, width), or None."""
    if value is None:
        return None
    size = (value, value) if isinstance(value, numbers.Integral) else value
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise invalid("image_size", "an integer or (height, width)", value)
    for side in size:
        check_integer("image_size", side, 1)
    height, width = size
    return int(height), int(width)


def check_integer(argument, value, low, high=None):
    """Refuse what is no integer in [low, high)."""
    if (
        not isinstance(value, numbers.Integral)
        or isinstance(value, bool)
        or value < low
        or (high is not None and value >= high)
    ):
        expected = f"an integer >= {low}"
        if high is not None:
            expected += f" and < {high}"
        raise invalid(argument, expected, value)


def check_fraction(argument, value, zero=False):
    """Refuse what is no number in (0, 1), or [0, 1) with `zero`."""
    if (
        not isinstance(value, (int, float, np.number))
        or isinstance(value, bool)
        or not (0 < value < 1 or (zero and value == 0))
    ):
        raise invalid(argument, f"a number in {'[' if zero else '('}0, 1)", value)


def invalid(argument, expected, received):
    """Return the error for an argument."""
    return ValueError(
        f"Invalid value for argument `{argument}`. Expected {expected}. "
        f"Received: {argument}={received!r}"
    )
