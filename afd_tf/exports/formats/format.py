"""What a format of exported networks is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np


@dataclass(frozen=True)
class Format:
    """How to write a network in one format, and how to run what was written.

    Attributes:
        suffix: Ending of the file's name, `""` for a folder.
        write: Takes a float32 network and a path that does not exist, and writes.
        load: Takes the path and returns a function from images, a NumPy array of shape
            `(batch, height, width, channels)`, to logits `(batch, classes)`. It must
            run the file as its users will, not the network.
        modules: What `write` and `load` import beyond this package's requirements.
        extra: The optional requirement of this package that brings them.
    """

    suffix: str
    write: Callable[["keras.Model", Path], None]
    load: Callable[[Path], Callable[["np.ndarray"], Any]]
    modules: tuple[str, ...] = ()
    extra: str = ""

    def missing(self) -> list[str]:
        """List the modules in `modules` that are not installed."""
        return [name for name in self.modules if util.find_spec(name) is None]
