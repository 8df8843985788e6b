"""AFD: train image classifiers together, take home the small one.

Feature-map-level online adversarial knowledge distillation (Chung et al., ICML 2020)
as a Keras model with its own training step.
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from afd_tf._version import __version__

if TYPE_CHECKING:
    from afd_tf import (
        analysis,
        data,
        export,
        losses,
        methods,
        networks,
        schedules,
        topology,
    )
    from afd_tf.distiller import OnlineDistiller

__all__ = [
    "OnlineDistiller",
    "__version__",
    "analysis",
    "data",
    "export",
    "losses",
    "methods",
    "networks",
    "schedules",
    "topology",
]


def __getattr__(name):
    if name == "OnlineDistiller":
        return importlib.import_module("afd_tf.distiller").OnlineDistiller
    if name in __all__:
        return importlib.import_module(f"afd_tf.{name}")
    message = f"module 'afd_tf' has no attribute {name!r}"
    raise AttributeError(message, name=name, obj=sys.modules[__name__])


def __dir__():
    return sorted(__all__)


def _is_command():
    program = Path(sys.argv[0]).name if getattr(sys, "argv", None) else ""
    return program in ("-m", "reproduce.py") or program.startswith("afd-")


# Keras finds the classes of a saved model among those imported. Only the commands wait:
# they check what was typed before they load TensorFlow, which takes seconds.
if not _is_command():
    importlib.import_module("afd_tf.distiller")
