"""The embedded default: scikit-learn's handwritten digits as 16x16x1."""

import numpy as np

from afd_tf.data.examples import InMemory
from afd_tf.data.readers.base import Request, Source
from afd_tf.data.splits import stratified

_SIDE = 16


def open_digits(request: Request) -> Source:
    """Open scikit-learn's `load_digits`: 1,797 images of 10 classes, no download.

    The 8x8 images of 17 grey levels are doubled to 16x16 by bilinear interpolation
    (pixel centres aligned, edges repeated) and scaled to 0..255. A stratified
    `test_fraction` of them is the test split.
    """
    if request.image_size not in (None, (_SIDE, _SIDE)):
        raise ValueError(
            "Invalid value for argument `image_size`. Expected None or 16 for digits. "
            f"Received: image_size={request.image_size}"
        )
    if request.resize is not None:
        raise ValueError(
            "Invalid value for argument `resize`. Expected None for digits, which all "
            f"have one size. Received: resize={request.resize}"
        )
    if request.test_split not in (None, "test"):
        raise ValueError(
            "Invalid value for argument `test_split`. Expected None or 'test' for "
            f"digits. Received: test_split={request.test_split!r}"
        )
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = double(raw.images)[..., np.newaxis]
    images = np.repeat(images, request.channels or 1, axis=-1)
    every = InMemory(images, raw.target.astype(np.int32))
    kept, held = stratified(
        every.labels, request.test_fraction, request.split_seed, "test_fraction"
    )
    return Source(
        name="digits",
        description="scikit-learn's load_digits (UCI handwritten digits), 16x16",
        class_names=tuple(str(name) for name in raw.target_names),
        train=every.subset(kept),
        open_test=lambda: every.subset(held),
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
