"""AFD: train image classifiers together, take home the small one.

Feature-map-level online adversarial knowledge distillation (Chung et al., ICML 2020)
as a Keras model with its own training step.
"""

import importlib
import sys
from typing import TYPE_CHECKING

from afd_tf._version import __version__

if TYPE_CHECKING:
    from afd_tf import analysis, data, losses, methods, networks
    from afd_tf.distillation import schedules, topology
    from afd_tf.distiller import OnlineDistiller
    from afd_tf.exports import export

_PUBLIC = {
    "OnlineDistiller": "afd_tf.distiller",
    "analysis": "afd_tf",
    "data": "afd_tf",
    "export": "afd_tf.exports",
    "losses": "afd_tf",
    "methods": "afd_tf",
    "networks": "afd_tf",
    "schedules": "afd_tf.distillation",
    "topology": "afd_tf.distillation",
}

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
    if name not in _PUBLIC:
        message = f"module 'afd_tf' has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    place = _PUBLIC[name]
    if place == "afd_tf":
        value = importlib.import_module(f"afd_tf.{name}")
    elif name in ("schedules", "topology"):
        value = importlib.import_module(f"{place}.{name}")
    else:
        value = getattr(importlib.import_module(place), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)


# Keras finds the classes of a saved model among those imported. Only the commands wait:
# they check what was typed before they load TensorFlow, which takes seconds.
if "afd_launcher" not in sys.modules:
    importlib.import_module("afd_tf.distiller")
