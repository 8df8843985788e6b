"""Export of one trained network as a file that runs without this package."""

import contextlib
import dataclasses
import os
from pathlib import Path

from afd_tf.errors import invalid, lookup
from afd_tf.exports.formats import FORMATS
from afd_tf.exports.preprocessing import as_json, preprocessing_file
from afd_tf.files import held, made_folder, remove


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What an export wrote and how closely it reproduces the network.

    Attributes:
        path: pathlib.Path of the folder (SavedModel) or file that was written.
        format: str, a key of `FORMATS`.
        network: str, the network's name.
        parameters: int, number of weights inside, those of normalisation included.
        bytes: int, size on disk.
        input_shape: (height, width, channels) of the images.
        max_abs_error: float, largest absolute difference between the logits of the
            network and those of the file read back, over ten probe images.
    """

    path: Path
    format: str
    network: str
    parameters: int
    bytes: int
    input_shape: tuple
    max_abs_error: float

    def __str__(self):
        """Give the report as one line."""
        return (
            f"{self.network}: {self.format}, {self.parameters:,} parameters, "
            f"{self.bytes / 1024:,.0f} KiB, largest difference in the logits "
            f"{self.max_abs_error:.1e}, in {self.path}"
        )


def suffix(format):
    """Return the ending that a path of this format has, `""` for a folder.

    Args:
        format: str, a key of `FORMATS`.

    Raises:
        ValueError: if the format is unknown, or its tools are not installed.
    """
    return _installed(format).suffix


def export(network, path, preprocessing=None, *, format="saved_model", tolerance=1e-4):
    """Write one network, and nothing of its training, to `path`.

    The file computes in float32 whatever precision the network was trained in: its
    weights are float32 already, and every runtime has float32 kernels. It is read back
    and compared with the network before it appears under its name; a failed export
    leaves nothing behind.

    Args:
        network: Functional or Sequential keras.Model with one image input
            `(batch, height, width, channels)` and one output `(batch, classes)`.
        path: str or path, a folder that is missing or empty for "saved_model", else a
            file that does not exist, ending as `suffix(format)` says.
        preprocessing: what a user of the file must know to feed it: the info that
            `afd_tf.data.load` returns, or a mapping ("mean", "std", "image_shape",
            "class_names", ...) of anything JSON can hold, tuples and NumPy values
            included. `afd-evaluate` needs it. Kept in a SavedModel as
            `assets.extra/preprocessing.json`, else beside the file as
            `<name>.preprocessing.json`. Default: None, nothing is kept.
        format: str. "saved_model" (default): `loaded = tf.saved_model.load(path)` and
            then `loaded.serve(images)` takes one float32 tensor and gives logits; also
            served as `serving_default`. Keep `loaded` for as long as it is used.
            "keras": for `keras.models.load_model(path)`, made of stock layers only.
            "litert" and "onnx" need the optional requirements of that name.
        tolerance: float, largest accepted difference of a logit, as a fraction of the
            largest logit or of 1, whichever is larger. Default 1e-4.

    Returns:
        ExportReport.

    Raises:
        TypeError: if `network` is not a Keras model.
        ValueError: if an argument is invalid, the target exists, or cannot be written.
        Mistake: if the file does not reproduce the network.

    Example:
        >>> small = model.networks[0]
        >>> report = afd_tf.export(small, "resnet20", info)
        >>> loaded = tf.saved_model.load("resnet20")
        >>> logits = loaded.serve(images)
    """
    # With it comes TensorFlow, which the names of formats do without.
    from afd_tf.exports import parity

    kind = _installed(format)
    parity.check_network(network)
    path = Path(path).expanduser()
    _check_place(path, kind)
    described = as_json(preprocessing, network.name)

    with _workspace(path) as (workspace, killed):
        _check_free(path, kind, killed)
        reference = parity.float32_copy(network)
        draft = workspace / path.name
        kind.write(reference, draft)
        error = parity.check_parity(reference, kind.load(draft), tolerance)
        if described is not None:
            file = preprocessing_file(draft, folder=not kind.suffix)
            file.parent.mkdir(exist_ok=True)
            file.write_text(described + "\n", encoding="utf-8")
        # The network last: if it is there, so is all else.
        for finished in sorted(workspace.iterdir(), key=lambda file: file == draft):
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


def _installed(name):
    kind = lookup("format", name, FORMATS)
    if missing := kind.missing():
        raise invalid(
            "format",
            "a format whose tools are installed",
            received=f"format={name!r}, which needs {', '.join(missing)}",
            hint=f"Install them with: pip install 'afd_tf[{kind.extra}]'",
        )
    return kind


def _check_place(path, kind):
    if kind.suffix and not kind.is_name(path):
        raise invalid(
            "path",
            f"a file name ending in {kind.suffix!r}",
            received=f"path='{path}'",
            hint=f"Use '{path}{kind.suffix}'.",
        )
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise invalid(
            "path",
            "a place that can be written",
            received=f"path='{path}', but '{parent}' is not a writable folder",
            hint="Choose another.",
        )


def _check_free(path, kind, killed):
    # Of a killed export there may be half; the network's file comes last.
    described = [] if killed else [preprocessing_file(path, folder=not kind.suffix)]
    taken = [str(file) for file in (path, *described) if os.path.lexists(file)]
    empty_folder = not kind.suffix and path.is_dir() and not any(path.iterdir())
    if taken and not empty_folder:
        raise invalid(
            "path",
            "a target that does not exist yet (--output)",
            received=f"path='{path}', and '{taken[0]}' exists",
            hint="Remove it or choose another.",
        )


@contextlib.contextmanager
def _workspace(path):
    """Give an empty folder beside `path`, and whether a killed export had left one.

    Afterwards it is removed, and what a failure left.
    """
    folder = path.with_name(f".export-{path.name}")
    with made_folder(path.parent), contextlib.ExitStack() as stack:
        killed = folder.exists()
        folder.mkdir(exist_ok=True)
        try:
            stack.enter_context(held(folder / "lock"))
        except BlockingIOError as error:
            raise invalid(
                "path",
                "a target that nobody else writes",
                received=f"path='{path}', which {error} writes at the moment",
            ) from error
        stack.callback(remove, folder)
        files = folder / "files"
        remove(files)
        files.mkdir()
        yield files, killed


def _size(path):
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return sum(file.stat().st_size for file in files)
