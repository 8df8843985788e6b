"""Read the files of an image folder: in order, or by index."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import importlib.metadata
import os

import numpy as np

from afd_tf.data import cache
from afd_tf.data.examples import OnDemand
from afd_tf.data.holding import Split
from afd_tf.data.readers.images import read_image, read_part, read_size

# Images that are decoded before any of them is handed on.
_TOGETHER = 256


def folder_split(root, paths, labels, num_classes, fit):
    """Describe image files as a `Split`, of which nothing is decoded yet.

    Args:
        root: str, the image folder.
        paths: list of str.
        labels: int32 array (len(paths),).
        num_classes: int.
        fit: `Fit`; its `size` may be None where all images have one size.

    Returns:
        `Split`.

    Raises:
        ValueError: without a size, if the images differ in it.
    """
    if fit.size is None:
        fit = dataclasses.replace(fit, size=_common_size(paths))
    shape = fit.shape
    read = functools.partial(read_image, fit=fit)

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
            **fit.identity(),
            "decoder": f"pillow {importlib.metadata.version('pillow')}",
        }

    return Split(
        where=f"the {len(paths)} images of {os.path.basename(root)}",
        count=len(paths),
        image_shape=shape,
        num_classes=num_classes,
        decode=decode,
        on_demand=lambda: _on_demand(paths, labels, fit),
        identity=identity,
    )


def _on_demand(paths, labels, fit):
    import tensorflow as tf

    shape = fit.shape
    with tf.device("/CPU:0"):
        table = tf.constant(labels)

    def example(read, row, *arguments):
        # The path stays in Python: a file's name need not be valid UTF-8.
        image = tf.numpy_function(read, [row, *arguments], tf.uint8, stateful=False)
        return tf.ensure_shape(image, shape), tf.gather(table, row)

    def fetch(row):
        return example(lambda row: read_image(paths[row], fit), row)

    def fetch_part(row, draw, key):
        def read(row, *key):
            return read_part(paths[row], fit, functools.partial(draw, *key))

        return example(read, row, *key)

    return OnDemand(len(paths), shape, fetch, lambda: labels, fetch_part)


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
