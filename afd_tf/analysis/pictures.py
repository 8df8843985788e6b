"""Images for Grad-CAM, by their number in a data set or from files."""

import numpy as np

from afd_tf.data.images import Fit, read_image
from afd_tf.errors import invalid


def choose(wanted, dataset, info):
    """Return the images to look at, as networks take them.

    Args:
        wanted: list of str, numbers of images in the data set, or paths of files; or
            an int, how many images to take at equal distances.
        dataset: tf.data.Dataset that was loaded with `info`.
        info: `afd_tf.data.DataInfo`.

    Returns:
        float32 array `(images, height, width, channels)`; list of int, their labels,
        None for files; list of str, what to call them.

    Raises:
        ValueError: for a number that is out of range, or a file that is no image.
    """
    if isinstance(wanted, int):
        count = min(wanted, info.test_examples)
        numbers = np.linspace(0, info.test_examples - 1, count).astype(int)
        wanted = [str(number) for number in numbers]
    numbers = {int(name) for name in wanted if name.isdecimal()}
    if numbers and max(numbers) >= info.test_examples:
        raise invalid(
            "images",
            f"numbers below {info.test_examples}, the images of {info.name}, or files",
            max(numbers),
        )
    numbered = _numbered(dataset, numbers)
    images, labels = [], []
    for name in wanted:
        if name.isdecimal():
            image, label = numbered[int(name)]
        else:
            image, label = _from_file(name, info), None
        images.append(image)
        labels.append(label)
    return np.stack(images), labels, list(wanted)


def _numbered(dataset, numbers):
    """Return a dict from each number to its image and label."""
    examples, start = {}, 0
    for images, labels in dataset:
        if len(examples) == len(numbers):
            break
        for number in numbers:
            index = number - start
            if 0 <= index < len(labels):
                examples[number] = (images[index].numpy(), int(labels[index]))
        start += len(labels)
    return examples


def _from_file(path, info):
    *size, channels = info.image_shape
    pixels = read_image(path, Fit(tuple(size), channels, info.resize))
    return ((pixels / 255.0 - info.mean) / info.std).astype(np.float32)


def pixels(images, info):
    """Undo the normalisation: return images in [0, 1]."""
    return np.clip(images * np.asarray(info.std) + info.mean, 0.0, 1.0)
