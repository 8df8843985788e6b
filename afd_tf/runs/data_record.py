"""Record of a run's data: what it is, and whether it is still the same."""

import dataclasses
import hashlib
import json

from afd_tf.errors import InvalidValue, invalid
from afd_tf.files import write_json

_IDENTITY = {
    "num_classes": int,
    "class_names": [str],
    "image_shape": [int],
    "train_examples": int,
    "mean": [float],
    "std": [float],
    "digests": {"train": str, "evaluation": str},
}

# What else export hands on.
_RECORD = {
    **_IDENTITY,
    "name": str,
    "description": str,
    "resize": (int, type(None)),
    "test_split": (str, type(None)),
    "test_fraction": float,
    "split_seed": int,
}


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


def record_data(run, info):
    """Write down what the data is, or check that it is what the run began with.

    Export needs no data because of this, and data that changed between two starts is
    noticed.

    Args:
        run: RunDirectory.
        info: DataInfo.

    Raises:
        InvalidValue: if the data is not that of the run's earlier epochs, or their
            record is missing.
    """
    record = json.loads(json.dumps(dataclasses.asdict(info)))
    if run.is_new(run.dataset):
        write_json(run.dataset, record)
        return
    earlier = read_data(run)
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


def read_data(run):
    """Return the dict that `record_data` wrote: the fields of a `DataInfo`.

    Raises:
        InvalidValue: if there is none, or it is damaged.
    """
    record = run.read_record(run.dataset, _RECORD)
    shape, names = record["image_shape"], record["class_names"]
    if len(shape) != 3 or min(shape) < 1 or record["num_classes"] != len(names):
        raise InvalidValue(
            f"Damaged record of the data {str(run.dataset)!r}: image_shape is {shape}, "
            f"num_classes {record['num_classes']} with {len(names)} names."
        )
    return record
