"""What a source gives, what it is asked for, and the names that are known."""

import dataclasses
from collections.abc import Callable

from afd_tf.data.examples import InMemory, OnDemand, OnDisk

Examples = InMemory | OnDisk | OnDemand


@dataclasses.dataclass(frozen=True)
class Request:
    """What `load` asks of a source; the fields are the arguments of `load`.

    But `parts`: whether parts are cut out of whole images to train on. Then `train` is
    an `OnDemand` with `fetch_part`, whatever `memory_limit` and `cache_dir` say.
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
    cache_dir: str | None = None
    download: bool = False
    parts: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened data set.

    Attributes:
        name: str, for people and results.
        description: str, where the images come from.
        class_names: sequence of str.
        train: `InMemory`, `OnDisk` or `OnDemand`, see `hold`.
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


SOURCES: dict[str, Callable[[Request], Source]] = {}


def register(name, open_source):
    """Make `load(name, ...)` open a source of your own.

    Args:
        name: str.
        open_source: function from a `Request` to a `Source`.
    """
    SOURCES[name] = open_source
