"""Exports: one trained network as files that run without this package."""

from afd_tf.exports.export import (
    ExportReport,
    export,
    formats,
    preprocessing_file,
    read_preprocessing,
    suffix,
)

__all__ = [
    "ExportReport",
    "export",
    "formats",
    "preprocessing_file",
    "read_preprocessing",
    "suffix",
]
