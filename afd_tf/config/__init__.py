"""Configuration by gin files. With the commands, the only folder that knows gin."""

from afd_tf.config.binding import (
    DEFAULT_PAIRING,
    DEFAULTS,
    bind,
    call,
    clear,
    find,
    folders,
    load,
    operative_text,
    read,
    settings,
)

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
