"""Runs put side by side: same protocol together, same configuration over its seeds.

Runs of different protocols (see `protocol.py`) are shown apart, never in one table.
"""

from pathlib import Path
from typing import NamedTuple

from afd_tf.training import paper_values
from afd_tf.training.finished_runs import Run, finished_runs
from afd_tf.training.protocol import DATA, describe, protocol, with_data
from afd_tf.training.statistics import gain

# What gains are over, unless told.
BASELINES = ("vanilla", "dml")
# Summaries beside the networks.
SUMMARIES = ("mean", "ensemble")


class Row(NamedTuple):
    """A network of one configuration, or a summary of its networks.

    Attributes:
        configuration: str, where its runs are.
        method: str.
        network: str, or one of `SUMMARIES`.
        parameters: int, or None.
        accuracies: dict of seed to fraction.
        gains: dict of baseline to `Gain`, in fractions; only those that there are.
        paper: `PaperValue`, or None.
    """

    configuration: str
    method: str
    network: str
    parameters: int | None
    accuracies: dict
    gains: dict
    paper: paper_values.PaperValue | None


class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        runs: list of Run, by seed.
        label: str, where they are.
        name: str, the name of the folder of the seeds' runs, or of the run.
        protocol: dict of setting to text.
        method: str.
        networks: dict of network to what `results.json` has of it.
    """

    def __init__(self, runs: list[Run]):
        self.runs = sorted(runs, key=lambda run: run.results["seed"])
        self.label = _label([run.path for run in runs])
        self.name = Path(self.label).name
        self.protocol = protocol(runs[0])
        self.method = runs[0].results["method"]
        self.networks = runs[0].results["networks"]

    @property
    def seeds(self):
        """List of int."""
        return [run.results["seed"] for run in self.runs]

    def accuracies(self, what):
        """Return the fraction of each seed, of a network or a summary."""
        return {
            run.results["seed"]: (
                run.results if what in SUMMARIES else run.results["networks"]
            )[what]["accuracy"]
            for run in self.runs
        }


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
        ValueError: if there are finished runs, and none of a baseline other than
            `BASELINES`.
    """
    over = tuple(over)
    remarks = []
    runs = with_data(finished_runs(paths, remarks), remarks)
    # Networks have to be the same where a file was changed by hand, too.
    groups = _grouped(
        runs,
        lambda run: (
            tuple(sorted(run.settings.items())),
            tuple(run.results["networks"]),
            run.results.get(DATA),
        ),
    )
    by_protocol = {}
    for found in groups:
        group = Group(found)
        key = tuple(sorted(group.protocol.items()))
        by_protocol.setdefault(key, []).append(group)
    _check_baselines(over, [group for few in by_protocol.values() for group in few])
    tables = [
        (describe(together[0].runs[0]), _rows(together, over, remarks))
        for together in by_protocol.values()
    ]
    first, *others = [together[0] for together in by_protocol.values()] or [None]
    for other in others:
        differing = _differing(first.protocol, other.protocol)
        remarks.append(
            f"Not compared: {first.label} and {other.label}, whose protocols differ in "
            f"{'; '.join(differing)}."
        )
    return Comparison(tables, list(dict.fromkeys(remarks)), over)


def _check_baselines(over, groups):
    known = dict.fromkeys([*BASELINES, *(g.name for g in groups)])
    known |= dict.fromkeys(group.method for group in groups)
    for name in over:
        if groups and name not in known:
            raise ValueError(
                "Invalid value for argument `over`. Expected names of configurations "
                f"or methods among {', '.join(known)}. Received: over={name!r}."
            )


def _differing(first, second):
    return [
        f"{key} ({first.get(key, 'None')}, {second.get(key, 'None')})"
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]


def _grouped(items, key):
    groups = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _label(paths):
    parents = {path.parent for path in paths}
    if len(parents) == 1 and all(path.name.startswith("seed_") for path in paths):
        return str(parents.pop())
    return str(paths[0]) + (f" +{len(paths) - 1}" if len(paths) > 1 else "")


def _rows(groups, over, remarks):
    rows = []
    for group in groups:
        if len(set(group.seeds)) < len(group.seeds):
            remarks.append(f"{group.label}: a seed occurs twice, {group.seeds}.")
        known = paper_values.find(group.runs[0].results, group.runs[0].settings)
        for what in [*group.networks, *SUMMARIES]:
            rows.append(
                Row(
                    group.label,
                    group.method,
                    what,
                    group.networks.get(what, {}).get("parameters"),
                    group.accuracies(what),
                    _gains(group, what, groups, over, remarks),
                    known.get(what),
                )
            )
    if len({len(group.seeds) for group in groups}) > 1:
        remarks.append("The numbers of seeds differ between configurations.")
    return rows


def _gains(group, what, groups, over, remarks):
    found = {}
    for name in over:
        candidates = _candidates(name, group, what, groups)
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
        difference = gain(group.accuracies(what), baseline.accuracies(what))
        if difference is None:
            remarks.append(
                f"{group.label} and {baseline.label} have no seed in common."
            )
            continue
        if set(group.seeds) != set(baseline.seeds):
            remarks.append(
                f"{group.label} has seeds {_list(group.seeds)}, {baseline.label} "
                f"{_list(baseline.seeds)}: gains are over those in common."
            )
        found[name] = difference
    return found


def _candidates(name, group, what, groups):
    """Find baselines: of the same networks, or the same network in less company."""
    every = [other for other in groups if other.name == name]
    every = every or [other for other in groups if other.method == name]
    same = [other for other in every if list(other.networks) == list(group.networks)]
    if same:
        return same
    return [
        other
        for other in every
        if what in other.networks
        # Vanilla networks learn alone, whatever is beside them.
        and (other.method == "vanilla" or set(other.networks) < set(group.networks))
    ]


def _list(seeds):
    return ", ".join(map(str, seeds))
