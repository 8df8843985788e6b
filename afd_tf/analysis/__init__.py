"""Analysis of trained networks: similarity, agreement, calibration, Grad-CAM."""

from afd_tf.analysis.comparison import as_text, compare
from afd_tf.analysis.grad_cam import grad_cam
from afd_tf.analysis.maps import LinearCKA, MapDistances
from afd_tf.analysis.predictions import Agreement, Calibration

__all__ = [
    "Agreement",
    "Calibration",
    "LinearCKA",
    "MapDistances",
    "as_text",
    "compare",
    "grad_cam",
]
