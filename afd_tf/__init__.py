"""AFD: train image classifiers together, take home the small one.

Feature-map-level online adversarial knowledge distillation (Chung et al., ICML 2020)
as a Keras model with its own training step.
"""

import sys
from typing import TYPE_CHECKING

from afd_tf._version import __version__

# All at once, so that Keras finds the classes of a saved model. Only the commands wait:
# they check what was typed before they load TensorFlow, which takes seconds.
if TYPE_CHECKING or "afd_launcher" not in sys.modules:
    from afd_tf import analysis, data, losses, methods, networks
    from afd_tf.distillation import schedules, topology
    from afd_tf.distiller import OnlineDistiller
    from afd_tf.exports import export

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
