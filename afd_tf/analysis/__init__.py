"""What trained networks have in common and where they differ, on a whole data set."""

from afd_tf.analysis.comparison import compare
from afd_tf.analysis.grad_cam import grad_cam
from afd_tf.analysis.maps import LinearCKA, MapDistances
from afd_tf.analysis.predictions import Agreement, Calibration
from afd_tf.analysis.tables import as_text

__all__ = [
    "Agreement",
    "Calibration",
    "LinearCKA",
    "MapDistances",
    "as_text",
    "compare",
    "grad_cam",
]
