"""Exports: one trained network as files that run without this package."""

from afd_tf.exports.export import ExportReport, export, suffix
from afd_tf.exports.formats import FORMATS
from afd_tf.exports.preprocessing import preprocessing_file, read_preprocessing

__all__ = [
    "FORMATS",
    "ExportReport",
    "export",
    "preprocessing_file",
    "read_preprocessing",
    "suffix",
]
