"""What a network must be to be read from images to logits."""

import keras

from afd_tf.networks import graph


def check_classifier(model):
    """Return the input and the output of a model from images to logits.

    Raises:
        ValueError: if it is not Functional or Sequential, or ends in probabilities.
        TypeError: if it is not a Keras model.
    """
    inputs, logits = _ends(model)
    _check_channels_last(model, graph.sorted_nodes([logits]))
    _check_logits(model, logits)
    return inputs, logits


def _ends(model):
    """Return the input and the output tensor, or say why the model has not one each."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "Invalid value for argument `model`. Expected a keras.Model. Received: "
            f"model={model!r} of type {type(model).__name__}."
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            "Invalid value for argument `model`. Expected a model that knows its input "
            f"shape. Received: Sequential model '{model.name}' that is not built. "
            "Begin it with keras.Input((height, width, channels))."
        )
    inputs = getattr(model, "inputs", None)
    outputs = getattr(model, "outputs", None)
    if not inputs or not outputs or _has_own_call(model):
        raise ValueError(
            "Invalid value for argument `model`. Expected a Functional or Sequential "
            f"model. Received: model '{model.name}' of class {type(model).__name__}, "
            "whose layers are called in Python and cannot be tapped. Build it as "
            "keras.Model(inputs, logits)."
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "Invalid value for argument `model`. Expected one input (images) and one "
            f"output (logits). Received: model '{model.name}' with {len(inputs)} "
            f"inputs and {len(outputs)} outputs. Wrap it: keras.Model(images, logits)."
        )
    return inputs[0], outputs[0]


def _has_own_call(model):
    """Say whether a subclass computes something else than the graph it holds."""
    return any(
        "call" in vars(cls)
        for cls in type(model).__mro__
        if not cls.__module__.startswith("keras.")
    )


def _check_channels_last(model, nodes):
    for operation in [node.operation for node in nodes]:
        if getattr(operation, "data_format", None) == "channels_first":
            raise ValueError(
                "Invalid value for argument `model`. Expected layers with data_format "
                f"'channels_last'. Received: layer '{operation.name}' of model "
                f"'{model.name}' with 'channels_first'."
            )
    image = model.inputs[0].shape
    if len(image) != 4:
        raise ValueError(
            "Invalid value for argument `model`. Expected images of shape (batch, "
            f"height, width, channels). Received: model '{model.name}' with input "
            f"shape {tuple(image)}."
        )


def _check_logits(model, logits):
    culprit = graph.final_probability(logits)
    if culprit is not None:
        raise ValueError(
            "Invalid value for argument `model`. Expected logits as output. Received: "
            f"model '{model.name}' that ends in probabilities (layer '{culprit}'). "
            "Remove the softmax or sigmoid; with keras.applications pass "
            "classifier_activation=None."
        )
    shape = tuple(logits.shape)
    if len(shape) != 2 or shape[-1] is None or shape[-1] < 2:
        raise ValueError(
            "Invalid value for argument `model`. Expected logits of shape (batch, "
            f"classes) with at least 2 classes. Received: model '{model.name}' with "
            f"output shape {shape}. End it with pooling or Flatten and Dense(classes)."
        )
