"""Data: from a name or a folder to `tf.data` pipelines, reproducible at any step."""

from afd_tf.data.augmentation import Augmentation
from afd_tf.data.errors import reading_error
from afd_tf.data.info import DataInfo
from afd_tf.data.loading import load
from afd_tf.data.position import EpochPosition
from afd_tf.data.random_resized_crop import RandomResizedCrop
from afd_tf.data.readers import register

__all__ = [
    "Augmentation",
    "DataInfo",
    "EpochPosition",
    "RandomResizedCrop",
    "load",
    "reading_error",
    "register",
]
