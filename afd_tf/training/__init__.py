"""Experiments: from a description to a run directory with results."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from afd_tf.training.construction import Experiment, build
    from afd_tf.training.experiment import restore, train
    from afd_tf.training.run_directory import RunDirectory

# Resolved on first use: tables of results need no TensorFlow.
_NAMES = {
    "Experiment": "construction",
    "RunDirectory": "run_directory",
    "build": "construction",
    "restore": "experiment",
    "train": "experiment",
}

__all__ = ["Experiment", "RunDirectory", "build", "restore", "train"]


def __getattr__(name):
    if name in _NAMES:
        module = importlib.import_module(f"afd_tf.training.{_NAMES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'afd_tf.training' has no attribute {name!r}")
