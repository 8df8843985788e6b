"""Keras' own file, made of layers that Keras itself provides."""

import zipfile

from afd_tf.errors import InvalidValue, invalid
from afd_tf.exports.formats.format import Format

# Descriptions of the largest networks have some 2 MB. Weights are not compressed.
_MAX_JSON = 2**24


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


def read_keras_file(path):
    """Load what a `.keras` file holds, without running code of its own.

    Args:
        path: path.

    Returns:
        keras.Model.

    Raises:
        Exception: whatever a damaged file leads Keras to.
        InvalidValue: if it unpacks to far more than it is, or holds no model.
    """
    import keras

    _check_sizes(path)
    # Keras' default as well; keras.config.enable_unsafe_deserialization overrules both.
    loaded = keras.models.load_model(path, compile=False, safe_mode=True)
    if not isinstance(loaded, keras.Model):
        raise InvalidValue(f"it holds no model, but {type(loaded).__name__}")
    return loaded


def _check_sizes(path):
    """Check what the parts claim to unpack to; what is beyond that is never read."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    for part in parts:
        if part.filename.endswith(".json") and part.file_size > _MAX_JSON:
            raise InvalidValue(
                f"its {part.filename} has {part.file_size} bytes, more than {_MAX_JSON}"
            )
    total, most = sum(p.file_size for p in parts), _MAX_JSON + 10 * path.stat().st_size
    if total > most:
        raise InvalidValue(f"it unpacks to {total} bytes, more than {most}")


def _load(path):
    network = read_keras_file(path)
    return lambda images: network(images, training=False)


FORMAT = Format(suffix=".keras", write=_write, load=_load)
