"""Evaluation of an exported network on a test set."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from afd_tf import data
from afd_tf.devices.failures import one_line
from afd_tf.errors import InvalidValue, invalid, lookup
from afd_tf.exports.formats import FORMATS
from afd_tf.exports.preprocessing import preprocessing_file, read_preprocessing
from afd_tf.files import read_json

_NEEDED = {
    "dataset": str,
    "image_shape": [int],
    "mean": (float, list),
    "std": (float, list),
    "class_names": [str],
}


class Evaluation(NamedTuple):
    """Accuracy of an export as a fraction, its loss in nats per example."""

    name: str
    dataset: str
    split: str
    examples: int
    accuracy: float
    loss: float


def evaluate_export(path, dataset=None, data_dir=None, batch_size=256):
    """Evaluate an exported network on a test set.

    Args:
        path: what `afd_tf.export` wrote.
        dataset: str, default what the network was trained on, split as it was then.
        data_dir: path of the data.
        batch_size: int, images at a time.

    Returns:
        Evaluation.

    Raises:
        InvalidValue: if there is no export, it is damaged, or the data does not fit it.
    """
    path = Path(path)
    described = _described(path)
    height, width, channels = described["image_shape"]
    run = _runner(path)
    split = () if dataset else ("test_split", "test_fraction", "split_seed")
    _, test, info = data.load(
        dataset or described["dataset"],
        batch_size=1,
        data_dir=data_dir,
        image_size=(height, width),
        resize=described.get("resize"),
        channels=channels,
        mean=described["mean"],
        std=described["std"],
        **{key: described[key] for key in split if key in described},
    )
    if list(info.class_names) != described["class_names"]:
        raise invalid(
            "dataset",
            f"the classes of the export, {len(described['class_names'])} of them",
            received=f"dataset={info.name!r} with {info.num_classes} classes of other "
            "names",
        )
    losses, correct = [], []
    for images, labels in test.unbatch().batch(batch_size).as_numpy_iterator():
        logits = run(images)
        if logits.shape != (len(labels), info.num_classes):
            raise _unusable(path, f"it gives an array of shape {logits.shape}")
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_sums = np.log(np.exp(shifted).sum(axis=-1))
        losses.append(log_sums - shifted[np.arange(len(labels)), labels])
        correct.append(logits.argmax(axis=-1) == labels)
    return Evaluation(
        name=str(described.get("network", path.stem)),
        dataset=info.name,
        split=info.evaluated_split,
        examples=info.test_examples,
        accuracy=float(np.concatenate(correct).mean()),
        loss=float(np.concatenate(losses).mean()),
    )


def _described(path):
    """Return the export's preprocessing, with all that evaluation needs."""
    if not path.exists():
        received = f"model={str(path)!r}, which does not exist"
        raise invalid("model", "an exported network", received=received)
    described = read_preprocessing(path)
    lacking = [key for key in _NEEDED if key not in (described or {})]
    if described is None or lacking:
        file = preprocessing_file(path, folder=path.is_dir())
        what = f"{', '.join(lacking)} in it" if described is not None else "this file"
        raise invalid(
            "model",
            f"an exported network with {str(file)!r}, which says how to feed it",
            received=f"model={str(path)!r} without {what}",
            hint="Export it by afd-export, or from Python by afd_tf.export(network, "
            "path, info), with the info that afd_tf.data.load returned.",
        )
    file = preprocessing_file(path, folder=path.is_dir())
    described |= read_json(file, _NEEDED, "description of the export")
    if len(described["image_shape"]) != 3:
        raise InvalidValue(
            f"Damaged description of the export {str(file)!r}: image_shape is "
            f"{described['image_shape']}, not (height, width, channels)."
        )
    return described


def _runner(path):
    """Return a function from images to logits as a float64 array."""
    suffixes = {kind.suffix: kind for kind in FORMATS.values()}
    ending = "" if path.is_dir() else path.suffix
    # The longest, as one may be the end of another.
    fitting = [s for s, kind in suffixes.items() if s and kind.is_name(path)]
    kind = lookup("model", max([ending, *fitting], key=len), suffixes)
    # Runtimes raise whatever a damaged file, or one of somebody else, leads to.
    try:
        call = kind.load(path)
    except Exception as error:
        raise _unusable(path, one_line(error)) from error

    def run(images):
        try:
            logits = call(images)
            return np.asarray(keras.ops.convert_to_numpy(logits), np.float64)
        except Exception as error:
            raise _unusable(path, one_line(error)) from error

    return run


def _unusable(path, reason):
    return invalid(
        "model",
        "an exported network, whole and without code of its own",
        received=f"model={str(path)!r} ({reason})",
    )
