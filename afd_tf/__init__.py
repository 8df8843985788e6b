"""AFD: train image classifiers together, take home the small one.

Feature-map-level online adversarial knowledge distillation (Chung et al., ICML 2020)
as a Keras model with its own training step.
"""

import importlib
from typing import TYPE_CHECKING

from afd_tf._version import __version__

if TYPE_CHECKING:
    from afd_tf import data, export, losses, methods, networks, schedules, topology
    from afd_tf.distiller import OnlineDistiller

__all__ = [
    "OnlineDistiller",
    "__version__",
    "data",
    "export",
    "losses",
    "methods",
    "networks",
    "schedules",
    "topology",
]


def __getattr__(name):
    # Resolved on first use, so that `import afd_tf` costs nothing before it is needed.
    if name == "OnlineDistiller":
        return importlib.import_module("afd_tf.distiller").OnlineDistiller
    if name in __all__:
        return importlib.import_module(f"afd_tf.{name}")
    raise AttributeError(f"module 'afd_tf' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
