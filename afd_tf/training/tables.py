"""Results as tables: of one run, or of many with their deviation over seeds."""

from pathlib import Path
from typing import NamedTuple

from afd_tf.files import read_text
from afd_tf.naming import printable
from afd_tf.training import settings_text
from afd_tf.training.run_directory import LOCATION, RunDirectory

_NUMBERS = ("parameters", "accuracy", "loss", "epochs", "seeds")


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
        try:
            if not run.config.is_file():
                remarks.append(f"{path}: not a run, it has no config.gin.")
            elif not run.results.is_file():
                epochs = _epochs_done(run)
                remarks.append(f"{path}: not finished, {epochs} epochs done.")
            else:
                runs.append(Run(path, run.read_results(), _key(run)))
        except ValueError as error:
            remarks.append(f"{path}: {error}")
    groups = {}
    for run in runs:
        # Networks have to be the same where a file was changed by hand, too.
        key = (run.key, tuple(run.results["networks"]))
        groups.setdefault(key, []).append(run)
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
    return len(read_text(run.metrics, "metrics").splitlines()) - 1


def _key(run):
    statements = settings_text.statements(run.read_config())
    ignored = ("train.seed", *LOCATION)
    return tuple(sorted((k, v) for k, v in statements.items() if k not in ignored))


def _rows(group, remarks):
    seeds = [run.results["seed"] for run in group]
    label = _label([str(run.path) for run in group])
    if len(set(seeds)) < len(seeds):
        remarks.append(f"{label}: a seed occurs twice, {sorted(seeds)}.")
    first = group[0].results
    dataset = first["dataset"]
    if dict(group[0].key).get("train.validation", "0").strip("0."):
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


def percent(fractions):
    """Write fractions in percent: one value, or mean +- sample standard deviation."""
    count = len(fractions)
    mean = 100 * sum(fractions) / count
    if count == 1:
        return f"{mean:.2f}"
    variance = sum((100 * fraction - mean) ** 2 for fraction in fractions) / (count - 1)
    return f"{mean:.2f} +- {variance**0.5:.2f}"


def layout(rows):
    """Align rows of str under their headings, the first row; numbers to the right."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row):
        cells = zip(row, widths, rows[0], strict=True)
        return "  ".join(
            cell.rjust(width) if heading in _NUMBERS else cell.ljust(width)
            for cell, width, heading in cells
        ).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])
