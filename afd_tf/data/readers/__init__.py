"""Where images come from: one file per kind of source, each registered here."""

import os

from afd_tf.data.readers.base import SOURCES, Request, Source, register
from afd_tf.data.readers.digits import open_digits
from afd_tf.data.readers.image_folder import open_image_folder
from afd_tf.data.readers.tfds import open_tfds

register("digits", open_digits)
register("image_folder", open_image_folder)
register("folder", open_image_folder)

__all__ = ["Request", "Source", "open_source", "register"]


def open_source(request):
    """Open the source that `request.name` means.

    A registered name comes first, then a path ("/...", "./...", "~/..." or any folder
    with a separator in its name), then tensorflow-datasets.

    Args:
        request: `Request`.

    Returns:
        `Source`.

    Raises:
        ValueError: if the name is unknown or the source cannot be opened.
    """
    name = request.name
    if isinstance(name, os.PathLike):
        return open_image_folder(request)
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            "Invalid value for argument `name`. Expected the name of a data set or the "
            f"path of an image folder. Received: name={name!r}"
        )
    if name in SOURCES:
        return SOURCES[name](request)
    starts = (os.sep, f".{os.sep}", f"..{os.sep}", "~")
    if name.startswith(starts) or (os.sep in name and os.path.isdir(name)):
        return open_image_folder(request)
    return open_tfds(request)
