"""Write one trained network as a file that runs without this package."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from afd_tf.errors import lookup
from afd_tf.exports.formats import FORMATS, Format
from afd_tf.files import made_folder, read_json

_PREPROCESSING = "preprocessing.json"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What an export wrote and how closely it reproduces the network.

    Attributes:
        path: Folder (SavedModel) or file that was written.
        format: Name of the format, one of `formats()`.
        network: The network's name.
        parameters: Number of weights inside, those of normalisation included.
        bytes: Size on disk.
        input_shape: Shape of one image, `(height, width, channels)`.
        max_abs_error: Largest absolute difference between the logits of the network
            and those of the file read back, over the probe images.
    """

    path: Path
    format: str
    network: str
    parameters: int
    bytes: int
    input_shape: tuple[int | None, ...]
    max_abs_error: float

    def __str__(self) -> str:
        """Give the report as one line."""
        return (
            f"{self.network}: {self.format}, {self.parameters:,} parameters, "
            f"{self.bytes / 1024:,.0f} KiB, largest difference in the logits "
            f"{self.max_abs_error:.1e}, in {self.path}"
        )


def formats() -> tuple[str, ...]:
    """List the names that `export` takes as `format`."""
    return tuple(FORMATS)


def suffix(format: str) -> str:
    """Give the ending that a path of this format has, `""` for a folder.

    Args:
        format: One of `formats()`.

    Raises:
        ValueError: If the format is unknown.
    """
    return _format(format).suffix


def export(
    network: keras.Model,
    path: str | os.PathLike[str],
    format: str = "saved_model",
    *,
    preprocessing: Any = None,
    tolerance: float = 1e-4,
) -> ExportReport:
    """Write one network, and nothing of its training, to `path`.

    The file computes in float32 whatever precision the network was trained in: its
    weights are float32 already, and every runtime has float32 kernels. It is read back
    and compared with the network before it appears under its name; a failed export
    leaves nothing behind.

    Args:
        network: Functional or Sequential classifier with one image input
            `(batch, height, width, channels)` and one output `(batch, classes)`.
        path: A folder that is missing or empty for `"saved_model"`, else a file that
            does not exist, ending as `suffix(format)` says.
        format: `"saved_model"`: `loaded = tf.saved_model.load(path)` and then
            `loaded.serve(images)` takes one float32 tensor and gives logits; also
            served as `serving_default`. Keep `loaded` for as long as it is used.
            `"keras"`: for `keras.models.load_model(path)`, made of stock layers only.
            `"litert"` and `"onnx"` need the optional requirements of that name.
        preprocessing: What a user of the file must know to feed it: the `info` that
            `afd_tf.data.load` returns, or a mapping (`mean`, `std`, `image_shape`,
            `class_names`, ...) of anything JSON can hold, tuples and NumPy values
            included. `afd-evaluate` needs it. Kept in a SavedModel as
            `assets.extra/preprocessing.json`, else beside the file as
            `<name>.preprocessing.json`.
        tolerance: Largest accepted difference of a logit, as a fraction of the largest
            logit or of 1, whichever is larger.

    Returns:
        The report; `max_abs_error` is in logits.

    Raises:
        TypeError: If `network` is not a Functional or Sequential model.
        ValueError: If an argument is invalid, the target exists, or cannot be written.
        RuntimeError: If the file does not reproduce the network.

    Example:
        >>> small = model.networks[0]
        >>> report = afd_tf.export(small, "resnet20", preprocessing=info)
        >>> loaded = tf.saved_model.load("resnet20")
        >>> logits = loaded.serve(images)
    """
    kind = _format(format)
    _check_network(network)
    path = _check_target(Path(path), kind)
    described = _described(preprocessing, network.name)
    reference = _plain(network)

    with _workspace(path) as workspace:
        draft = workspace / path.name
        kind.write(reference, draft)
        error = _compare(reference, kind.load(draft), tolerance)
        if described is not None:
            notes = preprocessing_file(draft, folder=not kind.suffix)
            notes.parent.mkdir(exist_ok=True)
            notes.write_text(described + "\n", encoding="utf-8")
        for finished in sorted(workspace.iterdir()):
            os.replace(finished, path.parent / finished.name)
    return ExportReport(
        path=path,
        format=format,
        network=network.name,
        parameters=network.count_params(),
        bytes=_size(path),
        input_shape=tuple(network.input_shape[1:]),
        max_abs_error=error,
    )


