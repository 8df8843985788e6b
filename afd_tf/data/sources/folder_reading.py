"""Read the files of an image folder: in order, or by index."""

import concurrent.futures
import functools
import hashlib
import importlib.metadata
import os

import numpy as np

from afd_tf.data import cache
from afd_tf.data.examples import OnDemand
from afd_tf.data.holding import Split
from afd_tf.data.sources.images import read_image, read_size

# Images that are decoded before any of them is handed on.
_TOGETHER = 256


def folder_split(root, paths, labels, num_classes, image_size, channels):
    """Describe image files as a `Split`, of which nothing is decoded yet.

    Args:
        root: str, the image folder.
        paths: list of str.
        labels: int32 array (len(paths),).
        num_classes: int.
        image_size: (height, width) to fit images to, or None where all have one size.
        channels: 1 or 3.

    Returns:
        `Split`.

    Raises:
        ValueError: without `image_size`, if the images differ in size.
    """
    size = image_size or _common_size(paths)
    shape = (*size, channels)
    read = functools.partial(read_image, size=size, channels=channels)

    def decode():
        for start in range(0, len(paths), _TOGETHER):
            end = start + _TOGETHER
            images = np.stack(list(_in_threads(read, paths[start:end])))
            yield images, labels[start:end]

    def identity():
        return {
            "source": root,
            "files": cache.fingerprint(paths, root),
            "labels": hashlib.sha256(labels.tobytes()).hexdigest(),
            "shape": shape,
            "decoder": f"pillow {importlib.metadata.version('pillow')}",
        }

    return Split(
        where=f"the {len(paths)} images of {os.path.basename(root)}",
        count=len(paths),
        image_shape=shape,
        num_classes=num_classes,
        decode=decode,
        on_demand=lambda: _on_demand(paths, labels, read, shape),
        identity=identity,
    )


def _on_demand(paths, labels, read, shape):
    import tensorflow as tf

    with tf.device("/CPU:0"):
        table = tf.constant(labels)

    def fetch(row):
        # The path stays in Python: a file's name need not be valid UTF-8.
        image = tf.numpy_function(
            lambda row: read(paths[row]), [row], tf.uint8, stateful=False
        )
        return tf.ensure_shape(image, shape), tf.gather(table, row)

    return OnDemand(len(paths), shape, fetch, lambda: labels)


def _common_size(paths):
    sizes = {}
    for path, size in zip(paths, _in_threads(read_size, paths), strict=True):
        sizes.setdefault(size, path)
        if len(sizes) > 1:
            (one, first), (two, second) = sizes.items()
            raise ValueError(
                "Invalid value for argument `image_size`. Expected (height, width) for "
                f"images of differing sizes: {first!r} is {one}, {second!r} is {two}. "
                "Received: image_size=None"
            )
    return next(iter(sizes))


def _in_threads(read, paths):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            yield from pool.map(read, paths)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
