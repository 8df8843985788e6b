"""Prepared sets of tensorflow-datasets: found, checked and opened."""

import contextlib
import json
import os
import re

from afd_tf.data.readers.reader import READERS
from afd_tf.data.reading_errors import damaged
from afd_tf.errors import InvalidValue, invalid, nearest, shown
from afd_tf.files import read_json

_NAME = re.compile(r"^(\w+)(?:/([\w.+-]+))?(?::(\d+\.\d+\.\d+))?$", re.ASCII)
# What classification sets are made of. tensorflow-datasets imports the module of every
# feature that a description names.
_FEATURES = {
    f"tensorflow_datasets.core.features.{name}"
    for name in (
        "bounding_boxes.BBoxFeature",
        "class_label_feature.ClassLabel",
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "labeled_image.LabeledImage",
        "scalar.Scalar",
        "sequence_feature.Sequence",
        "tensor_feature.Tensor",
        "text_feature.Text",
    )
}
# Keys under which it looks for names: of its protocol buffers, which have two spellings
# each, and of its files before 2021.
_CLASS_NAME = ("pythonClassName", "python_class_name", "type")
_DESCRIPTION = "description of a data set"


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
        InvalidValue: if there are several configs and none was named.
    """
    folder = os.path.join(root, name)
    if config is not None:
        return _version(os.path.join(folder, config), version)
    without_config = _version(folder, version)
    if without_config is not None or not os.path.isdir(folder):
        return without_config
    configs = [
        entry
        for entry in sorted(os.listdir(folder))
        if _version(os.path.join(folder, entry), version)
    ]
    if len(configs) > 1:
        raise invalid("name", f"one of {[f'{name}/{one}' for one in configs]}", name)
    return _version(os.path.join(folder, configs[0]), version) if configs else None


def _prepared(root, name):
    """List what there is of a prepared set, "name:version" or "name/config:version"."""
    every = []
    with contextlib.suppress(OSError):  # there is none of this name
        for config in (None, *sorted(os.listdir(os.path.join(root, name)))):
            folder = os.path.join(root, name, config or "")
            whole = name if config is None else f"{name}/{config}"
            every += [f"{whole}:{version}" for version in _versions(folder)]
    return every


def _version(folder, version):
    versions = [entry for entry in _versions(folder) if version in (None, entry)]
    return os.path.join(folder, versions[-1]) if versions else None


def _versions(folder):
    """List the prepared versions in a folder, the newest last."""
    if not os.path.isdir(folder):
        return []
    versions = [
        entry
        for entry in os.listdir(folder)
        if re.fullmatch(r"\d+\.\d+\.\d+", entry)
        and os.path.isfile(os.path.join(folder, entry, "features.json"))
    ]
    return sorted(versions, key=lambda entry: tuple(map(int, entry.split("."))))


def open_builder(options):
    """Open what a name means as a prepared set; prepare it if that is allowed.

    Args:
        options: ReaderOptions.

    Returns:
        tfds.core.DatasetBuilder.

    Raises:
        InvalidValue: if there is none, or it is damaged.
    """
    parsed = _NAME.match(options.name)
    if parsed is None:
        raise _unknown(options.name)
    root = data_root(options.data_dir)
    name, config, version = parsed.groups()
    folder = find_prepared(root, name, config, version)
    if folder is not None:
        return _open_prepared(folder)
    import tensorflow_datasets as tfds

    if name not in tfds.list_builders():
        prepared = _prepared(root, name)
        if prepared:
            raise invalid(
                "name", f"one of {prepared}, which {root!r} has", options.name
            )
        raise _unknown(options.name)
    if not options.download:
        raise _not_prepared(options.name, root, parsed)
    try:
        builder = tfds.builder(options.name, data_dir=root, try_gcs=False)
        builder.download_and_prepare()
    # Anything from the network, the disk or the set's own code.
    except Exception as error:
        first_line = str(error).strip().split("\n")[0]
        raise InvalidValue(
            f"Could not download or prepare {options.name!r} in {root!r}: "
            f"{type(error).__name__}: {first_line}"
        ) from error
    return builder


def _open_prepared(folder):
    """Open a prepared set, of whose files no word is believed before it is checked."""
    path = os.path.join(folder, "features.json")
    _check_features(read_json(path, {}, _DESCRIPTION), path)
    path = os.path.join(folder, "dataset_info.json")
    _check_features(read_json(path, {}, _DESCRIPTION).get("features"), path)
    import tensorflow_datasets as tfds

    # It raises whatever the damage leads to, parts of it only when they are used.
    try:
        builder = tfds.builder_from_directory(folder)
        info = builder.info
        for part in (info.features, info.supervised_keys, *info.splits.values()):
            str(part)
        files = [file for split in info.splits.values() for file in split.filepaths]
    except Exception as error:
        raise damaged(repr(folder), error) from error
    for file in map(os.fspath, files):
        if not os.path.isfile(file):
            raise InvalidValue(
                f"Damaged data: {file!r} is missing. Prepare the set again."
            )
    return builder


def _check_features(value, path):
    """Check that a description builds nothing but known features, at any depth."""
    try:
        names = [name for name in _class_names(value) if name not in _FEATURES]
    except RecursionError:
        names = ["features nested without end"]
    if names:
        raise InvalidValue(
            f"Invalid description of a data set {path!r}. Expected features of "
            f"tensorflow-datasets that hold images, numbers or text. Received: "
            f"{shown(names[0])}, code that reading the set would import. Prepare the "
            "set yourself."
        )


def _class_names(value):
    if isinstance(value, str):  # a description may hold another one as text
        try:
            value = json.loads(value)
        except ValueError:
            return
    if isinstance(value, list):
        for item in value:
            yield from _class_names(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in _CLASS_NAME and isinstance(item, str):
                yield item
            yield from _class_names(item)


def _not_prepared(name, root, parsed):
    short, config, version = parsed.groups()
    parts = [short, *([config] if config else []), version or "<version>"]
    wanted = os.path.join(root, *parts, "features.json")
    where = "where it was not found" if os.path.isdir(root) else "which does not exist"
    return invalid(
        "name",
        f"a prepared data set, {wanted!r}",
        received=f"name={name!r} with the folder {root!r}, {where}",
        hint="Set `data_dir` (--data_dir) to the folder of your prepared sets, or let "
        "it be downloaded: `download=True` from Python, "
        "--gin_param='load_data.download = True' of afd-train.",
    )


def _unknown(name):
    import tensorflow_datasets as tfds

    if os.path.isdir(name):
        hint = f"There is a folder of this name: did you mean './{name}'?"
    else:
        hint = nearest(name, [*READERS, *tfds.list_builders()]).strip()
    return invalid(
        "name",
        "'digits', 'image_folder', the path of an image folder (with a separator, like "
        "'./photos') or the name of a tensorflow-datasets set",
        name,
        hint=hint,
    )