def read_preprocessing(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read back the `preprocessing` given to `export`.

    Args:
        path: What `export` wrote.

    Returns:
        The mapping, or None if the export has none.

    Raises:
        ValueError: If it is damaged.
    """
    path = Path(path)
    file = preprocessing_file(path, folder=path.is_dir())
    return read_json(file, {}, "description of the export") if file.exists() else None


def _format(name: str) -> Format:
    kind = lookup("format", name, FORMATS)
    if missing := kind.missing():
        raise ValueError(
            f"Invalid value for argument `format`. Expected a format whose tools are "
            f"installed. Received: format={name!r}, which needs {', '.join(missing)}. "
            f"Install them with: pip install 'afd_tf[{kind.extra}]'"
        )
    return kind


def _check_network(network: keras.Model) -> None:
    if not isinstance(network, keras.Model):
        raise TypeError(
            f"Invalid value for argument `network`. Expected a `keras.Model`. "
            f"Received: network={network!r} of type {type(network).__name__}."
        )
    if not network.built:
        raise ValueError(
            f"Invalid value for argument `network`. Expected a built model. Received: "
            f"{network.name!r}, which is not built. Give it a `keras.Input` first."
        )
    if not hasattr(network, "inputs"):
        raise ValueError(
            f"Invalid value for argument `network`. Expected a Functional or "
            f"Sequential model. Received: {network.name!r} of type "
            f"{type(network).__name__}. Of an `OnlineDistiller`, export one of its "
            f"`networks`."
        )
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise ValueError(
            f"Invalid value for argument `network`. Expected one input and one output. "
            f"Received: {network.name!r} with {len(network.inputs)} inputs and "
            f"{len(network.outputs)} outputs. Export a model of the one you ship."
        )


def _check_target(path: Path, kind: Format) -> Path:
    path = path.expanduser()
    if kind.suffix and path.suffix != kind.suffix:
        raise ValueError(
            f"Invalid value for argument `path`. Expected a file name ending in "
            f"{kind.suffix!r}. Received: path='{path}'. Use '{path}{kind.suffix}'."
        )
    taken = [path, preprocessing_file(path, folder=not kind.suffix)]
    taken = [str(one) for one in taken if one.exists()]
    empty_folder = not kind.suffix and path.is_dir() and not any(path.iterdir())
    if taken and not empty_folder:
        raise ValueError(
            f"Invalid value for argument `path`. Expected a target that does not exist "
            f"yet (--output). Received: path='{path}', and '{taken[0]}' exists. Remove "
            f"it or choose another."
        )
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(
            f"Invalid value for argument `path`. Expected a place that can be written. "
            f"Received: path='{path}', but '{parent}' is not a writable folder. "
            f"Choose another."
        )
    return path


@contextlib.contextmanager
def _workspace(path: Path) -> Iterator[Path]:
    """Give a folder beside `path`; afterwards remove it, and what a failure left."""
    with (
        made_folder(path.parent),
        tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder,
    ):
        yield Path(folder)


def _described(preprocessing: Any, network: str) -> str | None:
    if preprocessing is None:
        return None
    if hasattr(preprocessing, "preprocessing"):  # a DataInfo, which is no part of this
        preprocessing = {"network": network, **preprocessing.preprocessing()}
    try:
        return json.dumps(
            dict(preprocessing), indent=2, allow_nan=False, default=lambda v: v.tolist()
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"Invalid value for argument `preprocessing`. Expected the info of "
            f"`afd_tf.data.load` or a mapping of what JSON can hold. Received: "
            f"preprocessing={preprocessing!r}. Use numbers, strings, lists and arrays, "
            f"without NaN."
        ) from error


def preprocessing_file(path: Path, *, folder: bool) -> Path:
    """Give where the `preprocessing` of an export is, a folder or a file."""
    if folder:
        return path / "assets.extra" / _PREPROCESSING  # TensorFlow leaves it to others
    return path.with_suffix(f".{_PREPROCESSING}")


def _plain(network: keras.Model) -> keras.Model:
    """Return the network, or a copy of it that computes in float32 on one device."""
    float32 = all(
        layer.compute_dtype == "float32" for layer in network._flatten_layers()
    )
    # Mirrored variables would be written once per replica.
    mirrored = any(hasattr(weight.value, "values") for weight in network.weights)
    if float32 and not mirrored:
        return network

    def in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy: Any = keras.models.clone_model(
        network, clone_function=in_float32, recursive=True
    )
    copy.set_weights(network.get_weights())
    return copy


def _probes(shape: tuple[int | None, ...], dtype: str) -> np.ndarray:
    """Make random, constant and far-off images; shape `(10, ...)`, NumPy `dtype`."""
    size = tuple(side or 32 for side in shape)
    random = np.random.default_rng(0).normal(size=(6, *size))
    constant = [np.full((1, *size), value) for value in (0.0, 1.0, -10.0, 10.0)]
    return np.concatenate([random, *constant]).astype(dtype)


def _compare(
    network: keras.Model, loaded: Callable[[np.ndarray], Any], tolerance: float
) -> float:
    """Return the largest difference in the logits, at two batch sizes."""
    images = _probes(network.input_shape[1:], network.inputs[0].dtype)
    expected = keras.ops.convert_to_numpy(network(images, training=False))
    differences = [
        np.abs(keras.ops.convert_to_numpy(loaded(batch)) - wanted).max()
        for batch, wanted in ((images, expected), (images[:1], expected[:1]))
    ]
    error = float(np.max(differences))
    limit = tolerance * max(1.0, float(np.abs(expected).max()))
    if not error <= limit:  # NaN too
        raise RuntimeError(
            f"The export of {network.name!r} does not reproduce the network: a logit "
            f"differs by {error:.3g}, more than {limit:.3g}. Nothing was written. "
            f"Check the network's weights for NaN, or raise `tolerance`."
        )
    return error


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return sum(file.stat().st_size for file in files)
