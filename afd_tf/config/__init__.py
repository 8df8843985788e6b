"""Configuration by gin files. With the commands, the only folder that knows gin."""

from afd_tf.config.bindings import bind, call, clear, load, operative_text, settings
from afd_tf.config.gin_files import DEFAULT_PAIRING, DEFAULTS, find, folders, read

__all__ = [
    "DEFAULTS",
    "DEFAULT_PAIRING",
    "bind",
    "call",
    "clear",
    "find",
    "folders",
    "load",
    "operative_text",
    "read",
    "settings",
]
