"""File formats of exported networks.

A new format is one file with a `Format`, and its entry below. The files import
TensorFlow and Keras when they write or load, so that `--help` needs neither.
"""

from afd_tf.exports.formats import keras_file, litert, onnx, saved_model
from afd_tf.exports.formats.format import Format

FORMATS = {
    "saved_model": saved_model.FORMAT,
    "keras": keras_file.FORMAT,
    "litert": litert.FORMAT,
    "onnx": onnx.FORMAT,
}

__all__ = ["FORMATS", "Format"]
