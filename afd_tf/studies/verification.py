"""Verification: a finished run computed again, and all that came out otherwise."""

import tempfile
from pathlib import Path

from afd_tf.errors import invalid
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.studies.execution import Execution
from afd_tf.studies.runs import RECORDED, Cell, Run, metrics
from afd_tf.text import printable

_DIGEST = "weights_sha256"
# What is not compared, but may be why something differs.
_CAUSES = ("data_sha256", "commit", "earlier_commits")


def find_run(name, folders):
    """Find a finished run by its path, or by the name of its cell (its first seed).

    Args:
        name: str.
        folders: paths in which cells are looked for.

    Returns:
        path.

    Raises:
        InvalidValue: if there is none.
    """
    candidates = [Path(name)]
    for folder in folders:
        candidates += [folder / name, *sorted((folder / name).glob("seed_*"))]
    for candidate in candidates:
        if all((candidate / file).is_file() for file in RECORDED):
            return candidate
    places = ", ".join(str(folder) for folder in folders)
    raise invalid(
        "verify",
        f"a finished run's directory (with {', '.join(RECORDED)}) or a cell that has "
        f"one in {places}",
        name,
    )


def is_deterministic(run, read):
    """Return whether a run must come out the same to the bit.

    Args:
        run: path of a folder with `RECORDED`.
        read: callable, see `afd_tf.studies.runs.Cell`.
    """
    settings = read([str(Path(run) / "config.gin")], [])
    return bool(settings.get("train.deterministic"))


def verify(run, read):
    """Run a run's configuration again, in a temporary directory, and compare.

    Args:
        run: path of a folder with `RECORDED`.
        read: callable, see `afd_tf.studies.runs.Cell`.

    Returns:
        list of str, see `differences`.

    Raises:
        InvalidValue: naming the file, if one of the run is damaged.
    """
    seed = RunDirectory(run).read_results()["seed"]
    with tempfile.TemporaryDirectory() as folder:
        cell = Cell("again", (str(run / "config.gin"),), read)
        again = Run(cell, seed, Path(folder))
        failed = Execution([again]).execute()
        if failed:
            return [f"cannot be run again: {failed[again.name]}"]
        return differences(run, again.path)


def differences(before, after):
    """Compare two finished runs of one configuration.

    Args:
        before: path of a folder with `RECORDED`.
        after: the same.

    Returns:
        list of str, each something that differs: accuracies, losses, rows of metrics
        (but for the time), the SHA-256 of the weights; then what may be the cause, of
        data, commit and versions what differs; last the commit by which the run came
        out as it did. Empty if all is the same.
    """
    old, new = (RunDirectory(folder).read_results() for folder in (before, after))
    different = []
    for part in ("networks", "mean", "ensemble"):
        if old[part] != new[part]:
            different.append(f"{part}: {old[part]} before, {new[part]} now")
    different += _metric_differences(metrics(before), metrics(after))
    if old[_DIGEST] != new[_DIGEST]:
        different.append(f"{_DIGEST}: {old[_DIGEST]} before, {new[_DIGEST]} now")
    if different:
        different += _causes(old, new)
        if old["commit"] not in (None, new["commit"]):
            different.append(
                f"The run was computed at commit {old['commit']}. Later commits may "
                "change last bits: verify it there."
            )
    return [printable(difference) for difference in different]


def _metric_differences(before, after):
    """List the first value that differs, and the numbers of rows if they do."""
    different = []
    for row, again in zip(before, after, strict=False):
        columns = [c for c in row if c != "seconds" and row[c] != again.get(c)]
        if columns:
            column = columns[0]
            different.append(
                f"metrics.csv, epoch {row['epoch']}, {column}: {row[column]} before, "
                f"{again.get(column)} now"
            )
            break
    if len(before) != len(after):
        different.append(f"metrics.csv: {len(before)} rows before, {len(after)} now")
    return different


def _causes(old, new):
    """List what two results tell of how they came about, where they differ."""
    before, now = (
        {**{key: results.get(key) for key in _CAUSES}, **results["versions"]}
        for results in (old, new)
    )
    return [
        f"{key}: {before.get(key)} before, {now.get(key)} now"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
