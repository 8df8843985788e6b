"""The embedded default: scikit-learn's handwritten digits as 16x16x1."""

import numpy as np

from afd_tf.data.readers.reader import Reader, ReaderOptions
from afd_tf.data.splits import InMemory, stratified
from afd_tf.errors import invalid

_SIDE = 16


def open_digits(options: ReaderOptions) -> Reader:
    """Open scikit-learn's `load_digits`: 1,797 images of 10 classes, no download.

    The 8x8 images of 17 grey levels are doubled to 16x16 by bilinear interpolation
    (pixel centres aligned, edges repeated) and scaled to 0..255. A stratified
    `test_fraction` of them is the test split.
    """
    if options.image_size not in (None, (_SIDE, _SIDE)):
        raise invalid("image_size", "None or 16 for digits", options.image_size)
    if options.resize is not None:
        expected = "None for digits, which all have one size"
        raise invalid("resize", expected, options.resize)
    if options.test_split not in (None, "test"):
        raise invalid("test_split", "None or 'test' for digits", options.test_split)
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = double(raw.images)[..., np.newaxis]
    images = np.repeat(images, options.channels or 1, axis=-1)
    every = InMemory(images, raw.target.astype(np.int32))
    kept, held_out = stratified(
        every.labels, options.test_fraction, options.split_seed, "test_fraction"
    )
    return Reader(
        name="digits",
        description="scikit-learn's load_digits (UCI handwritten digits), 16x16",
        class_names=tuple(str(name) for name in raw.target_names),
        train=every.subset(kept),
        open_test=lambda: every.subset(held_out),
        evaluated_split="test",
        flip=False,
    )


def double(images):
    """Double height and width bilinearly, and scale levels 0..16 to 0..255.

    Args:
        images: float array (examples, height, width), whole numbers 0..16.

    Returns:
        uint8 array (examples, 2 * height, 2 * width).
    """
    # In integers (16 times the value), so that the images are the same everywhere.
    levels = images.astype(np.int64)
    for axis in (1, 2):
        size = levels.shape[axis]
        before = levels.take(np.maximum(np.arange(size) - 1, 0), axis)
        after = levels.take(np.minimum(np.arange(size) + 1, size - 1), axis)
        pair = np.stack([3 * levels + before, 3 * levels + after], axis + 1)
        shape = list(levels.shape)
        shape[axis] *= 2
        levels = pair.reshape(shape)
    return ((levels * 255 + 128) // 256).astype(np.uint8)
