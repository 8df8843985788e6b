"""Experiments: from a description to a run directory with results."""

from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training.construction import Experiment, build
from afd_tf.training.experiment import restore, train

__all__ = ["Experiment", "RunDirectory", "build", "restore", "train"]
