"""Readers of data sets: their options, their result, and the registry."""

import dataclasses
from collections.abc import Callable

from afd_tf.data.splits import InMemory, OnDemand

Examples = InMemory | OnDemand


@dataclasses.dataclass(frozen=True)
class ReaderOptions:
    """Arguments of `load` that a reader is given, under their names, and one more.

    Attributes:
        parts: bool, whether parts are cut out of whole images to train on. Then `train`
            is an `OnDemand` with `fetch_part`, whatever `memory_limit` says.
    """

    name: str
    data_dir: str | None = None
    image_size: tuple[int, int] | None = None
    resize: int | None = None
    channels: int | None = None
    test_split: str | None = None
    test_fraction: float = 0.2
    split_seed: int = 0
    memory_limit: int = 2 * 2**30
    download: bool = False
    parts: bool = False


@dataclasses.dataclass(frozen=True)
class Reader:
    """A data set that is open for reading.

    Attributes:
        name: str, for people and results.
        description: str, where the images come from.
        class_names: sequence of str.
        train: `InMemory` or `OnDemand`.
        open_test: function to the examples to evaluate; not called where a part of the
            training split is evaluated instead, so nothing of them may be read before.
        evaluated_split: "test" or "validation", what `open_test` gives.
        flip: bool, whether a mirrored image still belongs to its class.
    """

    name: str
    description: str
    class_names: tuple[str, ...]
    train: Examples
    open_test: Callable[[], Examples]
    evaluated_split: str
    flip: bool


READERS: dict[str, Callable[[ReaderOptions], Reader]] = {}


def register_reader(name, open_reader):
    """Make `load(name, ...)` read a data set of your own.

    Args:
        name: str.
        open_reader: function from `ReaderOptions` to a `Reader`.
    """
    READERS[name] = open_reader
