"""What networks say of images, alone and together, and how right they are."""

import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from afd_tf import losses
from afd_tf.distillation.fitting import LABEL_ERROR

# Below it a float32 loses digits, and has no logarithm at last.
_SMALLEST = np.finfo(np.float32).tiny


def _mean_of_probabilities(logits):
    return losses.add_in_order([ops.softmax(z, axis=-1) for z in logits]) / len(logits)


def _softmax_of_mean(logits):
    return ops.softmax(losses.add_in_order(logits) / len(logits), axis=-1)


ENSEMBLES = {"probabilities": _mean_of_probabilities, "logits": _softmax_of_mean}


def all_logits(compute, images):
    """Return the logits of every network in evaluation.

    Args:
        compute: function from images to a list of logits.
        images: float tensor `(batch, height, width, channels)`; under several replicas
            one may have no row of the last batch.

    Returns:
        List of tensors `(batch, classes)`.
    """
    count = tf.shape(images)[0]
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        # TensorFlow loses the other dimensions of an empty map when it is pooled.
        shape = (None, *images.shape[1:])
        missing = [[0, tf.cast(count == 0, tf.int32)], *[[0, 0]] * (len(shape) - 1)]
        images = tf.ensure_shape(tf.pad(images, missing), shape)
    return [logits[:count] for logits in compute(images)]


def probabilities(names, logits, ensemble):
    """Return class probabilities of every network and of the ensemble.

    Args:
        names: list of str.
        logits: list of float tensors `(batch, classes)`, one per name; one more where
            a gate forms the ensemble.
        ensemble: "probabilities" or "logits", see `OnlineDistiller`; without a gate.

    Returns:
        Dict from name, and "ensemble", to float32 tensors `(batch, classes)`.
    """
    logits = [ops.cast(z, "float32") for z in logits]
    own, gated = logits[: len(names)], logits[len(names) :]
    result = {n: ops.softmax(z, axis=-1) for n, z in zip(names, own, strict=True)}
    together = ops.softmax(gated[0], axis=-1) if gated else ENSEMBLES[ensemble](own)
    result["ensemble"] = together
    return result


def ensemble_logits(names, logits, predicted, ensemble):
    """Return logits of the ensemble's distribution.

    Args:
        names: list of str.
        logits: as for `probabilities`.
        predicted: what `probabilities` returned.
        ensemble: "probabilities" or "logits".

    Returns:
        Float32 tensor `(batch, classes)`.
    """
    own, gated = logits[: len(names)], logits[len(names) :]
    if gated:
        return ops.cast(gated[0], "float32")
    if ensemble == "logits":
        return losses.add_in_order([ops.cast(z, "float32") for z in own]) / len(own)
    # Logarithms of probabilities are logits of the same distribution.
    return ops.log(ops.maximum(predicted["ensemble"], _SMALLEST))


def count_right(names, labels, predicted):
    """Count right answers.

    Args:
        names: list of str.
        labels: int tensor `(batch,)` or float tensor `(batch, classes)`.
        predicted: what `probabilities` returned.

    Returns:
        Dict from `{network}_accuracy`, "mean_accuracy" and "ensemble_accuracy" to
        `(number right, number of examples)`; the mean counts each network's answer.
    """
    truth = labels if len(labels.shape) == 1 else ops.argmax(labels, axis=-1)
    truth = ops.cast(truth, "int64")
    count = ops.cast(ops.shape(truth)[0], "float32")

    def right(name):
        answers = tf.argmax(predicted[name], axis=-1, output_type=tf.int64)
        return ops.sum(ops.cast(ops.equal(answers, truth), "float32"))

    each = [right(name) for name in names]
    values = {f"{n}_accuracy": (r, count) for n, r in zip(names, each, strict=True)}
    values["mean_accuracy"] = (losses.add_in_order(each), count * len(names))
    values["ensemble_accuracy"] = (right("ensemble"), count)
    return values


def check_images(images, shape):
    """Return the images if a network that takes `shape` can read them.

    Raises:
        ValueError: if they have another shape.
    """
    # What a pipeline does not know of its images' shape is checked when it runs.
    images = tf.convert_to_tensor(images)
    if images.shape.is_compatible_with((None, *shape)):
        return tf.ensure_shape(images, (None, *shape))
    raise ValueError(
        f"The networks take images of shape {tuple(shape)} (height, width, "
        f"channels). Received: a batch of shape {images.shape}. Build the "
        "networks with `input_shape=` of the images, or resize the images."
    )


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


def check_labels(labels, classes):
    """Return labels as int32 `(batch,)` or float32 `(batch, classes)`.

    Raises:
        ValueError: if they have another shape.
        tf.errors.InvalidArgumentError: when run, if a class index is out of range;
            `fit` and `evaluate` turn it into a ValueError.
    """
    if labels is None:
        raise ValueError(
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
        raise ValueError(
            f"Expected labels of shape (batch,) with class indices, or (batch, "
            f"{classes}) with class probabilities. Received: {tuple(labels.shape)}."
        )
    labels = tf.cast(labels, tf.int32)
    outside = tf.boolean_mask(labels, (labels < 0) | (labels >= classes))
    check = tf.debugging.Assert(
        tf.equal(tf.size(outside), 0),
        [
            f"{LABEL_ERROR}{classes}), the networks have {classes} classes. Found:",
            outside,
        ],
    )
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(labels)


def check_weight(weight):
    """Return sample weights as `(batch,)`, or None.

    Raises:
        ValueError: if there is not one weight per example.
    """
    if weight is None:
        return None
    weight = _of_known_rank("sample weights", weight)
    if len(weight.shape) == 1:
        return weight
    if len(weight.shape) == 2 and weight.shape[-1] == 1:
        # Left as it is, it would broadcast against `(batch,)` losses.
        return ops.squeeze(weight, axis=-1)
    raise ValueError(
        "Expected sample weights of shape (batch,), one per example. Received: "
        f"{tuple(weight.shape)}."
    )


def _of_known_rank(what, tensor):
    tensor = tf.convert_to_tensor(tensor)
    if tensor.shape.rank is None:
        raise ValueError(
            f"The data set does not know the shape of its {what}. Set it where they "
            "are made: tf.ensure_shape(tensor, ()), or output_signature= in "
            "tf.data.Dataset.from_generator."
        )
    return tensor
