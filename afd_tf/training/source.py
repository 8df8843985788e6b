"""Frozen source: a network that is trained already, from a run or a file."""

import dataclasses
import warnings
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from afd_tf.devices.failures import one_line
from afd_tf.distiller import OnlineDistiller
from afd_tf.errors import choice, inapplicable, invalid
from afd_tf.exports import read_preprocessing
from afd_tf.exports.formats.keras_file import read_keras_file
from afd_tf.files import write_json
from afd_tf.runs.data_record import read_data
from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training import restoring
from afd_tf.training.outcome import weights_digest


@dataclasses.dataclass(frozen=True)
class Source:
    """A frozen source and where it comes from.

    Attributes:
        network: keras.Model from images to logits.
        record: dict for `results.json`: "path", "network" (its name), "accuracy" (a
            fraction, as its own run measured it; None if that is not known) and
            "sha256" of its weights.
        preprocessing: dict, the "class_names", "image_shape", "mean" and "std" of its
            own data, or {} if they are not known.
    """

    network: keras.Model
    record: dict
    preprocessing: dict


def load_source(path, wanted=None, trusted=True):
    """Load a trained network.

    Of a run and of a `.keras` file nothing is executed (Keras' safe mode). The graph of
    a SavedModel is, and it can read and write files.

    Args:
        path: str or path of a finished run's directory, of a `.keras` file (a network
            or a whole `OnlineDistiller`), or of a SavedModel.
        wanted: str, which network; needed where there are several.
        trusted: bool, whether it may be a SavedModel.

    Returns:
        Source.

    Raises:
        InvalidValue: if there is nothing of these, or it is not clear which network.
    """
    path = Path(path).expanduser()
    known = {}
    if (path / "config.gin").is_file():
        network, name, accuracy, known = _of_run(RunDirectory(path), wanted)
    else:
        accuracy = None
        network, name = _of_file(path, wanted, trusted)
        known = read_preprocessing(path) or {}
    record = {
        "path": str(path),
        "network": name,
        "accuracy": accuracy,
        "sha256": weights_digest([network]),
    }
    return Source(network, record, known)


def _of_run(run, wanted):
    if not run.results.is_file():
        raise _error("a run that is finished", run.path, "has no results.json")
    results = run.read_results()
    name = _choose(run.path, results["networks"], wanted)
    network, _, _ = restoring.restore_network(run, name)
    accuracy = results["networks"][name]["accuracy"]
    return network, name, accuracy, read_data(run)


def _of_file(path, wanted, trusted):
    if (path / "saved_model.pb").is_file():
        if not trusted:
            raise _error(
                "a run's directory or a .keras file where a configuration names it",
                path,
                "is a SavedModel: TensorFlow runs its graph, which can read and write "
                "files",
                "Add --trust_source if you trust who made it.",
            )
        network = _saved_model(path)
    elif path.suffix == ".keras" and path.is_file():
        try:
            network = read_keras_file(path)
        except Exception as error:  # whatever damage leads Keras to
            reason = f"does not load: {one_line(error)}"
            raise _error("a Keras model", path, reason) from error
    else:
        what = "holds none of these" if path.exists() else "does not exist"
        raise _error(
            "a run's directory, a .keras file or the folder of a SavedModel", path, what
        )
    if isinstance(network, OnlineDistiller):
        by_name = dict(zip(network.network_names, network.networks, strict=True))
        name = _choose(path, by_name, wanted)
        return by_name[name], name
    if wanted is not None and wanted != network.name:
        reason = f"{str(path)!r} holds one network, '{network.name}'"
        raise inapplicable("source_network", wanted, reason)
    return network, network.name


def _saved_model(path):
    """Wrap a SavedModel as a Keras model; it has logits and no feature map."""
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    (spec,) = signature.structured_input_signature[1].values()
    images = keras.Input(spec.shape[1:], dtype=spec.dtype.name, name="images")
    outputs = keras.layers.TFSMLayer(str(path), call_endpoint="serving_default")(images)
    (logits,) = outputs.values()
    return keras.Model(images, logits, name=path.name)


def _choose(path, names, wanted):
    if wanted is not None:
        return choice("source_network", wanted, names)
    if not names:
        raise _error("a run or a file with networks", path, "has none")
    if len(names) > 1:
        raise invalid(
            "source_network",
            f"one of {sorted(names)}, the networks of {str(path)!r}",
            None,
            hint=f"Name one, e.g. train.source_network = {min(names)!r}.",
        )
    return next(iter(names))


def _error(expected, path, what, hint=""):
    received = f"source={str(path)!r}, which {what}"
    return invalid("source", expected, received=received, hint=hint)


def check_same_data(source, info):
    """Check that a source was trained for the data at hand.

    Args:
        source: Source.
        info: DataInfo.

    Raises:
        InvalidValue: if its classes are others.
    """
    known = source.preprocessing
    classes = known.get("class_names")
    if classes is not None and list(classes) != list(info.class_names):
        raise invalid(
            "source",
            f"a network for the classes of '{info.name}', {_some(info.class_names)}",
            received=f"source={source.record['path']!r} for {_some(classes)}",
        )
    for what in ("mean", "std"):
        own, other = np.array(getattr(info, what)), known.get(what)
        if other is not None and not np.allclose(own, other, rtol=0.05, atol=0.01):
            warnings.warn(
                f"The frozen source saw images of {what} {_short(other)} and sees "
                f"{_short(own)} here: it will be less accurate than it was. Set "
                f"load_data.{what} to the values it was trained with.",
                stacklevel=2,
            )


def _some(names):
    names = list(names)
    return f"{len(names)} classes ({', '.join(map(str, names[:3]))}, ...)"


def _short(values):
    return [round(float(value), 3) for value in np.ravel(values)]


def record_source(run, source):
    """Write down what the source is, or check that the run began with the same one.

    Args:
        run: RunDirectory.
        source: Source or None.

    Raises:
        InvalidValue: if its weights are others than at the run's beginning.
    """
    if source is None:
        return
    if run.is_new(run.source):
        write_json(run.source, source.record)
        return
    earlier = run.read_record(run.source, {"sha256": str})
    if earlier["sha256"] != source.record["sha256"]:
        raise invalid(
            "source",
            f"the network that the run in {run.path} began with",
            received=f"source={source.record['path']!r}, whose weights have changed "
            "since",
            hint="Restore them, or choose another --workdir.",
        )
