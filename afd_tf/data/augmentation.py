"""Order, crops, flips and normalisation, as functions of (seed, epoch, index)."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

PAD_MODES = ("reflect", "zero")
# Parts that are tried before the centre is taken, as torchvision does.
_TRIES = 10


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


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Cut out a part of random size and shape, resize it, flip at random.

    Szegedy et al. 2015, section 6, in torchvision's version: the part's share of the
    area is uniform in `scale`, the logarithm of its width over its height uniform in
    the logarithms of `ratio`. A part that does not fit is drawn again, up to ten times;
    then the centre is taken, as much of it as `ratio` allows.

    Attributes:
        scale: (low, high), 0 < low <= high <= 1, share of the image's area.
        ratio: (low, high), 0 < low <= high, width over height.
        flip: bool, whether each image is mirrored left to right with probability 1/2.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True


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


def crop_flip(images, crops, augmentation):
    """Cut the padded images at their offsets and mirror those that are to be flipped.

    Padding, crop and flip are one table of source pixels, so that a batch is a single
    gather and nothing padded is ever stored.

    Args:
        images: uint8 tensor (batch, height, width, channels).
        crops: int32 tensor (batch, 3), as `epoch_crops` gives them.
        augmentation: `Augmentation`.

    Returns:
        uint8 tensor (batch, height, width, channels).
    """
    batch, height, width, channels = images.shape
    count = batch * height * width
    pixels = tf.reshape(images, (count, channels))
    # Three positions below are added; int32 is the faster one.
    kind = np.int32 if 3 * count < 2**31 else np.int64
    # Whatever lies outside is taken from one black pixel after the last one: far
    # cheaper than blacking it out in every image afterwards.
    outside = count if augmentation.pad_mode == "zero" else None
    if outside is not None:
        pixels = tf.concat([pixels, tf.zeros((1, channels), tf.uint8)], axis=0)

    rows = tf.range(height)[tf.newaxis] + crops[:, 0, tf.newaxis]
    columns = tf.range(width)[tf.newaxis]
    columns = tf.where(crops[:, 2, tf.newaxis] > 0, width - 1 - columns, columns)
    columns += crops[:, 1, tf.newaxis]
    first = np.arange(batch, dtype=kind) * (height * width)
    line = np.arange(height, dtype=kind) * width
    rows = tf.gather(_padded(line, augmentation.padding, outside), rows)
    rows += first[:, np.newaxis]
    line = np.arange(width, dtype=kind)
    columns = tf.gather(_padded(line, augmentation.padding, outside), columns)
    wanted = rows[:, :, tf.newaxis] + columns[:, tf.newaxis, :]
    if outside is not None:
        wanted = tf.minimum(wanted, outside)
    return tf.gather(pixels, wanted)


def _padded(line, padding, outside):
    """Pad a line of positions: by reflection, or with the position `outside`."""
    if outside is None:
        return np.pad(line, padding, mode="reflect")
    return np.pad(line, padding, constant_values=outside)


def draw_part(augmentation, seed, epoch, index, size):
    """Draw the part of an image to cut out, and whether to mirror it.

    Args:
        augmentation: `RandomResizedCrop`.
        seed: int >= 0.
        epoch: int >= 0.
        index: int >= 0, which image of the data set.
        size: (height, width) of the image in pixels.

    Returns:
        int32 array (5,): first row, first column, height and width of the part, 1 to
        mirror it, else 0.
    """
    # Counter-based: any image of any epoch without those before it. NumPy guarantees
    # the raw stream, which its distributions are not.
    stream = np.random.Philox(
        key=np.array([seed, epoch], np.uint64),
        counter=np.array([0, 0, 0, index], np.uint64),
    )
    drawn = (stream.random_raw(2 * _TRIES + 3) >> np.uint64(11)) * 2.0**-53
    top, left, flip = drawn[-3:]
    size = tuple(map(int, size))
    part = _fitting_part(augmentation, drawn, *size)
    if part is None:
        part = _largest_part(augmentation, *size)
        top = left = 0.5
    rows, columns = size[0] - part[0] + 1, size[1] - part[1] + 1
    mirror = augmentation.flip and flip < 0.5
    return np.array([int(top * rows), int(left * columns), *part, mirror], np.int32)


def _fitting_part(augmentation, drawn, height, width):
    (small, large), (tall, wide) = augmentation.scale, augmentation.ratio
    for share, shape in drawn[: 2 * _TRIES].reshape(_TRIES, 2):
        area = height * width * (small + share * (large - small))
        ratio = math.exp(math.log(tall) + shape * (math.log(wide) - math.log(tall)))
        part = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < part[0] <= height and 0 < part[1] <= width:
            return part
    return None


def _largest_part(augmentation, height, width):
    tall, wide = augmentation.ratio
    ratio = min(max(width / height, tall), wide)
    return (
        max(min(height, round(width / ratio)), 1),
        max(min(width, round(height * ratio)), 1),
    )


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


def channel_statistics(parts):
    """Compute mean and standard deviation per channel, exactly, in float64.

    Args:
        parts: iterable of uint8 arrays (examples, height, width, channels), looked at
            one after the other.

    Returns:
        Two tuples of `channels` floats, fractions of 255. The deviation of a channel
        that never changes is given as 1, which leaves it at 0 when standardised.
    """
    histogram = np.zeros((1, 256), np.int64)
    for part in parts:
        lines = part.reshape(-1, part.shape[-1])
        counts = [np.bincount(channel, minlength=256) for channel in lines.T]
        histogram = histogram + np.stack(counts)
    values = np.arange(256, dtype=np.float64) / 255.0
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, np.newaxis]) ** 2).sum(axis=1))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())
