"""Common flags of the benchmarks, checked before anything is measured."""

import argparse
import os
from pathlib import Path


def positive(text):
    """Return an int >= 1 from a flag's text."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an int >= 1, received {text!r}")
    return value


def figures_file(text):
    """Return a path that figures can be written to once they are measured."""
    path = Path(text)
    there = path if path.exists() else path.absolute().parent
    if path.is_dir() or not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(
            f"expected a file in a folder that exists and may be written, received "
            f"{text!r}"
        )
    return path


def prepared_folder(text):
    """Return the folder in which tensorflow-datasets has prepared CIFAR-100."""
    from afd_tf.data.readers.prepared import find_prepared

    if find_prepared(text, "cifar100", None, None) is None:
        raise argparse.ArgumentTypeError(
            "expected the folder in which tensorflow-datasets has prepared cifar100, "
            f"received {text!r}"
        )
    return text


def add_common(parser):
    """Add --json and --data_dir."""
    parser.add_argument(
        "--json",
        type=figures_file,
        metavar="PATH",
        help="write the figures there too, those of every turn among them",
    )
    parser.add_argument(
        "--data_dir",
        type=prepared_folder,
        # A default of text is checked like an argument.
        default=os.environ.get("AFD_TFDS_DIR") or None,
        help="folder in which tensorflow-datasets has prepared cifar100; default: "
        "AFD_TFDS_DIR in the environment; without either, images that need no file",
    )
