"""Random-resized-crop and flip, functions of (seed, epoch, index)."""

import dataclasses
import math

import numpy as np

# Parts that are tried before the centre is taken, as torchvision does.
_TRIES = 10


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
