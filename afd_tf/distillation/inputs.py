"""Inputs of a step: checks of images, labels and weights, and errors a person reads."""

import contextlib
import warnings

import keras
import tensorflow as tf
from keras import ops

from afd_tf.devices.model import global_count
from afd_tf.distillation.objectives import Batch
from afd_tf.errors import InvalidValue

_LABEL_ERROR = "Labels must lie in [0, "


def batch_of(data, exchange):
    """Return what Keras gives a step as a Batch, checked.

    Args:
        data: images, labels and perhaps weights, as `keras.Model.train_step` gets it.
        exchange: Exchange.

    Raises:
        ValueError: if images, labels or weights have another shape, or labels are
            missing.
        tf.errors.InvalidArgumentError: when run, if a class index is out of range;
            see `readable_errors`.
    """
    images, labels, weight = keras.utils.unpack_x_y_sample_weight(data)
    images = _check_images(images, exchange.input_shape)
    count = tf.cast(tf.shape(images)[0], tf.float32)
    return Batch(
        images,
        _check_labels(labels, exchange.num_classes),
        _check_weight(weight),
        count,
        global_count(images),
    )


def can_shuffle(data):
    """Whether Keras shuffles this kind of data; of others it would warn."""
    kinds = (keras.utils.PyDataset, list, tuple, dict)
    return data is None or hasattr(data, "__array__") or isinstance(data, kinds)


@contextlib.contextmanager
def readable_errors():
    """Turn a failed check inside a step into a ValueError with that check's message."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        for line in str(error).splitlines():
            if _LABEL_ERROR in line:
                text = line[line.index(_LABEL_ERROR) :].replace("Found:]", "Found:")
                raise InvalidValue(text.strip(" '\"]")) from None
        raise


def warn_of_raw_pixels(images, networks):
    """Warn of integer images in networks that do not rescale them."""
    scalers = (keras.layers.Rescaling, keras.layers.Normalization)
    scaled = any(
        isinstance(layer, scalers)
        for network in networks
        for layer in network._flatten_layers()
    )
    if images.dtype.is_integer and not scaled:
        warnings.warn(
            f"Images are integers ({images.dtype.name}) and no network has a Rescaling "
            "or Normalization layer: pixels up to 255 make training diverge. Give "
            "floats of mean 0 and standard deviation 1, as `afd_tf.data` does.",
            stacklevel=2,
        )


def _check_images(images, shape):
    # What a pipeline does not know of its images' shape is checked when it runs.
    images = tf.convert_to_tensor(images)
    if images.shape.is_compatible_with((None, *shape)):
        return tf.ensure_shape(images, (None, *shape))
    raise InvalidValue(
        f"The networks take images of shape {tuple(shape)} (height, width, "
        f"channels). Received: a batch of shape {images.shape}. Build the "
        "networks with `input_shape=` of the images, or resize the images."
    )


def _check_labels(labels, classes):
    """Return labels as int32 `(batch,)` or float32 `(batch, classes)`."""
    if labels is None:
        raise InvalidValue(
            "Training and evaluation need labels. Received: images only. Pass "
            "`(images, labels)` batches."
        )
    labels = _of_known_rank("labels", labels)
    rank = len(labels.shape)
    if rank == 2 and labels.shape[-1] == classes and classes > 1:
        return ops.cast(labels, "float32")
    if rank == 2 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    elif rank != 1:
        raise InvalidValue(
            f"Expected labels of shape (batch,) with class indices, or (batch, "
            f"{classes}) with class probabilities. Received: {tuple(labels.shape)}."
        )
    labels = tf.cast(labels, tf.int32)
    outside = tf.boolean_mask(labels, (labels < 0) | (labels >= classes))
    check = tf.debugging.Assert(
        tf.equal(tf.size(outside), 0),
        [
            f"{_LABEL_ERROR}{classes}), the networks have {classes} classes. Found:",
            outside,
        ],
    )
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(labels)


def _check_weight(weight):
    """Return sample weights as `(batch,)`, or None."""
    if weight is None:
        return None
    weight = _of_known_rank("sample weights", weight)
    if len(weight.shape) == 1:
        return weight
    if len(weight.shape) == 2 and weight.shape[-1] == 1:
        # Left as it is, it would broadcast against `(batch,)` losses.
        return ops.squeeze(weight, axis=-1)
    raise InvalidValue(
        "Expected sample weights of shape (batch,), one per example. Received: "
        f"{tuple(weight.shape)}."
    )


def _of_known_rank(what, tensor):
    tensor = tf.convert_to_tensor(tensor)
    if tensor.shape.rank is None:
        raise InvalidValue(
            f"The data set does not know the shape of its {what}. Set it where they "
            "are made: tf.ensure_shape(tensor, ()), or output_signature= in "
            "tf.data.Dataset.from_generator."
        )
    return tensor
