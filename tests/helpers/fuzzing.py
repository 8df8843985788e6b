"""Drawn input for tests: the same in every run, and bounded."""

import inspect

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from afd_tf.errors import Mistake


def fuzz(count):
    """Return a decorator that draws `count` examples."""
    return settings(
        max_examples=count,
        deadline=None,  # the machine may be busy; the count is what bounds the time
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def accept(function, *arguments, **options):
    """Call; let pass only errors that are meant for a user to read."""
    try:
        return function(*arguments, **options)
    except Mistake as error:
        words = ("Expected", "Received", "Damaged", "Corrupt")
        if not any(word in str(error) for word in words):
            raise AssertionError(f"no word of what to do: {error}") from error
        return None


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=3),
        st.sampled_from(["digits", "resnet8", "auto", "cycle", "\0", "/", "~x", "."]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=2),
    ),
    max_leaves=4,
)
odd = st.one_of(values, st.just(object()), st.just(np.array([1, 2])), st.just(print))


def any_of(function, leave_out):
    """Draw values for one or two of a function's arguments."""
    known = [p for p in inspect.signature(function).parameters if p not in leave_out]
    return st.dictionaries(st.sampled_from(known), odd, min_size=1, max_size=2)
