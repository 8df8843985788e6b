"""TensorFlow SavedModel: a folder that any process with TensorFlow can run."""

from afd_tf.exports.formats.format import Format


def serving_function(network):
    """Wrap a network as a function of one tensor, for inference only.

    Args:
        network: keras.Model with one input and one output.

    Returns:
        tf.function from `images` of shape `(batch, height, width, channels)` to
        logits of shape `(batch, classes)`, any batch size.
    """
    import tensorflow as tf

    # A Functional model exported as it is would take a list of one tensor.
    image = network.inputs[0]
    spec = tf.TensorSpec((None, *image.shape[1:]), image.dtype, name="images")

    @tf.function(input_signature=[spec], autograph=False)
    def serve(images):
        return network(images, training=False)

    return serve


def write(network, path):
    """Write `network` as a SavedModel with the endpoint `serve`.

    Args:
        network: keras.Model with one input and one output.
        path: pathlib.Path of a folder that does not exist.
    """
    import keras

    serve = serving_function(network)
    serve.get_concrete_function()
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serve", serve)
    # Keras' own variable objects would be saved beside the TensorFlow variables that
    # they hold, every weight twice.
    for name, weights in (
        ("variables", network.weights),
        ("trainable_variables", network.trainable_weights),
    ):
        archive.add_variable_collection(name, [weight.value for weight in weights])
    archive.write_out(str(path), verbose=False)


def _load(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda images: loaded.serve(tf.constant(images))


FORMAT = Format(suffix="", write=write, load=_load)
