"""ONNX: one file for runtimes other than TensorFlow's."""

from afd_tf.exports.formats.format import Format
from afd_tf.exports.formats.saved_model import serving_function


def _write(network, path):
    import tf2onnx

    serve = serving_function(network)
    tf2onnx.convert.from_function(
        serve, input_signature=serve.input_signature, output_path=str(path)
    )


def _load(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(None, {"images": images})[0]


FORMAT = Format(
    suffix=".onnx",
    write=_write,
    load=_load,
    modules=("onnx", "onnxruntime", "tf2onnx"),
    extra="onnx",
)
