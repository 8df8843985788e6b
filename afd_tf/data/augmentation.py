"""Order, pad-crop-flip and normalisation, all functions of (seed, epoch, index)."""

import dataclasses

import numpy as np
import tensorflow as tf

PAD_MODES = ("reflect", "zero")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Pad, crop back to the original size at random, flip horizontally at random.

    Attributes:
        padding: int >= 0, pixels added on each side before the crop.
        pad_mode: "reflect" (the edge pixel is not repeated) or "zero" (black, before
            normalisation).
        flip: bool, whether each image is mirrored left to right with probability 1/2.
    """

    padding: int
    pad_mode: str
    flip: bool


def epoch_order(count, seed, epoch):
    """Return the order of an epoch: an exact permutation of the whole set.

    Args:
        count: int, number of examples.
        seed: int.
        epoch: int64 scalar tensor.

    Returns:
        int64 tensor (count,), every index in [0, count) once.
    """
    # Folded, so that the order shares no random numbers with the crops.
    key = tf.random.experimental.stateless_fold_in(_key(seed, epoch), 1)
    return tf.random.experimental.stateless_shuffle(
        tf.range(count, dtype=tf.int64), key, alg="philox"
    )


def epoch_crops(count, seed, epoch, augmentation):
    """Draw the crop offsets and flips of every example for an epoch.

    Args:
        count: int, number of examples.
        seed: int.
        epoch: int64 scalar tensor.
        augmentation: `Augmentation`.

    Returns:
        int32 tensor (count, 3), row i for example i: first row and first column of the
        crop in the padded image, each in [0, 2 * padding], and 1 to flip, else 0.
    """
    drawn = tf.random.stateless_uniform(
        (count, 3),
        _key(seed, epoch),
        minval=0,
        maxval=2**31 - 1,
        dtype=tf.int32,
        alg="philox",
    )
    offsets = 2 * augmentation.padding + 1
    return drawn % tf.constant([offsets, offsets, 2 if augmentation.flip else 1])


def _key(seed, epoch):
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])


def crop_flip(pixels, index, crops, image_shape, augmentation):
    """Cut the padded images at their offsets and mirror those that are to be flipped.

    Padding, crop and flip are one table of source pixels per image, so that a batch is
    a single gather and nothing padded is ever stored.

    Args:
        pixels: uint8 tensor (images * height * width, channels), images one after the
            other.
        index: integer tensor (batch,), which images.
        crops: int32 tensor (batch, 3), as `epoch_crops` gives them.
        image_shape: tuple (height, width, channels).
        augmentation: `Augmentation`.

    Returns:
        uint8 tensor (batch, height, width, channels).
    """
    height, width, channels = image_shape
    rows = tf.range(height)[tf.newaxis] + crops[:, 0, tf.newaxis]
    columns = tf.range(width)[tf.newaxis]
    columns = tf.where(crops[:, 2, tf.newaxis] > 0, width - 1 - columns, columns)
    columns += crops[:, 1, tf.newaxis]
    rows = tf.gather(_padded_line(height, augmentation), rows)
    columns = tf.gather(_padded_line(width, augmentation), columns)

    # int32 indices are the faster ones; a very large set needs the wider type.
    kind = tf.int32 if (pixels.shape[0] or 0) < 2**31 else tf.int64
    first = tf.cast(index, kind)[:, tf.newaxis] * height
    lines = (first + tf.cast(tf.maximum(rows, 0), kind)) * width
    wanted = lines[:, :, tf.newaxis]
    wanted += tf.cast(tf.maximum(columns, 0), kind)[:, tf.newaxis, :]
    images = tf.gather(pixels, wanted)
    if augmentation.pad_mode == "zero" and augmentation.padding:
        inside = (rows >= 0)[:, :, tf.newaxis] & (columns >= 0)[:, tf.newaxis, :]
        images *= tf.cast(inside, tf.uint8)[..., tf.newaxis]
    return tf.ensure_shape(images, (index.shape[0], height, width, channels))


def _padded_line(size, augmentation):
    """Return where each position of a padded line is taken from, -1 for nowhere."""
    line = np.arange(size, dtype=np.int32)
    padding = augmentation.padding
    if augmentation.pad_mode == "zero":
        return tf.constant(np.pad(line, padding, constant_values=-1))
    return tf.constant(np.pad(line, padding, mode="reflect"))


def normalize(images, mean, std):
    """Standardise per channel: (x / 255 - mean) / std.

    Args:
        images: uint8 tensor (batch, height, width, channels).
        mean: sequence of `channels` floats, fractions of 255.
        std: sequence of `channels` floats, fractions of 255.

    Returns:
        float32 tensor of the same shape.
    """
    _, height, width, channels = images.shape
    scale = 1.0 / (255.0 * np.asarray(std, np.float64))
    shift = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
    # Broadcasting over a whole line is much faster than over three channels.
    scale = tf.constant(np.tile(scale, width), tf.float32)
    shift = tf.constant(np.tile(shift, width), tf.float32)
    lines = tf.reshape(images, (-1, height, width * channels))
    lines = tf.cast(lines, tf.float32) * scale + shift
    return tf.reshape(lines, (-1, height, width, channels))


def channel_statistics(images, chunk=4096):
    """Compute mean and standard deviation per channel, exactly, in float64.

    Args:
        images: uint8 array (examples, height, width, channels).
        chunk: int, images looked at together.

    Returns:
        Two tuples of `channels` floats, fractions of 255. The deviation of a channel
        that never changes is given as 1, which leaves it at 0 when standardised.
    """
    channels = images.shape[-1]
    histogram = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk]
        for channel in range(channels):
            histogram[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
    values = np.arange(256, dtype=np.float64) / 255.0
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, np.newaxis]) ** 2).sum(axis=1))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())
