"""Data: from a name or a folder to `tf.data` pipelines, reproducible at any step."""

from afd_tf.data.augmentation import Augmentation, RandomResizedCrop
from afd_tf.data.dataset import EpochPosition, ImageDataset, position_of
from afd_tf.data.info import DataInfo
from afd_tf.data.load import load
from afd_tf.data.readers import Reader, ReaderOptions, register_reader
from afd_tf.data.reading_errors import reading_error

__all__ = [
    "Augmentation",
    "DataInfo",
    "EpochPosition",
    "ImageDataset",
    "RandomResizedCrop",
    "Reader",
    "ReaderOptions",
    "load",
    "position_of",
    "reading_error",
    "register_reader",
]
