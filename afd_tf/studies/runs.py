"""Runs of a study: their commands, their progress, and the time that is left."""

import csv
import dataclasses
import functools
import io
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

from afd_tf.errors import InvalidValue
from afd_tf.files import read_text
from afd_tf.results.finished_runs import IMMATERIAL
from afd_tf.runs.run_directory import RunDirectory

_SOURCE = "train.source"
# What is kept of a run for good: small files of text.
RECORDED = ("results.json", "metrics.csv", "config.gin")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A configuration of a study. With a seed it is a run.

    Attributes:
        name: str, the name of its directory.
        files: tuple of configuration files, later ones winning.
        read: callable from a list of files and one of statements to a dict of setting,
            such as "train.epochs", to value.
        params: tuple of statements, which win over the files.
        source: name of the cell whose run of the same seed it learns from, or None.
    """

    name: str
    files: tuple
    read: Callable
    params: tuple = ()
    source: str | None = None

    @functools.cached_property
    def settings(self):
        """Dict of setting to value, as the files and statements have it."""
        return self.read(list(self.files), list(self.params))

    def setting(self, name):
        """Return the value of `train.<name>`, or None."""
        return self.settings.get(f"train.{name}")


@dataclasses.dataclass(frozen=True)
class Run:
    """One cell with one seed.

    Attributes:
        cell: Cell.
        seed: int.
        output: path of the folder of all runs.
        record: path of the folder that the small files are copied to, or None.
    """

    cell: Cell
    seed: int
    output: Path
    record: Path | None = None

    @property
    def name(self):
        """Str, e.g. "dml/seed_0"."""
        return f"{self.cell.name}/seed_{self.seed}"

    @property
    def path(self):
        """Path of the run directory."""
        return self.output / self.name

    @property
    def log(self):
        """Path of what the run prints, beside its directory."""
        return self.path.with_suffix(".log")

    @property
    def source(self):
        """Path of the run directory that this run learns from, or None."""
        if self.cell.source is None:
            return None
        return self.output / self.cell.source / f"seed_{self.seed}"

    def arguments(self):
        """Return the arguments of `afd-train`; the same for every start."""
        params = list(self.cell.params)
        if self.source:
            params.append(f"{_SOURCE} = {str(self.source)!r}")
        return [
            *(f"--gin_file={file}" for file in self.cell.files),
            *(f"--gin_param={param}" for param in params),
            f"--seed={self.seed}",
            f"--workdir={self.path}",
        ]

    @property
    def kept(self):
        """Path of the record if it has results, else of the run's folder.

        So that all seeds of a cell are in one folder, wherever they were computed.
        """
        if self.record and (self.record / self.name / "results.json").is_file():
            return self.record / self.name
        return self.path

    @property
    def finished(self):
        """Whether there are results."""
        return (self.kept / "results.json").is_file()

    def check_settings(self):
        """Check that a finished run is one of the settings that it would have now.

        Settings that did not exist when it ran are not compared, nor those that it
        alone has and that change no result.

        Raises:
            InvalidValue: naming a setting that differs.
        """
        if not self.finished:
            return
        file = self.kept / "config.gin"
        recorded = self.cell.read([str(file)], [])
        current = {**self.cell.settings, "train.seed": self.seed}
        recorded_alone = {
            name
            for name, value in recorded.items()
            if name not in {*current, *IMMATERIAL, _SOURCE} and value is not None
        }
        for name in [*current, *sorted(recorded_alone)]:
            wanted = current.get(name)
            if name != _SOURCE and recorded.get(name, wanted) != wanted:
                raise InvalidValue(
                    f"Invalid finished run {self.name}. Expected one of the settings "
                    f"that it would have now, {name} = {wanted!r}. "
                    f"Received: {recorded[name]!r} in {file}. "
                    f"Take another --output, or remove {self.kept} to run it again."
                )

    def results(self):
        """Return the content of `results.json`.

        Raises:
            InvalidValue: naming the file, if it is damaged.
        """
        return RunDirectory(self.kept).read_results()

    def keep(self):
        """Copy the small files of the finished run to the record."""
        if self.record and (self.path / "results.json").is_file():
            target = self.record / self.name
            target.mkdir(parents=True, exist_ok=True)
            # The results last: with them, a record is complete.
            for file in reversed(RECORDED):
                shutil.copyfile(self.path / file, target / file)

    def progress(self):
        """Return epochs done and the seconds that they took."""
        rows = metrics(self.kept)
        if not rows:
            return 0, 0.0
        return int(rows[-1]["epoch"]), float(rows[-1]["seconds"])

    def status(self):
        """Return how far the run is, for people: str."""
        if self.finished:
            return "finished"
        done, _ = self.progress()
        if done:
            return f"epoch {done} of {self.cell.setting('epochs')}"
        return "begun" if (self.path / "config.gin").is_file() else "to do"


def metrics(folder):
    """Read `metrics.csv`.

    Args:
        folder: path of a run directory, or of what is kept of one.

    Returns:
        list of a dict of str per epoch, with at least "epoch" and "seconds", which are
        numbers; [] if there is none.

    Raises:
        InvalidValue: naming the file, if it is damaged.
    """
    path = Path(folder) / "metrics.csv"
    if not path.is_file():
        return []
    text = read_text(path, "metrics")
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
        for row in rows:
            _ = int(row["epoch"]), float(row["seconds"])
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InvalidValue(
            f"Damaged metrics {str(path)!r}: a row has no epoch and seconds ({error})."
        ) from error
    return rows


def seconds_left(runs, jobs=1):
    """Estimate the time that runs still need, from what their epochs took so far.

    An epoch of a cell takes what those of its runs took; of a cell of which nothing
    has run, what epochs of the other cells took on average.

    Args:
        runs: list of Run.
        jobs: int, runs at a time.

    Returns:
        float, seconds; None as long as nothing was measured. Runs at a time share a
        machine: their epochs are slower, which what was measured has in it.
    """
    progress = [run.progress() for run in runs]
    speeds = {}
    for run, (epochs, seconds) in zip(runs, progress, strict=True):
        if epochs:
            speeds.setdefault(run.cell.name, []).append(seconds / epochs)
    if not speeds:
        return None
    means = {name: statistics.mean(values) for name, values in speeds.items()}
    other = statistics.mean(means.values())
    left = sum(
        (run.cell.setting("epochs") - epochs) * means.get(run.cell.name, other)
        for run, (epochs, _) in zip(runs, progress, strict=True)
        if not run.finished
    )
    return left / jobs
