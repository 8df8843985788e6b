"""Contrasts of configurations, with an error that is pooled over all of them.

Of two or three seeds a configuration's own deviation is hardly known. Here an accuracy
is an effect of the configuration plus one of the seed plus noise, and the noise is
taken to be as large in every configuration and network:

    sigma^2 = sum of squared residuals / degrees of freedom

over the networks of all configurations, and so for the means of networks. Networks of
one run learn from each other, so that their residuals need not be independent: t has
the degrees of freedom of the means, which count every run once.
"""

from typing import NamedTuple

import numpy as np

from afd_tf.errors import InvalidValue
from afd_tf.results.statistics import Gain
from afd_tf.results.tables import gain_text
from afd_tf.text import as_table

MEAN = "mean"


class Contrast(NamedTuple):
    """One configuration over another.

    Attributes:
        configuration: str.
        baseline: str.
        gains: dict of network, or `MEAN`, to `Gain`, in fractions.
        corrected: float, the p-value of the mean of the networks by Holm's method, over
            all contrasts asked for, also those that cannot be estimated yet; None where
            there is no p-value.
        seeds: pair of int, the seeds of both.
    """

    configuration: str
    baseline: str
    gains: dict
    corrected: float | None
    seeds: tuple


class _Fit:
    """Effects of configurations and seeds, by least squares.

    Args:
        values: dict of (configuration, seed) to float.
    """

    def __init__(self, values):
        self.names = sorted({name for name, _ in values})
        seeds = sorted({seed for _, seed in values})
        width = len(self.names) + len(seeds) - 1
        design = np.zeros((len(values), width))
        for row, (name, seed) in zip(design, values, strict=True):
            row[self.names.index(name)] = 1.0
            if seed != seeds[0]:
                row[len(self.names) + seeds.index(seed) - 1] = 1.0
        observed = np.array(list(values.values()), np.float64)
        self._inverse = np.linalg.pinv(design.T @ design)
        self._effects = self._inverse @ design.T @ observed
        self.squares = float(np.sum((observed - design @ self._effects) ** 2))
        self.freedom = len(values) - int(np.linalg.matrix_rank(design))

    def difference(self, name, baseline):
        """Return the difference of two effects, and its variance where sigma is 1."""
        weights = np.zeros(len(self._effects))
        weights[self.names.index(name)] += 1.0
        weights[self.names.index(baseline)] -= 1.0
        return weights @ self._effects, weights @ self._inverse @ weights


def estimate(accuracies, contrasts):
    """Estimate contrasts.

    Args:
        accuracies: dict of configuration to a dict of seed to a dict of network, and
            `MEAN`, to fraction. Configurations of the same networks, in the same order,
            are fitted together.
        contrasts: iterable of (configuration, baseline); those of which one is not in
            `accuracies`, or with no seed in common, are left out.

    Returns:
        list of Contrast. Gains have no interval where nothing is left to tell sigma by.

    Raises:
        InvalidValue: if a configuration and its baseline are of different networks.
    """
    contrasts = list(contrasts)
    groups = {}
    for name, runs in accuracies.items():
        groups.setdefault(_networks(runs), {})[name] = runs
    fits = {}
    for networks, alike in groups.items():
        for network in networks:
            values = {
                (name, seed): run[network]
                for name, runs in alike.items()
                for seed, run in runs.items()
            }
            fits[networks, network] = _Fit(values)
    estimated = []
    for name, baseline in contrasts:
        if not accuracies.get(name, {}).keys() & accuracies.get(baseline, {}).keys():
            continue
        networks = _networks(accuracies[name])
        if networks != _networks(accuracies[baseline]):
            raise InvalidValue(
                "Invalid contrast. Expected two configurations of the same networks. "
                f"Received: {name!r} and {baseline!r}."
            )
        gains = {
            network: _gain(fits, networks, network, name, baseline, accuracies)
            for network in networks
        }
        seeds = len(accuracies[name]), len(accuracies[baseline])
        estimated.append(Contrast(name, baseline, gains, None, seeds))
    corrected = holm([each.gains[MEAN].p for each in estimated], len(contrasts))
    return [
        each._replace(corrected=p) for each, p in zip(estimated, corrected, strict=True)
    ]


def _networks(runs):
    return tuple(next(iter(runs.values())))


def _gain(fits, networks, network, name, baseline, accuracies):
    difference, unscaled = fits[networks, network].difference(name, baseline)
    pairs = len(accuracies[name].keys() & accuracies[baseline].keys())
    alike = [
        fit for (_, own), fit in fits.items() if (own == MEAN) == (network == MEAN)
    ]
    squares = sum(fit.squares for fit in alike)
    if squares == 0.0:
        return Gain(float(difference), None, None, None, pairs)
    from scipy import stats

    error = float(np.sqrt(squares / sum(fit.freedom for fit in alike) * unscaled))
    freedom = sum(fit.freedom for (_, own), fit in fits.items() if own == MEAN)
    reach = float(stats.t.ppf(0.975, freedom)) * error
    p = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return Gain(float(difference), difference - reach, difference + reach, p, pairs)


def holm(values, count):
    """Correct p-values for their number, by Holm's method.

    `max over j <= i of min(1, (m - j) p_j)`, of the values in rising order, j from 0.

    Args:
        values: list of float, or None for what has none.
        count: int, m: how many are or will be tested. At least as many as `values`.

    Returns:
        list of float or None, in the order of `values`.
    """
    order = sorted((p, index) for index, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (count - rank) * p))
        corrected[index] = largest
    return corrected


def table(contrasts, corrected=True):
    """Lay contrasts out as text, in percent.

    Args:
        contrasts: list of Contrast.
        corrected: bool, whether to show p-values by Holm's method.

    Returns:
        str, lines of equal columns.
    """
    rows = [
        ["configuration", "over", "seeds", "mean of networks", "Holm's p", "networks"]
    ]
    for contrast in contrasts:
        own = [f"{n} {gain_text(g)}" for n, g in contrast.gains.items() if n != MEAN]
        p = contrast.corrected
        rows.append(
            [
                contrast.configuration,
                contrast.baseline,
                " / ".join(map(str, contrast.seeds)),
                gain_text(contrast.gains[MEAN]),
                "" if p is None else f"{p:.3f}",
                ", ".join(own),
            ]
        )
    if not corrected:
        rows = [[*row[:4], *row[5:]] for row in rows]
    return as_table(rows)


def accuracies_of(runs):
    """Read the accuracies of finished runs, as `estimate` takes them.

    Args:
        runs: iterable of Run; those that are not finished are left out.

    Returns:
        dict of configuration to a dict of seed to a dict of network, and `MEAN`, to
        fraction.

    Raises:
        InvalidValue: if a run's results.json is damaged.
    """
    accuracies = {}
    for run in (run for run in runs if run.finished):
        results = run.results()
        own = {n: each["accuracy"] for n, each in results["networks"].items()}
        own[MEAN] = results["mean"]["accuracy"]
        accuracies.setdefault(run.cell.name, {})[run.seed] = own
    return accuracies
