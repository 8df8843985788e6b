"""Experiments: from settings to a run directory with results."""

from afd_tf.runs.run_directory import RunDirectory
from afd_tf.training.experiment import Experiment, build, restore
from afd_tf.training.loop import train
from afd_tf.training.settings import Settings

__all__ = ["Experiment", "RunDirectory", "Settings", "build", "restore", "train"]
