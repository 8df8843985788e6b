"""Distillation methods: a logit loss and a feature-map objective, put together.

A new method is one file that calls `register`, imported below.
"""

from afd_tf.methods import baselines
from afd_tf.methods.adversarial import Adversarial
from afd_tf.methods.alignment import Alignment
from afd_tf.methods.factor import Factor
from afd_tf.methods.method import (
    FeatureObjective,
    Method,
    PretrainedObjective,
    describe,
    get,
    names,
    register,
)

__all__ = [
    "Adversarial",
    "Alignment",
    "Factor",
    "FeatureObjective",
    "Method",
    "PretrainedObjective",
    "baselines",
    "describe",
    "get",
    "names",
    "register",
]
