"""Where the prepared sets of tensorflow-datasets are."""

import os
import re

from afd_tf.data.errors import damaged
from afd_tf.files import read_json

# tensorflow-datasets imports the module of each feature that it finds in a file.
_FEATURES = "tensorflow_datasets.core.features."


def data_root(data_dir):
    """Return the folder of the prepared sets: given, from the environment, default."""
    root = (
        data_dir
        or os.environ.get("AFD_TFDS_DIR")
        or os.environ.get("TFDS_DATA_DIR")
        or os.path.join("~", "tensorflow_datasets")
    )
    return os.path.abspath(os.path.expanduser(os.fspath(root)))


def find_prepared(root, name, config, version):
    """Find a prepared set: `<root>/<name>[/<config>]/<version>`.

    Args:
        root: str, folder of the prepared sets.
        name: str.
        config: str or None; None finds the only one there is.
        version: str "1.2.3" or None for the newest.

    Returns:
        str, the folder of that version, or None.

    Raises:
        ValueError: if there are several configs and none was named.
    """
    folder = os.path.join(root, name)
    if config is not None:
        return _version(os.path.join(folder, config), version)
    found = _version(folder, version)
    if found is not None or not os.path.isdir(folder):
        return found
    configs = [
        entry
        for entry in sorted(os.listdir(folder))
        if _version(os.path.join(folder, entry), version)
    ]
    if len(configs) > 1:
        raise ValueError(
            f"Invalid value for argument `name`. Expected one of "
            f"{[f'{name}/{one}' for one in configs]}. Received: name={name!r}"
        )
    return _version(os.path.join(folder, configs[0]), version) if configs else None


def open_prepared(folder):
    """Open a prepared set, of whose files no word is believed before it is checked.

    Args:
        folder: str, see `find_prepared`.

    Returns:
        tfds.core.DatasetBuilder.

    Raises:
        ValueError: naming the file or the folder, if its description is damaged, or
            names features that are not tensorflow-datasets' own.
    """
    path = os.path.join(folder, "features.json")
    _check_features(read_json(path, {}, "description of a data set"), path)
    import tensorflow_datasets as tfds

    # It raises whatever the damage leads to, parts of it only when they are used.
    try:
        builder = tfds.builder_from_directory(folder)
        info = builder.info
        for part in (info.features, info.supervised_keys, *info.splits.values()):
            str(part)
        files = [file for split in info.splits.values() for file in split.filepaths]
    except Exception as error:
        raise ValueError(damaged(repr(folder), error)) from error
    for file in map(os.fspath, files):
        if not os.path.isfile(file):
            raise ValueError(
                f"Damaged data: {file!r} is missing. Prepare the set again."
            )
    return builder


def _check_features(value, path):
    if isinstance(value, list):
        for item in value:
            _check_features(item, path)
    elif isinstance(value, dict):
        name = value.get("pythonClassName", _FEATURES)
        if not isinstance(name, str) or not name.startswith(_FEATURES):
            raise ValueError(
                f"Invalid description of a data set {path!r}. Expected features of "
                f"tensorflow-datasets. Received: {name!r}, code that reading the set "
                "would import. Prepare the set yourself."
            )
        for item in value.values():
            _check_features(item, path)


def _version(folder, version):
    if not os.path.isdir(folder):
        return None
    versions = [
        entry
        for entry in os.listdir(folder)
        if re.fullmatch(r"\d+\.\d+\.\d+", entry)
        and version in (None, entry)
        and os.path.isfile(os.path.join(folder, entry, "features.json"))
    ]
    if not versions:
        return None
    newest = max(versions, key=lambda entry: tuple(map(int, entry.split("."))))
    return os.path.join(folder, newest)
