"""Readers of data sets: one file per kind, each registered here."""

import os

from afd_tf.data.readers.digits import open_digits
from afd_tf.data.readers.image_folder import open_image_folder
from afd_tf.data.readers.reader import READERS, Reader, ReaderOptions, register_reader
from afd_tf.data.readers.tfds import open_tfds
from afd_tf.errors import invalid

register_reader("digits", open_digits)
register_reader("image_folder", open_image_folder)
register_reader("folder", open_image_folder)

__all__ = ["Reader", "ReaderOptions", "open_reader", "register_reader"]


def open_reader(options):
    """Open the reader that `options.name` means.

    A registered name comes first, then a path ("/...", "./...", "~/..." or any folder
    with a separator in its name), then tensorflow-datasets.

    Args:
        options: `ReaderOptions`.

    Returns:
        `Reader`.

    Raises:
        InvalidValue: if the name is unknown or the data set cannot be opened.
    """
    name = options.name
    if isinstance(name, os.PathLike):
        return open_image_folder(options)
    if not isinstance(name, str) or not name.strip():
        raise invalid(
            "name", "the name of a data set or the path of an image folder", name
        )
    if name in READERS:
        return READERS[name](options)
    starts = (os.sep, f".{os.sep}", f"..{os.sep}", "~")
    if name.startswith(starts) or (os.sep in name and os.path.isdir(name)):
        return open_image_folder(options)
    return open_tfds(options)
