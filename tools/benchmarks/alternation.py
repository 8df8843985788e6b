"""Timing by turns: whatever else a machine does meets all sides alike."""

import statistics
import time


def milliseconds(cases, rounds, steps=2):
    """Time cases in turns.

    Args:
        cases: dict from name to a function that makes one step and returns when it is
            done, or that returns the seconds it took as it measured them itself.
        rounds: int >= 1; each case has a turn in each, the first case another one every
            time.
        steps: int, counted steps of a turn. One before them is not: it pays for caches
            that the other cases have filled, and for their threads that still spin.

    Returns:
        dict from name to the median time of a step in milliseconds.
    """
    for step in cases.values():  # compiles and warms up
        step()
        step()
    seconds = {name: [] for name in cases}
    names = list(cases)
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            cases[name]()
            for _ in range(steps):
                begun = time.perf_counter()
                own = cases[name]()
                own = own if isinstance(own, float) else time.perf_counter() - begun
                seconds[name].append(own)
    return {n: 1e3 * statistics.median(values) for n, values in seconds.items()}
