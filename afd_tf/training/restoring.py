"""From a run to one network, and from an exported network to its accuracy."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from afd_tf import data
from afd_tf.devices.failures import one_line
from afd_tf.errors import lookup
from afd_tf.exports import preprocessing_file, read_preprocessing
from afd_tf.exports.formats import FORMATS
from afd_tf.files import read_json, write_json
from afd_tf.runs.provenance import read_dataset
from afd_tf.training.callbacks.saving import load
from afd_tf.training.checkpoints import Checkpoints, no_checkpoint
from afd_tf.training.state import NETWORK, by_place, write_all

_NEEDED = {
    "dataset": str,
    "image_shape": [int],
    "mean": (float, list),
    "std": (float, list),
    "class_names": [str],
}


def record_networks(run, distiller):
    """Write down the networks' architectures: export needs nothing else to build them.

    Args:
        run: RunDirectory.
        distiller: OnlineDistiller.
    """
    if run.networks.exists():
        return
    pairs = zip(distiller.network_names, distiller.networks, strict=True)
    write_json(run.networks, {name: _architecture(network) for name, network in pairs})


def _architecture(network):
    try:
        config = keras.saving.serialize_keras_object(network)
        json.dumps(config)
    except (NotImplementedError, TypeError, ValueError):
        # Keras raises these for a layer of the user's own without `get_config`, or with
        # one that JSON cannot hold; export of such a run says what to do.
        return None
    return config


def restore_network(run, wanted=None):
    """Build one network of a run and load its newest weights; needs no data.

    Args:
        run: RunDirectory.
        wanted: str, the network's name; None: the one with the fewest parameters.

    Returns:
        keras.Model, its name in the run, and the `Position` of the checkpoint.

    Raises:
        ValueError: if there is no such network (the nearest is suggested), no
            checkpoint, or the network cannot be built from its description.
    """
    described = run.read_record(run.networks, {str: (dict, type(None))})
    if wanted is not None:
        described = {wanted: lookup("network", wanted, described)}
    built: dict[str, Any] = {n: _build(run, n, c) for n, c in described.items()}
    if wanted is None:
        wanted = min(built, key=lambda name: built[name].count_params())
    return built[wanted], wanted, load_network(run, wanted, built[wanted])


def _build(run, name, config):
    try:
        if config is None:
            raise TypeError("it has a layer without get_config()")
        return keras.saving.deserialize_keras_object(config, safe_mode=True)
    except (TypeError, ValueError, ImportError) as error:
        raise ValueError(
            f"Network '{name}' of {run.path} cannot be built from what Keras wrote down"
            f" of it: {str(error).splitlines()[0]}. Import what defines its layers, "
            "registered by keras.saving.register_keras_serializable()."
        ) from error


def load_network(run, name, network):
    """Load one network of a run from the newest checkpoint.

    Args:
        run: RunDirectory.
        name: str, what the run calls the network.
        network: keras.Model of the same architecture; its variables are set.

    Returns:
        Position of the checkpoint.

    Raises:
        ValueError: if there is no checkpoint, or none of such a network.
    """
    part = f"{NETWORK}/{name}/"
    found = Checkpoints(run.checkpoints).newest(part)
    if found is None:
        raise no_checkpoint(run.path)
    variables = {part + k: v for k, v in by_place(network.variables).items()}
    load(found, lambda values: write_all(values, variables))
    return found.position


def preprocessing(run, dataset, name, epoch):
    """Describe what an exported network must be fed and what it answers.

    Args:
        run: RunDirectory.
        dataset: str, the run's data set; a path is not handed on.
        name: str, the network's name in the run.
        epoch: int, epochs finished.

    Returns:
        dict that JSON can hold, see `afd_tf.data.DataInfo.preprocessing`.
    """
    info = data.DataInfo(**read_dataset(run))
    known_as = {} if os.sep in dataset else {"dataset": dataset}
    return {"network": name, "epoch": epoch} | info.preprocessing() | known_as


class Report(NamedTuple):
    """How well an export does: accuracy as a fraction, loss in nats per example."""

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
        Report.

    Raises:
        ValueError: if there is no export, it is damaged, or the data does not fit it.
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
        raise ValueError(
            "Invalid value for argument `dataset`. Expected the classes of the export, "
            f"{len(described['class_names'])} of them. Received: dataset="
            f"{info.name!r} with {info.num_classes} classes of other names."
        )
    losses, right = [], []
    for images, labels in test.unbatch().batch(batch_size).as_numpy_iterator():
        logits = run(images)
        if logits.shape != (len(labels), info.num_classes):
            raise _unusable(path, f"it gives an array of shape {logits.shape}")
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_sums = np.log(np.exp(shifted).sum(axis=-1))
        losses.append(log_sums - shifted[np.arange(len(labels)), labels])
        right.append(logits.argmax(axis=-1) == labels)
    return Report(
        name=str(described.get("network", path.stem)),
        dataset=info.name,
        split=info.evaluated_split,
        examples=info.test_examples,
        accuracy=float(np.concatenate(right).mean()),
        loss=float(np.concatenate(losses).mean()),
    )


def _described(path):
    """Return the export's preprocessing, with all that evaluation needs."""
    if not path.exists():
        raise ValueError(
            "Invalid value for argument `model`. Expected an exported network. "
            f"Received: model={str(path)!r}, which does not exist."
        )
    described = read_preprocessing(path)
    lacking = [key for key in _NEEDED if key not in (described or {})]
    if described is None or lacking:
        file = preprocessing_file(path, folder=path.is_dir())
        what = f"{', '.join(lacking)} in it" if described is not None else "this file"
        raise ValueError(
            "Invalid value for argument `model`. Expected an exported network with "
            f"{str(file)!r}, which says how to feed it. Received: model="
            f"{str(path)!r} without {what}. Export it by afd-export, or from Python "
            "by afd_tf.export(network, path, info), with the "
            "info that afd_tf.data.load returned."
        )
    file = preprocessing_file(path, folder=path.is_dir())
    described |= read_json(file, _NEEDED, "description of the export")
    if len(described["image_shape"]) != 3:
        raise ValueError(
            f"Damaged description of the export {str(file)!r}: image_shape is "
            f"{described['image_shape']}, not (height, width, channels)."
        )
    return described


def _runner(path):
    """Return a function from images to logits as a float64 array."""
    suffixes = {kind.suffix: kind for kind in FORMATS.values()}
    kind = lookup("model", "" if path.is_dir() else path.suffix, suffixes)
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
    return ValueError(
        "Invalid value for argument `model`. Expected an exported network, whole and "
        f"without code of its own. Received: model={str(path)!r} ({reason})."
    )
