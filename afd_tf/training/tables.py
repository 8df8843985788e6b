"""Results as tables: of one run, or of many with their deviation over seeds."""

import json
from pathlib import Path
from typing import NamedTuple

from afd_tf.training import settings_text
from afd_tf.training.formatting import layout, percent
from afd_tf.training.run_directory import LOCATION, RunDirectory


def run_table(results):
    """Lay out one run's results, the content of `results.json`, as text."""
    rows = [["network", "parameters", "accuracy"]]
    for name, values in results["networks"].items():
        rows.append([name, f"{values['parameters']:,}", percent([values["accuracy"]])])
    rows.append(["mean", "", percent([results["mean"]["accuracy"]])])
    rows.append(["ensemble", "", percent([results["ensemble"]["accuracy"]])])
    return layout(rows)


class Run(NamedTuple):
    """A finished run: its path, its results and the configuration it has in common."""

    path: Path
    results: dict
    key: tuple


def compare(paths):
    """Put runs into one table; those that differ in nothing but the seed together.

    Args:
        paths: iterable of paths of run directories; one given twice counts once.

    Returns:
        str, the table ("" if no run is finished), and a list of str, remarks on runs
        that are not in it and on what cannot be compared.
    """
    runs, remarks = [], []
    distinct = {}
    for path in map(Path, paths):
        distinct.setdefault(path.expanduser().resolve(), path)
    for path in distinct.values():
        run = RunDirectory(path)
        if not run.config.is_file():
            remarks.append(f"{path}: not a run, it has no config.gin.")
        elif not run.results.is_file():
            epochs = _epochs_done(run)
            remarks.append(f"{path}: not finished, {epochs} epochs done.")
        else:
            runs.append(Run(path, json.loads(run.results.read_text()), _key(run)))
    groups = {}
    for run in runs:
        groups.setdefault(run.key, []).append(run)
    rows = [row for group in groups.values() for row in _rows(group, remarks)]
    if len({len(group) for group in groups.values()}) > 1:
        remarks.append("The numbers of seeds differ between configurations.")
    if not rows:
        return "", remarks
    headings = ["runs", "dataset", "method", "epochs", "seeds"]
    return layout([[*headings, "network", "parameters", "accuracy"], *rows]), remarks


def _epochs_done(run):
    if not run.metrics.is_file():
        return 0
    return len(run.metrics.read_text(encoding="utf-8").splitlines()) - 1


def _key(run):
    statements = settings_text.statements(run.config.read_text(encoding="utf-8"))
    ignored = ("train.seed", *LOCATION)
    return tuple(sorted((k, v) for k, v in statements.items() if k not in ignored))


def _rows(group, remarks):
    seeds = [run.results["seed"] for run in group]
    label = _label([str(run.path) for run in group])
    if len(set(seeds)) < len(seeds):
        remarks.append(f"{label}: a seed occurs twice, {sorted(seeds)}.")
    first = group[0].results
    dataset = first["dataset"]
    if float(dict(group[0].key).get("train.validation", 0)):
        dataset += " (validation)"
    head = [label, dataset, first["method"], str(first["epoch"]), str(len(seeds))]
    for name, values in first["networks"].items():
        accuracies = [run.results["networks"][name]["accuracy"] for run in group]
        yield [*head, name, f"{values['parameters']:,}", percent(accuracies)]
        head = [""] * len(head)
    for what in ("mean", "ensemble"):
        accuracies = [run.results[what]["accuracy"] for run in group]
        yield [*head, what, "", percent(accuracies)]


def _label(paths):
    return paths[0] if len(paths) == 1 else f"{paths[0]} +{len(paths) - 1}"
