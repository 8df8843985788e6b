"""Finished runs, read from their directories and grouped by configuration."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from afd_tf.errors import InvalidValue, Mistake
from afd_tf.files import read_text
from afd_tf.results.protocol import protocol
from afd_tf.runs import configuration
from afd_tf.runs.run_directory import LOCATION, RunDirectory
from afd_tf.text import counted

# Summaries beside the networks.
SUMMARIES = ("mean", "ensemble")
# Neither the training nor its result depends on them, but for last digits: where things
# are kept, how fast it goes, what is measured beside it.
IMMATERIAL = (
    "train.seed",
    "train.deterministic",
    "train.evaluate_every",
    "train.steps_per_execution",
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

    @property
    def peers(self):
        """Whether its networks learn from each other."""
        parts = self.results["parts"]
        return (parts["kl"] or parts["maps"]) and not parts["source"]


class Group:
    """Runs that differ in nothing but the seed.

    Args:
        runs: list of Run.
        shared: folders, resolved, in which others have runs too.

    Attributes:
        runs: list of Run, by seed.
        label: str, where they are; no two groups have the same.
        name: str, the name of the folder of the seeds' runs, or of the run.
        protocol: dict of setting to text.
        method: str.
        networks: dict of network to what `results.json` has of it.
    """

    def __init__(self, runs: list[Run], shared=()):
        self.runs = sorted(runs, key=lambda run: run.results["seed"])
        self.label, self.name = _label([run.path for run in self.runs], shared)
        self.protocol = protocol(runs[0])
        self.method = runs[0].results["method"]
        self.networks = runs[0].results["networks"]

    @property
    def independent(self):
        """Whether a network is the same whatever other networks are beside it."""
        return not self.runs[0].peers

    @property
    def seeds(self):
        """List of int."""
        return [run.results["seed"] for run in self.runs]

    def accuracies(self, network):
        """Return the fraction of each seed, of a network or one of `SUMMARIES`."""
        return {
            run.results["seed"]: (
                run.results if network in SUMMARIES else run.results["networks"]
            )[network]["accuracy"]
            for run in self.runs
        }


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
        for folder in _run_directories(path):
            distinct.setdefault(folder.expanduser().resolve(), folder)
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
        except Mistake as error:
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
    statements = configuration.statements(run.read_config())
    try:
        float(statements.get("train.validation", 0))
    except ValueError as error:
        raise InvalidValue(
            f"Damaged configuration {str(run.config)!r}: train.validation is no number."
        ) from error
    if source := statements.get("train.source"):
        # Runs of one configuration may each learn from the run of their own seed; those
        # that all learn from one are another configuration.
        own = re.compile(rf"""(?<=[/\\'"])seed_{seed}(?=[/\\'"])""")
        statements["train.source"] = own.sub("seed_<n>", source)
    # A setting that is None is as good as one that did not exist yet.
    return {k: v for k, v in statements.items() if k not in IMMATERIAL and v != "None"}


def configurations(runs, remarks):
    """Put the seeds of each configuration together.

    Args:
        runs: list of Run.
        remarks: list of str, to which is added which folders hold runs of several.

    Returns:
        list of Group.
    """
    by_identity = grouped(runs, _identity)
    shared = _shared(by_identity)
    groups = [Group(own, shared) for own in by_identity]
    for folder, numbers in shared.values():
        several = [groups[number] for number in sorted(numbers)]
        settings = differing(*(_identity(group.runs[0]) for group in several))
        remarks.append(
            f"{folder} holds runs of different settings: "
            f"{', '.join(group.label for group in several)} differ in {settings}."
        )
    return groups


def grouped(items, settings):
    """Put items together of which a function returns equal dicts of text."""
    groups = {}
    for item in items:
        groups.setdefault(tuple(sorted(settings(item).items())), []).append(item)
    return list(groups.values())


def differing(*settings):
    """Write where dicts of text differ, with all values: `a (1, 2); b (3, 4)`."""
    parts = []
    for key in sorted(set().union(*settings)):
        values = [each.get(key, "None") for each in settings]
        if len(set(values)) > 1:
            parts.append(f"{key} ({', '.join(values)})")
    return "; ".join(parts)


def _identity(run):
    """Return all in which seeds of one configuration agree, a dict of text."""
    return {
        **run.settings,
        **protocol(run),
        # Networks have to be the same where a file was changed by hand, too.
        "the networks": " and ".join(run.results["networks"]),
        # Each replica normalises with the statistics of its own part of a batch.
        "the number of replicas": str(run.results["replicas"]),
    }


def _shared(configurations):
    """Find the folders of seeds in which several configurations have runs.

    Args:
        configurations: list of lists of Run.

    Returns:
        dict of resolved folder to (the folder as it was given, set of int, which
        configurations).
    """
    folders = {}
    for number, runs in enumerate(configurations):
        for path in (run.path for run in runs):
            # A run's own directory, too: the runs of others may lie in it.
            for folder in (path, path.parent) if _is_seed(path) else (path,):
                resolved = folder.expanduser().resolve()
                folders.setdefault(resolved, (folder, set()))[1].add(number)
    return {key: value for key, value in folders.items() if len(value[1]) > 1}


def _is_seed(path):
    return path.name.startswith("seed_")


def _label(paths, shared):
    """Return what to call the runs in a table, and the name of their configuration."""
    parents = {path.parent for path in paths}
    if len(parents) == 1 and all(map(_is_seed, paths)):
        [folder] = parents
        if folder.expanduser().resolve() not in shared:
            return str(folder), folder.name
        seeds = ",".join(path.name.removeprefix("seed_") for path in paths)
        seeds = f"{{{seeds}}}" if len(paths) > 1 else seeds
        return str(folder / f"seed_{seeds}"), folder.name
    label = str(paths[0]) + (f" +{len(paths) - 1}" if len(paths) > 1 else "")
    return label, Path(label).name


def short_labels(labels):
    """Return what is left of each label without the folder that they have in common."""
    try:
        folder = os.path.commonpath([Path(label).parent for label in labels])
    except ValueError:  # absolute and relative ones
        return {label: label for label in labels}
    return {label: str(Path(label).relative_to(folder)) for label in labels}
