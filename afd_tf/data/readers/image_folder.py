"""Image folders: a folder per class, with or without train/ and test/ above them."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from afd_tf.data.images import Fit, read_image, read_part, read_size
from afd_tf.data.info import IMAGE_FOLDER
from afd_tf.data.readers.reader import Reader, ReaderOptions
from afd_tf.data.splits import (
    EncodedSplit,
    OnDemand,
    examples_needed,
    sha256,
    stratified,
)
from afd_tf.errors import InvalidValue, invalid

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_SPLITS = {"test": ("test",), "validation": ("validation", "val")}
# Images that are decoded before any of them is handed on.
_TOGETHER = 256


def open_image_folder(options: ReaderOptions) -> Reader:
    """Open `<folder>/train/<class>/*` with test/ or validation/ beside it.

    `test/` is evaluated, or `validation/` (`val/`) where there is none or where
    `test_split="validation"` asks for it. A folder with class folders only, or with
    train/ only, is split: a stratified `test_fraction` is the test split.

    Hidden files and folders (leading dot) and files without an image's extension are
    left out, and a warning says so. Images are decoded by content. Links may not lead
    out of the folder.
    """
    root = _root(options)
    left_out = []
    base, evaluated = root, None
    if _is_split(root, "train"):
        base = os.path.join(root, "train")
        evaluated = _evaluated(root, options.test_split)
    elif options.test_split not in (None, "test"):
        raise _invalid_split(options.test_split, root)
    classes = _classes(root, base, left_out)
    files = _files(root, base, classes, classes, left_out)
    fit = Fit(options.image_size, options.channels or 3, options.resize)

    def examples(files, parts=False):
        split = FolderSplit(root, files, len(classes), fit)
        return split.examples(options.memory_limit, parts)

    if evaluated:
        split_name, split_base = evaluated

        def open_test():
            left_out = []
            present = _classes(root, split_base, left_out)
            unknown = [name for name in present if name not in classes]
            if unknown:
                raise InvalidValue(
                    "Invalid image folder. Expected the classes of train/ in "
                    f"{split_base!r}. Received: {unknown}"
                )
            files = _files(root, split_base, present, classes, left_out)
            _warn(left_out)
            return examples(files)

        train = examples(files, options.parts)
    else:
        split_name = "test"
        labels = _labels(files)
        kept, held_out = stratified(
            labels, options.test_fraction, options.split_seed, "test_fraction", classes
        )
        _warn_of_small_classes(labels, held_out, classes, options.test_fraction)
        train = examples([files[row] for row in kept], options.parts)

        def open_test():
            return examples([files[row] for row in held_out])

    _warn(left_out)
    return Reader(
        name=os.path.basename(root),
        description=IMAGE_FOLDER,
        class_names=tuple(classes),
        train=train,
        open_test=open_test,
        evaluated_split=split_name,
        flip=True,
    )


# The files ----------------------------------------------------------------------------


class ImageFile(NamedTuple):
    """An image file: its path, size in bytes, and label."""

    path: str
    size: int
    label: int


def _labels(files):
    return np.array([file.label for file in files], np.int32)


def _root(options):
    named = options.name in ("folder", "image_folder")
    path = options.data_dir if named else options.name
    if named and path is None:
        path = os.environ.get("AFD_IMAGE_FOLDER")
        if not path:
            expected = "the path of the image folder (--data_dir)"
            raise invalid("data_dir", expected, None)
    root = os.path.realpath(os.path.expanduser(os.fspath(path)))
    if not os.path.isdir(root):
        argument = "data_dir" if named else "name"
        raise invalid(argument, "an existing image folder", os.fspath(path))
    return root


def _is_split(root, name):
    """Tell a split (folders inside) from a class that happens to be called `name`."""
    path = os.path.join(root, name)
    _check_link(root, path)
    if not os.path.isdir(path):
        return False
    with _scanned(path) as entries:
        return any(
            os.path.isdir(e.path) and not e.name.startswith(".") for e in entries
        )


def _evaluated(root, wanted):
    """Return (split, folder) to evaluate, or None where it must be split off."""
    if wanted not in (None, "test", "validation", "val"):
        raise _invalid_split(wanted, root)
    order = ("test", "validation") if wanted is None else (wanted,)
    for split in order:
        split = "validation" if split == "val" else split
        for name in _SPLITS[split]:
            if _is_split(root, name):
                return split, os.path.join(root, name)
    if wanted is not None:
        raise _invalid_split(wanted, root)
    return None


def _invalid_split(wanted, root):
    expected = f"a split that is a folder of {root!r}: 'test' or 'validation'"
    return invalid("test_split", expected, wanted)


@contextlib.contextmanager
def _scanned(folder):
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise InvalidValue(
            f"Invalid image folder {folder!r}. Expected a folder that can be read. "
            f"Received: {error.strerror}"
        ) from error


def _entries(root, folder, left_out):
    """List a folder in a fixed order, without what is hidden, links checked."""
    with _scanned(folder) as scanned:
        ordered = sorted(scanned, key=lambda entry: entry.name)
    entries = []
    for entry in ordered:
        if entry.name.startswith("."):
            left_out.append(entry.path)
            continue
        _check_link(root, entry.path)
        entries.append(entry)
    return entries


def _check_link(root, path):
    """Refuse a link that leads out of `root`, or to nothing, or to itself."""
    if os.path.islink(path):
        target = os.path.realpath(path)
        if not os.path.exists(path):
            raise InvalidValue(
                f"Invalid link {path!r} in an image folder. Expected links to files "
                f"and folders that exist. Received: a link to {os.readlink(path)!r}. "
                "Remove it, or put back what it led to."
            )
        if os.path.commonpath([root, target]) != root:
            raise InvalidValue(
                f"Invalid link {path!r} in an image folder. Expected links that stay "
                f"inside {root!r}. Received: a link to {target!r}. Copy the files "
                "instead."
            )


def _classes(root, base, left_out):
    names = []
    for entry in _entries(root, base, left_out):
        if os.path.isdir(entry.path):
            try:
                entry.name.encode("utf-8")
            except UnicodeEncodeError:
                raise InvalidValue(
                    "Invalid class folder. Expected a name in UTF-8. Received: "
                    f"{entry.path!r}"
                ) from None
            names.append(entry.name)
        else:
            left_out.append(entry.path)
    if len(names) < 2:
        raise InvalidValue(
            f"Invalid image folder {base!r}. Expected at least two folders, one per "
            f"class, or train/ and test/ with such folders. Received: {names}"
        )
    return names


def _files(root, base, names, classes, left_out):
    """Return the `ImageFile`s of the folders `names`, by class and then by name."""
    files = []
    for name in names:
        before, label = len(files), classes.index(name)
        for entry in _entries(root, os.path.join(base, name), left_out):
            if os.path.isdir(entry.path):
                raise InvalidValue(
                    "Invalid image folder. Expected images directly inside "
                    f"{os.path.join(base, name)!r}. Received: the folder {entry.name!r}"
                )
            if entry.is_file() and entry.name.lower().endswith(_EXTENSIONS):
                files.append(ImageFile(entry.path, _size(entry), label))
            else:
                left_out.append(entry.path)
        if len(files) == before:
            raise InvalidValue(
                f"Invalid image folder. Expected images ({', '.join(_EXTENSIONS)}) in "
                f"{os.path.join(base, name)!r}. Received: none"
            )
    return files


def _size(entry):
    try:
        return entry.stat().st_size
    except OSError as error:
        raise InvalidValue(
            f"Missing image {entry.path!r}: {error.strerror}. Put it back."
        ) from error


def _warn(left_out):
    if left_out:
        shown = ", ".join(repr(path) for path in left_out[:3])
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        logging.getLogger("afd_tf").warning(
            "Left out of the image folder (hidden, or not images): %s%s", shown, more
        )


def _warn_of_small_classes(labels, held_out, classes, fraction):
    counts = np.bincount(labels)
    small = np.setdiff1d(labels, labels[held_out])
    if len(small):
        shown = ", ".join(
            f"{classes[label]!r} ({counts[label]})" for label in small[:3]
        )
        more = f" and {len(small) - 3} more" if len(small) > 3 else ""
        logging.getLogger("afd_tf").warning(
            "Classes with too few images for one to be tested on: %s%s. At "
            "test_fraction=%s a class needs %s.",
            shown,
            more,
            fraction,
            examples_needed(fraction),
        )


# Their images -------------------------------------------------------------------------


class FolderSplit(EncodedSplit):
    """Image files as a split.

    Args:
        root: str, the image folder.
        files: list of `ImageFile`.
        num_classes: int.
        fit: `Fit`; its `size` may be None where all images have one size.

    Raises:
        InvalidValue: without a size, if the images differ in it.
    """

    def __init__(self, root, files, num_classes, fit):
        if fit.size is None:
            fit = dataclasses.replace(fit, size=_common_size(files))
        self.where = f"the {len(files)} images of {os.path.basename(root)}"
        self.count = len(files)
        self.image_shape = fit.shape
        self.num_classes = num_classes
        self._root = root
        self._files = files
        self._fit = fit

    def decode(self):
        labels = _labels(self._files)
        read = functools.partial(read_image, fit=self._fit)
        for start in range(0, self.count, _TOGETHER):
            end = start + _TOGETHER
            images = np.stack(list(_in_threads(read, self._files[start:end])))
            yield images, labels[start:end]

    def on_demand(self):
        fit, labels = self._fit, _labels(self._files)
        paths = [file.path for file in self._files]
        with tf.device("/CPU:0"):
            table = tf.constant(labels)

        def example(read, row, *arguments):
            # The path stays in Python: a file's name need not be valid UTF-8.
            image = tf.numpy_function(read, [row, *arguments], tf.uint8, stateful=False)
            return tf.ensure_shape(image, fit.shape), tf.gather(table, row)

        def fetch(row):
            return example(lambda row: read_image(paths[row], fit), row)

        def fetch_part(row, draw, key):
            def read(row, *key):
                return read_part(paths[row], fit, functools.partial(draw, *key))

            return example(read, row, *key)

        return OnDemand(
            self.count,
            self.image_shape,
            fetch,
            lambda: labels,
            self.files_digest(),
            fetch_part,
        )

    def files_digest(self):
        names = [
            os.fsencode(file.path.removeprefix(self._root)) for file in self._files
        ]
        return sha256(
            *(
                b"%d %b %d %d\n" % (len(name), name, file.size, file.label)
                for name, file in zip(names, self._files, strict=True)
            )
        )


def _common_size(files):
    sizes = {}
    for file, size in zip(files, _in_threads(read_size, files), strict=True):
        sizes.setdefault(size, file.path)
        if len(sizes) > 1:
            (one, first), (two, second) = sizes.items()
            raise invalid(
                "image_size",
                f"(height, width) for images of differing sizes: {first!r} is {one}, "
                f"{second!r} is {two}",
                None,
            )
    return next(iter(sizes))


def _in_threads(read, files):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            yield from pool.map(read, [file.path for file in files])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
