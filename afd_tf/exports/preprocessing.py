"""Preprocessing of an exported network's images, as JSON kept with it."""

import json
from collections.abc import Mapping
from pathlib import Path

from afd_tf.errors import invalid
from afd_tf.files import read_json

_NAME = "preprocessing.json"


def preprocessing_file(path, *, folder):
    """Return the path of an export's `preprocessing`.

    Args:
        path: pathlib.Path of the export.
        folder: bool, whether the export is a folder.
    """
    if folder:
        return path / "assets.extra" / _NAME  # TensorFlow leaves it to others
    return path.with_suffix(f".{_NAME}")


def read_preprocessing(path):
    """Read back the `preprocessing` given to `export`.

    Args:
        path: str or path that `export` wrote.

    Returns:
        dict, or None if the export has none.

    Raises:
        ValueError: if it is damaged.
    """
    path = Path(path)
    file = preprocessing_file(path, folder=path.is_dir())
    return read_json(file, {}, "description of the export") if file.exists() else None


def as_json(preprocessing, network):
    """Write `preprocessing` as JSON.

    Args:
        preprocessing: `afd_tf.data.DataInfo`, mapping, or None.
        network: str, the network's name, which a DataInfo does not know.

    Returns:
        str, or None for None.

    Raises:
        ValueError: if JSON cannot hold it.
    """
    if preprocessing is None:
        return None
    try:
        if not isinstance(preprocessing, Mapping):
            preprocessing = {"network": network, **preprocessing.preprocessing()}
        return json.dumps(
            dict(preprocessing), indent=2, allow_nan=False, default=lambda v: v.tolist()
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise invalid(
            "preprocessing",
            "the info of `afd_tf.data.load` or a mapping of what JSON can hold",
            preprocessing,
            hint="Use numbers, strings, lists and arrays, without NaN.",
        ) from error
