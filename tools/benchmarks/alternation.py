"""Timing by turns: whatever else a machine does meets all sides alike."""

import random
import statistics
import time


class Turns(list):
    """Milliseconds of a step in each of a case's turns."""

    def median(self):
        """Return the case's time."""
        return statistics.median(self)

    def over(self, other):
        """Return the ratio to another case: the median of the turns' ratios.

        What slows the machine down for a while slows down both sides of a turn, and
        leaves their ratio as it is.
        """
        return statistics.median(a / b for a, b in zip(self, other, strict=True))


def shuffled(names, rounds):
    """Yield the names in another order for every round, the same in every run.

    What a case leaves behind (its memory, its threads, a core that is hot) meets the
    next one; in a fixed order, or a rotated one, it would always meet the same.
    """
    chance = random.Random(0)
    for _ in range(rounds):
        yield chance.sample(names, len(names))


def milliseconds(cases, rounds, steps=2, tick=None):
    """Time cases in turns.

    Args:
        cases: dict from name to a function that makes one step and returns when it is
            done, or that returns the seconds it took as it measured them itself.
        rounds: int >= 1; each case has a turn in each, in an order by chance.
        steps: int, counted steps of a turn, of which the mean is taken. One before them
            is not counted: it pays for caches that the other cases have filled, and for
            their threads that still spin.
        tick: function that is told the number of every turn that is done, and of how
            many; or None.

    Returns:
        dict from name to `Turns`.
    """
    for step in cases.values():  # compiles and warms up
        step()
        step()
    found = {name: Turns() for name in cases}
    for number, names in enumerate(shuffled(list(cases), rounds), start=1):
        for name in names:
            cases[name]()
            seconds = []
            for _ in range(steps):
                begun = time.perf_counter()
                own = cases[name]()
                own = own if isinstance(own, float) else time.perf_counter() - begun
                seconds.append(own)
            found[name].append(1e3 * statistics.fmean(seconds))
        if tick:
            tick(number, rounds)
    return found


def medians(found):
    """Return the time of each case: dict of name to float."""
    return {name: turns.median() for name, turns in found.items()}
