"""Classification sets of tensorflow-datasets, by name, from their prepared files."""

import os
import re

import numpy as np

from afd_tf.data.holding import hold
from afd_tf.data.readers.base import SOURCES, Request, Source
from afd_tf.data.readers.images import Fit
from afd_tf.data.readers.prepared import data_root, find_prepared, open_prepared
from afd_tf.data.readers.tfds_reading import Reading
from afd_tf.data.splits import stratified
from afd_tf.errors import nearest

# A mirrored digit or letter is another one, or none.
_NO_FLIP = (
    "mnist",
    "emnist",
    "kmnist",
    "mnist_corrupted",
    "svhn_cropped",
    "omniglot",
    "binarized_mnist",
    "cmaterdb",
)
# Sets whose test split has no labels.
_EVALUATION_SPLITS = {
    "imagenet2012": "validation",
    "imagenet_resized": "validation",
    "downsampled_imagenet": "validation",
    "places365_small": "validation",
}
_VALIDATION = ("validation", "val", "dev")
_NAME = re.compile(r"^(\w+)(?:/([\w.+-]+))?(?::(\d+\.\d+\.\d+))?$", re.ASCII)


def open_tfds(request: Request) -> Source:
    """Open a prepared set: `name`, `name/config`, `name:version`.

    It must have an image and a class label as its supervised keys. Nothing is
    downloaded unless `request.download` is true, and nothing is written.
    """
    builder = _builder(request)
    image_key, label_key = _supervised_keys(builder, request.name)
    names = tuple(builder.info.features[label_key].names)
    splits = builder.info.splits
    for split in ("train", request.test_split):
        if split is not None and split not in splits:
            argument = "name" if split == "train" else "test_split"
            raise ValueError(
                f"Invalid value for argument `{argument}`. Expected a set with the "
                f"split {split!r}. Received: {request.name!r} with {sorted(splits)}"
            )
    short = builder.info.name
    preferred = request.test_split or _EVALUATION_SPLITS.get(short, "test")
    evaluated = next((s for s in (preferred, "validation") if s in splits), None)
    if evaluated is None:
        whole = _open_split(
            builder, "train", image_key, label_key, request, request.parts
        )
        fraction, seed = request.test_fraction, request.split_seed
        kept, held = stratified(whole.labels, fraction, seed, "test_fraction", names)
        train = whole.subset(kept)

        def open_test():
            return whole.subset(held)

    else:
        train = _open_split(
            builder, "train", image_key, label_key, request, request.parts
        )

        def open_test():
            return _open_split(builder, evaluated, image_key, label_key, request)

    config = builder.builder_config
    return Source(
        name=short if config is None else f"{short}/{config.name}",
        description=f"tensorflow-datasets {builder.info.full_name}",
        class_names=names,
        train=train,
        open_test=open_test,
        evaluated_split="validation" if evaluated in _VALIDATION else "test",
        flip=short not in _NO_FLIP,
    )


def _builder(request):
    parsed = _NAME.match(request.name)
    if parsed is None:
        raise _unknown(request.name)
    root = data_root(request.data_dir)
    name, config, version = parsed.groups()
    found = find_prepared(root, name, config, version)
    if found is not None:
        return open_prepared(found)
    import tensorflow_datasets as tfds

    if name not in tfds.list_builders():
        raise _unknown(request.name)
    if not request.download:
        raise _not_prepared(request.name, root, parsed)
    try:
        builder = tfds.builder(request.name, data_dir=root, try_gcs=False)
        builder.download_and_prepare()
    # Anything from the network, the disk or the set's own code.
    except Exception as error:
        first_line = str(error).strip().split("\n")[0]
        raise ValueError(
            f"Could not download or prepare {request.name!r} in {root!r}: "
            f"{type(error).__name__}: {first_line}"
        ) from error
    return builder


def _not_prepared(name, root, parsed):
    short, config, version = parsed.groups()
    parts = [short, *([config] if config else []), version or "<version>"]
    wanted = os.path.join(root, *parts, "features.json")
    where = "where it was not found" if os.path.isdir(root) else "which does not exist"
    return ValueError(
        f"Invalid value for argument `name`. Expected a prepared data set, {wanted!r}. "
        f"Received: name={name!r} with the folder {root!r}, {where}. Set `data_dir` "
        "(--data_dir) to the folder of your prepared sets, or let it be downloaded: "
        "`download=True` from Python, --gin_param='load_data.download = True' of "
        "afd-train."
    )


def _unknown(name):
    import tensorflow_datasets as tfds

    known = [*SOURCES, *tfds.list_builders()]
    if os.path.isdir(name):
        hint = f" There is a folder of this name: did you mean './{name}'?"
    else:
        hint = nearest(name, known)
    return ValueError(
        "Invalid value for argument `name`. Expected 'digits', 'image_folder', the "
        "path of an image folder (with a separator, like './photos') or the name of a "
        f"tensorflow-datasets set. Received: name={name!r}.{hint}"
    )


def _supervised_keys(builder, name):
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys
    features = builder.info.features
    if (
        keys is None
        or len(keys) != 2
        or not all(isinstance(key, str) for key in keys)
        or not isinstance(features, tfds.features.FeaturesDict)
        or not features.keys() >= set(keys)
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
        or not features[keys[1]].num_classes
        or features[keys[0]].np_dtype != np.uint8
    ):
        raise ValueError(
            "Invalid value for argument `name`. Expected a classification set: 8-bit "
            f"images with one class label each. Received: name={name!r} with "
            f"supervised keys {keys}"
        )
    return keys


def _open_split(builder, split, image_key, label_key, request, parts=False):
    """Make a split of the set available in memory, on disk or on demand."""
    info = builder.info
    fit = _fit(info.features[image_key].shape, request)
    reading = Reading(builder, split, image_key, label_key, fit)
    return hold(reading.split(), request.memory_limit, request.cache_dir, parts)


def _fit(shape, request):
    size = request.image_size or shape[:2]
    if None in size:
        raise ValueError(
            "Invalid value for argument `image_size`. Expected (height, width) for "
            f"{request.name!r}, whose images differ in size. Received: image_size=None"
        )
    return Fit(tuple(size), request.channels or shape[2] or 3, request.resize)
