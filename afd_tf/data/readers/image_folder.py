"""An image folder: a folder per class, with or without train/ and test/ above them."""

import contextlib
import logging
import os

import numpy as np

from afd_tf.data.holding import hold
from afd_tf.data.readers.base import Request, Source
from afd_tf.data.readers.folder_reading import folder_split
from afd_tf.data.readers.images import Fit
from afd_tf.data.splits import examples_needed, stratified

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_SPLITS = {"test": ("test",), "validation": ("validation", "val")}


def open_image_folder(request: Request) -> Source:
    """Open `<folder>/train/<class>/*` with test/ or validation/ beside it.

    `test/` is evaluated, or `validation/` (`val/`) where there is none or where
    `test_split="validation"` asks for it. A folder with class folders only, or with
    train/ only, is split: a stratified `test_fraction` is the test split.

    Hidden files and folders (leading dot) and files without an image's extension are
    left out, and a warning says so. Images are decoded by content. Links may not lead
    out of the folder.
    """
    root = _root(request)
    notes = []
    base, evaluated = root, None
    if _is_split(root, "train"):
        base = os.path.join(root, "train")
        evaluated = _evaluated(root, request.test_split)
    elif request.test_split not in (None, "test"):
        raise _invalid_split(request.test_split, root)
    classes = _classes(root, base, notes)
    paths, labels = _files(root, base, classes, notes)
    channels = request.channels or 3

    def build(paths, labels, parts=False):
        fit = Fit(request.image_size, channels, request.resize)
        split = folder_split(root, paths, labels, len(classes), fit)
        return hold(split, request.memory_limit, request.cache_dir, parts)

    if evaluated:
        split_name, split_base = evaluated

        def open_test():
            skipped = []
            found = _classes(root, split_base, skipped)
            unknown = [name for name in found if name not in classes]
            if unknown:
                raise ValueError(
                    "Invalid image folder. Expected the classes of train/ in "
                    f"{split_base!r}. Received: {unknown}"
                )
            files = _files(root, split_base, found, skipped, classes)
            _warn(skipped)
            return build(*files)

        train = build(paths, labels, request.parts)
    else:
        split_name = "test"
        kept, held = stratified(
            labels, request.test_fraction, request.split_seed, "test_fraction", classes
        )
        _warn_of_small_classes(labels, held, classes, request.test_fraction)
        train = build([paths[row] for row in kept], labels[kept], request.parts)

        def open_test():
            return build([paths[row] for row in held], labels[held])

    _warn(notes)
    return Source(
        name=os.path.basename(root),
        description="image folder",
        class_names=tuple(classes),
        train=train,
        open_test=open_test,
        evaluated_split=split_name,
        flip=True,
    )


def _root(request):
    named = request.name in ("folder", "image_folder")
    path = request.data_dir if named else request.name
    if named and path is None:
        path = os.environ.get("AFD_IMAGE_FOLDER")
        if not path:
            raise ValueError(
                "Invalid value for argument `data_dir`. Expected the path of the image "
                "folder (--data_dir). Received: data_dir=None"
            )
    root = os.path.realpath(os.path.expanduser(os.fspath(path)))
    if not os.path.isdir(root):
        raise ValueError(
            f"Invalid value for argument `{'data_dir' if named else 'name'}`. Expected "
            f"an existing image folder. Received: {os.fspath(path)!r}"
        )
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
    return ValueError(
        "Invalid value for argument `test_split`. Expected a split that is a folder of "
        f"{root!r}: 'test' or 'validation'. Received: test_split={wanted!r}"
    )


@contextlib.contextmanager
def _scanned(folder):
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise ValueError(
            f"Invalid image folder {folder!r}. Expected a folder that can be read. "
            f"Received: {error.strerror}"
        ) from error


def _entries(root, folder, notes):
    """List a folder in a fixed order, without what is hidden, links checked."""
    with _scanned(folder) as found:
        ordered = sorted(found, key=lambda entry: entry.name)
    entries = []
    for entry in ordered:
        if entry.name.startswith("."):
            notes.append(entry.path)
            continue
        _check_link(root, entry.path)
        entries.append(entry)
    return entries


def _check_link(root, path):
    """Refuse a link that leads out of `root`, or to nothing, or to itself."""
    if os.path.islink(path):
        target = os.path.realpath(path)
        if not os.path.exists(path):
            raise ValueError(
                f"Invalid link {path!r} in an image folder. Expected links to files "
                f"and folders that exist. Received: a link to {os.readlink(path)!r}. "
                "Remove it, or put back what it led to."
            )
        if os.path.commonpath([root, target]) != root:
            raise ValueError(
                f"Invalid link {path!r} in an image folder. Expected links that stay "
                f"inside {root!r}. Received: a link to {target!r}. Copy the files "
                "instead."
            )


def _classes(root, base, notes):
    names = []
    for entry in _entries(root, base, notes):
        if os.path.isdir(entry.path):
            try:
                entry.name.encode("utf-8")
            except UnicodeEncodeError:
                raise ValueError(
                    "Invalid class folder. Expected a name in UTF-8. Received: "
                    f"{entry.path!r}"
                ) from None
            names.append(entry.name)
        else:
            notes.append(entry.path)
    if len(names) < 2:
        raise ValueError(
            f"Invalid image folder {base!r}. Expected at least two folders, one per "
            f"class, or train/ and test/ with such folders. Received: {names}"
        )
    return names


def _files(root, base, names, notes, classes=None):
    """Return paths and labels of all images, by class and then by name."""
    paths, labels = [], []
    for name in names:
        before = len(paths)
        for entry in _entries(root, os.path.join(base, name), notes):
            if os.path.isdir(entry.path):
                raise ValueError(
                    "Invalid image folder. Expected images directly inside "
                    f"{os.path.join(base, name)!r}. Received: the folder {entry.name!r}"
                )
            if os.path.isfile(entry.path) and entry.name.lower().endswith(_EXTENSIONS):
                paths.append(entry.path)
            else:
                notes.append(entry.path)
        if len(paths) == before:
            raise ValueError(
                f"Invalid image folder. Expected images ({', '.join(_EXTENSIONS)}) in "
                f"{os.path.join(base, name)!r}. Received: none"
            )
        labels += [(classes or names).index(name)] * (len(paths) - before)
    return paths, np.asarray(labels, np.int32)


def _warn(notes):
    if notes:
        shown = ", ".join(repr(path) for path in notes[:3])
        more = f" and {len(notes) - 3} more" if len(notes) > 3 else ""
        logging.getLogger("afd_tf").warning(
            "Left out of the image folder (hidden, or not images): %s%s", shown, more
        )


def _warn_of_small_classes(labels, held, classes, fraction):
    counts = np.bincount(labels)
    small = np.setdiff1d(labels, labels[held])
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
