"""Format: how to write a network as a file, and how to run that file."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import util


@dataclass(frozen=True)
class Format:
    """One file format of exported networks.

    Attributes:
        suffix: str, ending of the file's name, such as ".keras" or ".weights.h5"; `""`
            for a folder.
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

    def is_name(self, path):
        """Return whether a file's name has this format's ending, and more before it."""
        return path.name.endswith(self.suffix) and path.name != self.suffix

    def missing(self):
        """List the modules in `modules` that are not installed."""
        return [name for name in self.modules if util.find_spec(name) is None]
