"""Where a run comes from: its configuration, its command, its data."""

import dataclasses
import hashlib
import inspect
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from afd_tf.errors import invalid
from afd_tf.files import write_json
from afd_tf.runs import settings_text
from afd_tf.runs.run_directory import LOCATION

_NO_SETTINGS = ("workdir", "dry_run", "provenance")
_IDENTITY = {
    "num_classes": int,
    "class_names": [str],
    "image_shape": [int],
    "train_examples": int,
    "mean": [float],
    "std": [float],
    "digests": {"train": str, "evaluation": str},
}
_DATASET = {
    **_IDENTITY,
    "name": str,
    "description": str,
    "test_examples": int,
    "evaluated_split": str,
    "batch_size": int,
    "steps_per_epoch": int,
    "augmentation": (dict, type(None)),
    "seed": int,
    "split_seed": int,
    "in_memory": bool,
    "resize": (int, type(None)),
    "test_split": (str, type(None)),
    "test_fraction": float,
}


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What is recorded of how a run came about.

    Attributes:
        config: str, the configuration in gin syntax.
        operative_config: callable that returns every parameter in use as gin text.
        command: str, what was typed.
    """

    config: str
    operative_config: Callable[[], str]
    command: str

    @classmethod
    def from_arguments(cls, function, arguments):
        """Describe a run started from Python by what its function was given.

        Args:
            function: callable, `train`.
            arguments: dict from parameter to value.
        """
        parameters = inspect.signature(function).parameters
        settings = {
            name: value
            for name, value in arguments.items()
            # The default parts of the library go without saying.
            if name not in _NO_SETTINGS
            and not (callable(value) and value is parameters[name].default)
        }
        text = settings_text.from_arguments(settings)
        return cls(text, lambda: text, command_line(sys.argv[0], sys.argv[1:]))


def command_line(program, arguments):
    """Write a command as a shell takes it."""
    return shlex.join([Path(program).name, *arguments])


def agree(workers, config, info, source):
    """Check that all workers train the same; each must call it at the same point.

    Args:
        workers: Workers.
        config: str, the configuration in gin syntax.
        info: DataInfo.
        source: `Source` or None.

    Raises:
        ValueError: on all workers, if one has other settings, data or another source.
    """
    settings = settings_text.statements(config)
    own = {
        "settings": sorted((k, v) for k, v in settings.items() if k not in LOCATION),
        "data": [data_digest(info), info.digests],
        "source": source and source.record["sha256"],
    }
    digests = [_digest(value) for value in own.values()]
    totals = workers.total(*digests)
    for what, digest, total in zip(own, digests, totals, strict=True):
        if total != workers.count * digest:
            raise ValueError(
                f"Workers have different {what}. Expected the same command on all, but "
                "for --task and what tells where data is. Received by worker "
                f"{workers.index}: others than a worker beside it."
            )


def _digest(value):
    text = json.dumps(value, default=str)
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def data_digest(info):
    """Return a SHA-256 that runs on the same images and classes have in common.

    Args:
        info: DataInfo.

    Returns:
        str of 64 hexadecimal digits; of classes, shape, numbers of examples and the
        images' mean and standard deviation.
    """
    keys = [key for key in _IDENTITY if key != "digests"]
    known = {key: getattr(info, key) for key in (*keys, "test_examples")}
    for key in ("mean", "std"):
        known[key] = [round(float(value), 6) for value in known[key]]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def record_dataset(run, info):
    """Write down what the data is, or check that it is what the run began with.

    Export needs no data because of this, and data that changed behind a run's back is
    found out.

    Args:
        run: RunDirectory.
        info: DataInfo.

    Raises:
        ValueError: if the data is not that of the run's earlier epochs.
    """
    record = json.loads(json.dumps(dataclasses.asdict(info)))
    if not run.dataset.exists():
        write_json(run.dataset, record)
        return
    earlier = read_dataset(run)
    changed = [key for key in _IDENTITY if earlier[key] != record[key]]
    if "digests" in changed:
        changed.remove("digests")
        changed += [
            f"{split} images or labels"
            for split, digest in record["digests"].items()
            if earlier["digests"][split] != digest
        ]
    if changed:
        raise invalid(
            "data_dir",
            f"the data that the run in {run.path} began with",
            received=f"other {', '.join(changed)}",
        )


def read_dataset(run):
    """Return the dict that `record_dataset` wrote.

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    record = run.read_record(run.dataset, _DATASET)
    shape = record["image_shape"]
    if (
        len(shape) != 3
        or min(shape) < 1
        or record["num_classes"] != len(record["class_names"])
    ):
        raise ValueError(
            f"Damaged description of the data {str(run.dataset)!r}: image_shape is "
            f"{shape}, num_classes {record['num_classes']} with "
            f"{len(record['class_names'])} names."
        )
    return {key: record[key] for key in _DATASET}
