"""Keras' own file, made of layers that Keras itself provides."""

from afd_tf.errors import invalid
from afd_tf.exports.formats.format import Format


def _write(network, path):
    import keras

    from afd_tf.networks.layers.normalization import with_stock_normalization

    stock = with_stock_normalization(network)
    foreign = sorted(_foreign_classes(keras.saving.serialize_keras_object(stock)))
    if foreign:
        raise invalid(
            "format",
            "a network of Keras' own layers, so that the file loads without other code",
            received=f"format='keras' and a network with {', '.join(foreign)}",
            hint="Export as 'saved_model' instead.",
        )
    stock.save(path)


def _foreign_classes(config):
    """Find the classes in a serialised model that Keras does not provide."""
    if isinstance(config, list | tuple):
        return set().union(*map(_foreign_classes, config))
    if not isinstance(config, dict):
        return set()
    classes = set().union(*map(_foreign_classes, config.values()))
    module = config.get("module")
    if "class_name" in config and module and module.split(".")[0] != "keras":
        classes.add(f"{module}.{config['class_name']}")
    return classes


def _load(path):
    import keras

    # Keras' default as well; keras.config.enable_unsafe_deserialization overrules both.
    loaded = keras.models.load_model(path, compile=False, safe_mode=True)
    return lambda images: loaded(images, training=False)


FORMAT = Format(suffix=".keras", write=_write, load=_load)
