"""Finished runs, read for comparison."""

import re
from pathlib import Path
from typing import NamedTuple

from afd_tf.files import read_text
from afd_tf.training import settings_text
from afd_tf.training.formatting import counted
from afd_tf.training.run_directory import LOCATION, RunDirectory

# Neither the training nor its result depends on them, but for last digits: where things
# are kept, how fast it goes, what is measured beside it.
_IGNORED = (
    "train.seed",
    "train.deterministic",
    "train.evaluate_every",
    "train.steps_per_execution",
    "load_data.cache_dir",
    "load_data.memory_limit",
    "load_data.download",
    "OnlineDistiller.checkpointing",
    "compile.gradient_ratio_every",
    "compile.jit_compile",
    "compile.run_eagerly",
    *LOCATION,
)


class Run(NamedTuple):
    """A finished run.

    Attributes:
        path: path of its directory.
        results: dict, the content of `results.json`.
        settings: dict of setting to text, without those that do not matter.
    """

    path: Path
    results: dict
    settings: dict


def finished_runs(paths, remarks):
    """Read the finished runs of some folders.

    Args:
        paths: iterable of paths: run directories, or folders that hold some at any
            depth; what is given twice counts once.
        remarks: list of str, to which is added which runs are left out and why.

    Returns:
        list of Run.
    """
    distinct = {}
    for path in map(Path, paths):
        for found in _run_directories(path):
            distinct.setdefault(found.expanduser().resolve(), found)
    runs = []
    for path in distinct.values():
        run = RunDirectory(path)
        try:
            if not run.config.is_file():
                remarks.append(f"{path}: not a run, it has no config.gin.")
            elif not run.results.is_file():
                epochs = counted(_epochs_done(run), "epoch")
                remarks.append(f"{path}: not finished, {epochs} done.")
            else:
                results = run.read_results()
                runs.append(Run(path, results, _settings(run, results["seed"])))
        except ValueError as error:
            remarks.append(f"{path}: {error}")
    return runs


def _run_directories(path):
    if (path / "config.gin").is_file():
        return [path]
    return sorted(file.parent for file in path.rglob("config.gin")) or [path]


def _epochs_done(run):
    if not run.metrics.is_file():
        return 0
    return len(read_text(run.metrics, "metrics").splitlines()) - 1


def _settings(run, seed):
    statements = settings_text.statements(run.read_config())
    try:
        float(statements.get("train.validation", 0))
    except ValueError as error:
        raise ValueError(
            f"Damaged configuration {str(run.config)!r}: train.validation is no number."
        ) from error
    if source := statements.get("train.source"):
        # Runs of one configuration may each learn from the run of their own seed; those
        # that all learn from one are another configuration.
        own = re.compile(rf"""(?<=[/\\'"])seed_{seed}(?=[/\\'"])""")
        statements["train.source"] = own.sub("seed_<n>", source)
    # A setting that is None is as good as one that did not exist yet.
    return {k: v for k, v in statements.items() if k not in _IGNORED and v != "None"}
