"""Evaluation: class probabilities of networks and ensemble, and their accuracy."""

import numpy as np
import tensorflow as tf
from keras import ops

from afd_tf import losses

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
