"""Refusals: errors that tell a user what to change, and the checks that raise them."""

import difflib
import math
from numbers import Integral, Real

_UNSET = object()


class Mistake(Exception):  # noqa: N818 - a mark on errors, beside their built-in type
    """Marks an error that the user can mend; commands print it as one line."""


class InvalidValue(Mistake, ValueError):  # noqa: N818
    """A value that cannot be meant."""


class InvalidType(Mistake, TypeError):  # noqa: N818
    """A value of the wrong type."""


def invalid(argument, expected, value=_UNSET, *, received=None, hint="", kind=None):
    """Return the error for an argument, to be raised by the caller.

    Args:
        argument: str, the argument's name.
        expected: str, what would be right: "an int >= 1".
        value: what was received, shown as `argument=value`.
        received: str, shown instead of `value`.
        hint: str, what to do.
        kind: class of the error. Default `InvalidValue`.

    Example:
    ```python
    raise invalid("keep", "an int >= 1", 0)
    # Invalid value for argument `keep`. Expected an int >= 1. Received: keep=0.
    ```
    """
    if received is None:
        received = f"{argument}={shown(value)}"
    text = (
        f"Invalid value for argument `{argument}`. Expected {expected}. "
        f"Received: {received}. {hint}"
    )
    return (kind or InvalidValue)(text.rstrip())


def inapplicable(argument, value, reason, hint="Leave it out."):
    """Return the error for an argument that has no effect beside the others."""
    return InvalidValue(
        f"Argument `{argument}` does not apply: {reason}. "
        f"Received: {argument}={shown(value)}. {hint}".rstrip()
    )


def integer(argument, value, at_least=None, below=None):
    """Return `value` as an int in `[at_least, below)`; a bool is none."""
    low = -math.inf if at_least is None else at_least
    high = math.inf if below is None else below
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if whole and low <= int(value) < high:
        return int(value)
    bounds = [] if at_least is None else [f">= {at_least}"]
    bounds += [] if below is None else [f"< {_power(below)}"]
    raise invalid(argument, " ".join(["an int", " and ".join(bounds)]).strip(), value)


def positive_int(argument, value):
    """Return `value` as an int from 1 on, below 2**32."""
    return integer(argument, value, 1, 2**32)


def number(argument, value, *, positive=False):
    """Return `value` as a finite float >= 0, or > 0 if `positive`."""
    real = _as_float(value)
    if 0 <= real < math.inf and (real > 0 or not positive):
        return real
    raise invalid(argument, f"a finite number {'> 0' if positive else '>= 0'}", value)


def fraction(argument, value, *, zero=True, one=False):
    """Return `value` as a float between 0 and 1, each itself as the flags allow."""
    real = _as_float(value)
    if 0 < real < 1 or (zero and real == 0) or (one and real == 1):
        return real
    interval = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
    raise invalid(argument, f"a float in {interval}", value)


def boolean(argument, value):
    """Return `value` if it is True or False; the text "False" is neither."""
    if isinstance(value, bool):
        return value
    raise invalid(argument, "True or False, without quotes", value)


def choice(argument, value, known):
    """Return `value` if it is one of `known`; suggest the nearest one if not.

    Args:
        argument: str, the argument's name.
        value: what was received.
        known: iterable of str, or of numbers.
    """
    known = sorted(known)
    if isinstance(value, str | Real) and value in known:
        return value
    hint = nearest(value, known).strip() if isinstance(value, str) else ""
    raise invalid(argument, f"one of {known}", value, hint=hint)


def lookup(argument, name, known):
    """Return `known[name]` from a dict with str keys, checked as `choice` does."""
    return known[choice(argument, name, known)]


def instance(argument, value, types, expected):
    """Return `value` if it is of `types`; `expected` is their name in words."""
    if isinstance(value, types):
        return value
    received = f"{argument}={shown(value)} of type {type(value).__name__}"
    raise invalid(argument, expected, received=received, kind=InvalidType)


def nearest(name, known):
    """Return " Did you mean 'x'?" for the known name nearest to `name`, or "".

    Args:
        name: what was received, any object.
        known: iterable of str, the valid names.
    """
    # In lower case, so that "AFD" is near "afd".
    lower = {str(each).lower(): each for each in known}
    matches = difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=0.5)
    return f" Did you mean '{lower[matches[0]]}'?" if matches else ""


def shown(value, longest=200):
    """Return a value's `repr` for a message, cut where it would be too long."""
    try:
        text = repr(value)
    except ValueError:  # an int of thousands of digits
        text = "an int that is too large"
    return text if len(text) <= longest else f"{text[:longest]}..."


def _as_float(value):
    real = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if real else math.nan


def _power(bound):
    exponent = bound.bit_length() - 1
    return f"2**{exponent}" if bound > 1000 and bound == 2**exponent else str(bound)
