"""Which examples of a split are used: stratified parts, the first of each class."""

import math

import numpy as np


def stratified(labels, fraction, seed, argument="validation", names=None):
    """Set a fraction of every class aside.

    Class shares are rounded by largest remainder, so that the total is
    round(fraction * examples); every class keeps at least one example.

    Args:
        labels: int array (examples,).
        fraction: float in (0, 1).
        seed: int in [0, 2**32).
        argument: str, the option's name for the message.
        names: sequence of str, the classes' names for the message, or None.

    Returns:
        Two int64 arrays, rows kept and rows set aside: disjoint, ascending, together
        every row.

    Raises:
        ValueError: if nothing would be set aside.
    """
    # RandomState's numbers are frozen by NumPy, so a split stays what it is.
    random = np.random.RandomState(seed)
    classes, counts = np.unique(labels, return_counts=True)
    wanted = fraction * counts
    aside = np.floor(wanted).astype(np.int64)
    missing = round(fraction * len(labels)) - int(aside.sum())
    by_remainder = np.argsort(aside - wanted, kind="stable")
    aside[by_remainder[: max(missing, 0)]] += 1
    aside = np.minimum(aside, counts - 1)
    if aside.sum() == 0:
        label, count = classes[counts.argmin()], counts.min()
        name = names[label] if names else int(label)
        raise ValueError(
            f"Invalid value for argument `{argument}`. Expected a fraction that sets "
            f"at least one of {len(labels)} examples in {len(classes)} classes aside. "
            f"Received: {argument}={fraction}, and of class {name!r} {count} "
            f"of the {examples_needed(fraction)} examples that it needs for one to be "
            "set aside. Add examples or raise the fraction."
        )
    held = np.zeros(len(labels), bool)
    for label, count in zip(classes, aside, strict=True):
        rows = np.flatnonzero(labels == label)
        held[random.permutation(rows)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def examples_needed(fraction):
    """Return how many examples a class needs for `stratified` to set one aside."""
    # Rounded, so that 1 / (1 / 49) is 49; one example always stays.
    return max(2, math.ceil(round(1 / fraction, 6)))


def first_of_each_class(labels, count, names):
    """Take the first examples of every class, in the set's own order.

    Args:
        labels: int array (examples,).
        count: int >= 1, examples to take of each class.
        names: sequence of str, the classes' names.

    Returns:
        int64 array (count * classes,) of rows, ascending.

    Raises:
        ValueError: if a class has fewer.
    """
    there = np.bincount(labels, minlength=len(names))
    if there.min() < count:
        smallest = int(there.argmin())
        raise ValueError(
            "Invalid value for argument `per_class`. Expected at most "
            f"{there[smallest]}, the training examples of class {names[smallest]!r}. "
            f"Received: per_class={count}."
        )
    firsts = [np.flatnonzero(labels == label)[:count] for label in range(len(names))]
    return np.sort(np.concatenate(firsts))
