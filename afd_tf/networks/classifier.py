"""Classifiers: networks from images to logits, checked, and their shapes."""

from typing import NamedTuple

import keras
from keras import ops

from afd_tf.errors import instance, invalid
from afd_tf.networks import graph


class Classifier(NamedTuple):
    """Shapes at both ends of a network.

    Attributes:
        input_shape: (height, width, channels) of the images.
        num_classes: int, the number of logits.
    """

    input_shape: tuple
    num_classes: int


def check_classifier(model):
    """Check that a model maps images to logits.

    Args:
        model: keras.Model of any kind, built, with one input `(batch, height, width,
            channels)` and one output `(batch, classes)`. A model that is no graph of
            layers is called once, on two random images.

    Returns:
        Classifier.

    Raises:
        ValueError: if it is not built, has other ends, or gives probabilities.
        TypeError: if it is not a Keras model.

    Example:
        >>> check_classifier(resnet(20, num_classes=10))
        Classifier(input_shape=(32, 32, 3), num_classes=10)
    """
    instance("model", model, keras.Model, "a keras.Model")
    if not model.built:
        raise invalid(
            "model",
            "a model that knows its input shape",
            received=f"model '{model.name}' that is not built",
            hint="Begin it with keras.Input((height, width, channels)), or call it on "
            "images once.",
        )
    images = _image_shape(model)
    outputs = model.outputs if graph.has_graph(model) else _call(model, images)
    outputs = keras.tree.flatten(outputs)
    if len(outputs) != 1:
        raise _not_one(model, "outputs", outputs)
    _check_logits(model, outputs[0])
    return Classifier(images[1:], int(outputs[0].shape[-1]))


def _image_shape(model):
    if getattr(model, "inputs", None):
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
    else:
        # Of a model without a graph Keras keeps the shape that it was built with.
        shape = (model.get_build_config() or {}).get("input_shape")
        if not isinstance(shape, tuple | list) or keras.tree.is_nested(shape[0]):
            shapes = []
        else:
            shapes = [tuple(shape)]
    if len(shapes) != 1:
        raise _not_one(model, "inputs", shapes)
    for layer in model._flatten_layers():
        if getattr(layer, "data_format", None) == "channels_first":
            raise invalid(
                "model",
                "layers with data_format 'channels_last'",
                received=f"layer '{layer.name}' of model '{model.name}' with "
                "'channels_first'",
            )
    if len(shapes[0]) != 4:
        raise invalid(
            "model",
            "images of shape (batch, height, width, channels)",
            received=f"model '{model.name}' with input shape {shapes[0]}",
        )
    return shapes[0]


def _not_one(model, ends, received):
    return invalid(
        "model",
        "one input (images) and one output (logits)",
        received=f"model '{model.name}' with {len(received) or 'several'} {ends}",
        hint="Wrap it: keras.Model(images, logits).",
    )


def _call(model, shape):
    images = keras.random.normal([2, *(size or 32 for size in shape[1:])], seed=0)
    with keras.StatelessScope():
        return model(images, training=False)


def _check_logits(model, logits):
    shape = tuple(logits.shape)
    if len(shape) != 2 or shape[-1] is None or shape[-1] < 2:
        raise invalid(
            "model",
            "logits of shape (batch, classes) with at least 2 classes",
            received=f"model '{model.name}' with output shape {shape}",
            hint="End it with pooling or Flatten and Dense(classes).",
        )
    if isinstance(logits, keras.KerasTensor):
        layer = graph.final_probability(logits)
    else:
        layer = model.name if _are_probabilities(logits) else None
    if layer is not None:
        raise invalid(
            "model",
            "logits as output",
            received=f"model '{model.name}' that ends in probabilities (layer "
            f"'{layer}')",
            hint="Remove the softmax or sigmoid; with keras.applications pass "
            "classifier_activation=None.",
        )


def _are_probabilities(outputs):
    outputs = ops.cast(outputs, "float32")
    far = ops.max(ops.abs(ops.sum(outputs, axis=-1) - 1.0))
    return float(ops.min(outputs)) >= 0 and float(far) < 0.01
