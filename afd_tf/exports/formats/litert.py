"""LiteRT (formerly TensorFlow Lite): one file for phones and small devices."""

import tempfile
from pathlib import Path

from afd_tf.exports.formats import saved_model
from afd_tf.exports.formats.format import Format


def _write(network, path):
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "saved_model"
        saved_model.write(network, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        path.write_bytes(converter.convert())


def _load(path):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    return lambda images: next(iter(runner(images=images).values()))


FORMAT = Format(
    suffix=".tflite",
    write=_write,
    load=_load,
    modules=("ai_edge_litert",),
    extra="litert",
)
