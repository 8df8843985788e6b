"""Where the prepared sets of tensorflow-datasets are."""

import os
import re


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
