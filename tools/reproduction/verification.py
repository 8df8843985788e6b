"""Runs a finished run again and compares everything that must come out the same."""

import tempfile
from pathlib import Path

from afd_tf.runs.run_directory import RunDirectory
from afd_tf.text import printable
from reproduction.cells import Cell, settings
from reproduction.execution import Execution
from reproduction.runs import RECORDED, Run, metrics

_DIGEST = "weights_sha256"
# What is not compared, but may be why something differs.
_CAUSES = ("data_sha256", "commit", "earlier_commits")


def find_run(name, folders):
    """Find a finished run by its path, or by the name of its cell (its first seed).

    Args:
        name: str.
        folders: paths in which cells are looked for.

    Raises:
        ValueError: if there is none.
    """
    candidates = [Path(name)]
    for folder in folders:
        candidates += [folder / name, *sorted((folder / name).glob("seed_*"))]
    for candidate in candidates:
        if all((candidate / file).is_file() for file in RECORDED):
            return candidate
    places = ", ".join(str(folder) for folder in folders)
    raise ValueError(
        "Invalid value for argument `verify`. Expected a finished run's directory "
        f"(with {', '.join(RECORDED)}) or a cell that has one in {places}. Received: "
        f"verify={name!r}."
    )


def is_deterministic(run):
    """Return whether a run must come out the same to the bit."""
    return bool(settings([str(Path(run) / "config.gin")]).get("deterministic"))


def verify(run):
    """Run a run's configuration again, in a temporary directory, and compare.

    Args:
        run: path of a folder with `RECORDED`.

    Returns:
        list of str, each something that differs: accuracies, losses, rows of metrics
        (but for the time), the SHA-256 of the weights; then what may be the cause, of
        data, commit and versions what differs. Empty if all is the same.

    Raises:
        ValueError: naming the file, if one of the run is damaged.
    """
    seed = _results(run)["seed"]
    with tempfile.TemporaryDirectory() as folder:
        cell = Cell("again", (str(run / "config.gin"),))
        again = Run(cell, seed, Path(folder))
        failed = Execution([again]).execute()
        if failed:
            return [f"cannot be run again: {failed[again.name]}"]
        return differences(run, again.path)


def differences(before, after):
    """Compare two finished runs of one configuration; see `verify`."""
    old, new = _results(before), _results(after)
    found = []
    for part in ("networks", "mean", "ensemble"):
        if old[part] != new[part]:
            found.append(f"{part}: {old[part]} before, {new[part]} now")
    for row, again in zip(metrics(before), metrics(after), strict=False):
        columns = [c for c in row if c != "seconds" and row[c] != again.get(c)]
        if columns:
            column = columns[0]
            found.append(
                f"metrics.csv, epoch {row['epoch']}, {column}: {row[column]} before, "
                f"{again.get(column)} now"
            )
            break
    if len(metrics(before)) != len(metrics(after)):
        rows = [len(metrics(folder)) for folder in (before, after)]
        found.append(f"metrics.csv: {rows[0]} rows before, {rows[1]} now")
    if old.get(_DIGEST) != new[_DIGEST]:
        found.append(f"{_DIGEST}: {old.get(_DIGEST)} before, {new[_DIGEST]} now")
    found += _causes(old, new) if found else []
    return [printable(difference) for difference in found]


def _causes(old, new):
    """List what two results tell of how they came about, where they differ."""
    before, now = map(_origin, (old, new))
    return [
        f"{key}: {before.get(key)} before, {now.get(key)} now"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]


def _origin(results):
    versions = results.get("versions")
    return {
        **{key: results.get(key) for key in _CAUSES},
        **(versions if isinstance(versions, dict) else {}),
    }


def _results(folder):
    return RunDirectory(folder).read_results()
