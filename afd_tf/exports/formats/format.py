"""Format: how to write a network as a file, and how to run that file."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import util


@dataclass(frozen=True)
class Format:
    """One file format of exported networks.

    Attributes:
        suffix: str, ending of the file's name, `""` for a folder.
        write: function of a float32 keras.Model and a pathlib.Path that does not exist;
            it writes.
        load: function of that path. It returns a function from images, a NumPy array
            `(batch, height, width, channels)`, to logits `(batch, classes)`, which
            must run the file as its users will, not the network.
        modules: tuple of str, what `write` and `load` import beyond this package's
            requirements.
        extra: str, the optional requirement of this package that brings them.
    """

    suffix: str
    write: Callable
    load: Callable
    modules: tuple = ()
    extra: str = ""

    def missing(self):
        """List the modules in `modules` that are not installed."""
        return [name for name in self.modules if util.find_spec(name) is None]
