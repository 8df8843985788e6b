"""Means and paired comparisons of accuracies over seeds."""

import math
from typing import NamedTuple


class Gain(NamedTuple):
    """The mean difference of paired values.

    Attributes:
        mean: float.
        low: float, lower end of the 95% confidence interval; None if the pairs tell
            nothing of the deviation (one pair, or equal differences).
        high: float, upper end, or None.
        p: float, two-sided p-value of the paired t-test, or None.
        pairs: int.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int


def mean_and_deviation(values):
    """Return the mean and the sample standard deviation (None of one value)."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1))


def gain(values, baseline):
    """Compare values with a baseline's, pair by pair.

    `mean +- t(0.975, n - 1) * s / sqrt(n)` of the differences, and `p` of their t-test:
    the differences are taken to be normal.

    Args:
        values: dict of seed to float.
        baseline: dict of seed to float; seeds in common make the pairs.

    Returns:
        Gain, or None without a common seed.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    differences = [values[seed] - baseline[seed] for seed in seeds]
    mean = math.fsum(differences) / len(seeds)
    if len(seeds) == 1 or max(differences) - min(differences) < 1e-12:
        return Gain(mean, None, None, None, len(seeds))
    from scipy import stats

    test = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(0.95)
    return Gain(mean, float(low), float(high), float(test.pvalue), len(seeds))
