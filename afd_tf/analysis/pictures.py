"""The images that Grad-CAM is shown on: of a data set by number, or files."""

import numpy as np

from afd_tf.data.images import Fit, read_image


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
        raise ValueError(
            "Invalid value for argument `images`. Expected numbers below "
            f"{info.test_examples}, the images of {info.name}, or files. Received: "
            f"images={max(numbers)}."
        )
    found = _numbered(dataset, numbers)
    images, labels = [], []
    for name in wanted:
        if name.isdecimal():
            image, label = found[int(name)]
        else:
            image, label = _from_file(name, info), None
        images.append(image)
        labels.append(label)
    return np.stack(images), labels, list(wanted)


def _numbered(dataset, numbers):
    found, start = {}, 0
    for images, labels in dataset:
        if len(found) == len(numbers):
            break
        for number in numbers:
            if start <= number < start + len(labels):
                place = number - start
                found[number] = (images[place].numpy(), int(labels[place]))
        start += len(labels)
    return found


def _from_file(path, info):
    *size, channels = info.image_shape
    pixels = read_image(path, Fit(tuple(size), channels, info.resize))
    return ((pixels / 255.0 - info.mean) / info.std).astype(np.float32)


def pixels(images, info):
    """Undo the normalisation: return images in [0, 1] for people."""
    return np.clip(images * np.asarray(info.std) + info.mean, 0.0, 1.0)
