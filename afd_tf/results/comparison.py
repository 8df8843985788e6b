"""Comparison of runs: one table per protocol, one row per configuration and network.

Runs of different protocols (see `protocol.py`) are shown apart, never in one table.
"""

from typing import NamedTuple

from afd_tf.errors import invalid, nearest
from afd_tf.results import paper_values
from afd_tf.results.finished_runs import (
    SUMMARIES,
    configurations,
    differing,
    finished_runs,
    grouped,
    short_labels,
)
from afd_tf.results.protocol import describe, unequal_settings
from afd_tf.results.statistics import gain

# What gains are over, unless told.
BASELINES = ("vanilla", "dml")


class Difference(NamedTuple):
    """The settings in which a configuration differs from a baseline.

    Attributes:
        baseline: str, where the baseline's runs are.
        settings: dict, see `unequal_settings`; not empty.
    """

    baseline: str
    settings: dict


class Row(NamedTuple):
    """A network of one configuration, or a summary of its networks.

    Attributes:
        configuration: str, where its runs are.
        method: str.
        network: str, or one of `SUMMARIES`.
        parameters: int, or None.
        accuracies: dict of seed to fraction.
        gains: dict of baseline to `Gain`, in fractions; only those that there are.
        differences: dict of baseline to `Difference`, of gains with more in them than
            the method; only those that there are.
        paper: `PaperValue`, or None.
    """

    configuration: str
    method: str
    network: str
    parameters: int | None
    accuracies: dict
    gains: dict
    differences: dict
    paper: paper_values.PaperValue | None


class Comparison(NamedTuple):
    """What `compare` found.

    Attributes:
        tables: list of (description, list of Row), one per protocol.
        remarks: list of str: runs left out, and what limits the comparison.
        over: tuple of str, the baselines asked for.
    """

    tables: list
    remarks: list
    over: tuple


def compare(paths, over=BASELINES):
    """Compare finished runs.

    Args:
        paths: iterable of paths: run directories, or folders that hold some at any
            depth; what is given twice counts once.
        over: iterable of str, what gains are computed over: names of configurations
            (the folder of their seeds) or of methods. A baseline itself has gains over
            those before it.

    Returns:
        Comparison.

    Raises:
        InvalidValue: if there are finished runs, and none of a baseline other than
            `BASELINES`.
    """
    over = tuple(over)
    remarks = []
    groups = configurations(finished_runs(paths, remarks), remarks)
    _check_baselines(over, groups)
    names = {each for group in groups for each in (group.name, group.method)}
    if over != BASELINES:  # nobody asked for those
        remarks += [f"No gain over {n}: no run is one." for n in over if n not in names]
    by_protocol = grouped(groups, lambda group: group.protocol)
    tables = [
        (describe(together[0].runs[0]), _rows(together, over, remarks))
        for together in by_protocol
    ]
    first, *others = [together[0] for together in by_protocol] or [None]
    for other in others:
        parts = differing(first.protocol, other.protocol)
        remarks.append(
            f"Not compared: {first.label} and {other.label}, whose protocols differ in "
            f"{parts}."
        )
    return Comparison(tables, list(dict.fromkeys(remarks)), over)


def _check_baselines(over, groups):
    known = dict.fromkeys([*BASELINES, *(g.name for g in groups)])
    known |= dict.fromkeys(group.method for group in groups)
    for name in over:
        if groups and name not in known:
            raise invalid(
                "over",
                f"names of configurations or methods among {', '.join(known)}",
                name,
                hint=nearest(name, known).strip(),
            )


def _rows(groups, over, remarks):
    rows = []
    for group in groups:
        if len(set(group.seeds)) < len(group.seeds):
            remarks.append(f"{group.label}: a seed occurs twice, {group.seeds}.")
        known = paper_values.find(group.runs[0].results, group.runs[0].settings)
        for network in [*group.networks, *SUMMARIES]:
            rows.append(
                Row(
                    group.label,
                    group.method,
                    network,
                    group.networks.get(network, {}).get("parameters"),
                    group.accuracies(network),
                    *_gains(group, network, groups, over, remarks),
                    known.get(network),
                )
            )
    _remark_on_seeds(groups, remarks)
    return rows


def _remark_on_seeds(groups, remarks):
    names = short_labels([group.label for group in groups])
    having = {}
    for group in groups:
        having.setdefault(tuple(group.seeds), []).append(names[group.label])
    if len(having) > 1:
        parts = [
            f"{', '.join(labels)} {'have' if len(labels) > 1 else 'has'} "
            f"{', '.join(map(str, seeds))}"
            for seeds, labels in having.items()
        ]
        remarks.append(
            f"Seeds differ: {'; '.join(parts)}. Gains are over those in common."
        )


def _gains(group, network, groups, over, remarks):
    gains, differences = {}, {}
    for name in over:
        candidates = _candidates(name, group, network, groups)
        if group in candidates:
            # A baseline: it has gains over those before it alone.
            break
        if len(candidates) > 1:
            labels = ", ".join(other.label for other in candidates)
            remarks.append(
                f"No gain over {name}, of which there are several: {labels}."
            )
        if len(candidates) != 1:
            continue
        [baseline] = candidates
        own = gain(group.accuracies(network), baseline.accuracies(network))
        if own is None:
            remarks.append(
                f"{group.label} and {baseline.label} have no seed in common."
            )
            continue
        gains[name] = own
        if unequal := unequal_settings(group.runs[0], baseline.runs[0]):
            differences[name] = Difference(baseline.label, unequal)
    return gains, differences


def _candidates(name, group, network, groups):
    """Find baselines: of the same networks, or where the network has no peers."""
    every = [other for other in groups if other.name == name]
    every = every or [other for other in groups if other.method == name]
    same = [other for other in every if list(other.networks) == list(group.networks)]
    return same or [o for o in every if o.independent and network in o.networks]
