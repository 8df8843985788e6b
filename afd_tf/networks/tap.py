"""Taps: feature map and logits of a Keras classifier in one forward pass."""

from dataclasses import dataclass, field

import keras

from afd_tf.errors import invalid, nearest
from afd_tf.networks import graph
from afd_tf.networks.classifier import check_classifier
from afd_tf.networks.rematerialization import Segments, check_checkpointing


@dataclass(frozen=True, eq=False)
class Tapped:
    """A classifier with one of its feature maps laid open.

    `G` (the extractor) is everything between the input and the tap, the head is the
    rest. The layers and variables are those of `network`; nothing is copied.

    Attributes:
        network: keras.Model, the classifier as it was given.
        layer_name: str, the layer whose output is the feature map.
        map_shape: (height, width, channels) of the feature map.
        num_classes: int, the number of logits.
        input_shape: (height, width, channels) of the images.
        note: str, what is worth knowing about the choice of the tap, or "".
        segments: the training pass in segments that are recomputed, or None.
    """

    network: keras.Model
    layer_name: str
    map_shape: tuple
    num_classes: int
    input_shape: tuple
    note: str
    segments: Segments | None = field(repr=False)
    _two_outputs: keras.Model = field(repr=False)
    _extractor_layers: tuple = field(repr=False)

    def forward(self, x, training=False):
        """Compute the feature map and the logits in one forward pass.

        In training with checkpointing, only the maps between segments are kept, and
        the backward pass computes the others again.

        Args:
            x: float tensor of shape `(batch, height, width, channels)`.
            training: bool, whether dropout acts and batch statistics are used.

        Returns:
            Tuple of the feature map `(batch, h, w, c)` and the logits
            `(batch, num_classes)`, in the dtypes in which the network computes them.
        """
        if training and self.segments is not None:
            return self.segments(x)
        feature_map, logits = self._two_outputs(x, training=training)
        return feature_map, logits

    @property
    def extractor_variables(self):
        """Trainable variables on the paths from the input to the tap, in order."""
        ids = self._extractor_ids()
        return [v for v in self.network.trainable_variables if id(v) in ids]

    @property
    def head_variables(self):
        """The network's other trainable variables, in order."""
        ids = self._extractor_ids()
        return [v for v in self.network.trainable_variables if id(v) not in ids]

    def _extractor_ids(self):
        # Read at each use: a user may freeze layers after the tap is made.
        return {id(v) for layer in self._extractor_layers for v in layer.variables}


def tap(model, layer=None, checkpointing: bool | int = False):
    """Lay open a feature map of a classifier.

    Args:
        model: keras Functional or Sequential model with one input
            `(batch, height, width, channels)` and one output, logits of shape
            `(batch, classes)`. Not a subclassed model, whose inside cannot be seen.
        layer: str, name of the layer whose 4-D output is the feature map. Default: the
            last 4-D output before the head (before global pooling or flattening),
            leaving out layers that only drop, pad or reshape.
        checkpointing: bool or int >= 2, whether training keeps maps between segments
            only, and how many; see `afd_tf.OnlineDistiller`.

    Returns:
        A `Tapped`.

    Raises:
        ValueError: if the model cannot be tapped, ends in probabilities, or has no
            such layer; the message says what to change.
        TypeError: if `model` is not a Keras model.

    Example:
        >>> tapped = tap(resnet(20, num_classes=10))
        >>> tapped.map_shape
        (8, 8, 64)
    """
    checkpointing = check_checkpointing(checkpointing)
    classifier = check_classifier(model)
    graph.check_graph(model)
    (inputs,), (logits,) = model.inputs, model.outputs
    nodes = graph.sorted_nodes([logits])
    node = _last_map(model, nodes) if layer is None else _named(model, nodes, layer)
    map_shape = graph.shape(node)[1:]
    if None in map_shape:
        raise invalid(
            "tap",
            "a feature map of known size",
            received=f"tap='{node.operation.name}' with shape {graph.shape(node)} in "
            f"model '{model.name}'",
            hint="Give the model's `keras.Input` the height, width and channels of the "
            "images.",
        )
    two_outputs = keras.Model(
        inputs, [node.outputs[0], logits], name=f"{model.name}_tapped"
    )
    two_outputs.dtype_policy = model.dtype_policy
    layers = [
        operation
        for operation in graph.ancestors(node)
        if isinstance(operation, keras.layers.Layer)
    ]
    return Tapped(
        network=model,
        layer_name=node.operation.name,
        map_shape=map_shape,
        num_classes=classifier.num_classes,
        input_shape=classifier.input_shape,
        note=_note(map_shape),
        segments=Segments(model, nodes, node, checkpointing) if checkpointing else None,
        _two_outputs=two_outputs,
        _extractor_layers=tuple(layers),
    )


def _last_map(model, nodes):
    node = graph.last_feature_map(nodes)
    if node is None:
        nested = _nested(nodes)
        inside = nested and not _maps(nodes)
        raise invalid(
            "tap",
            "a model with a 4-D feature map (batch, height, width, channels) that all "
            "paths to the logits go through",
            received=f"model '{model.name}' and tap=None",
            hint=_unnest(nested[-1].name) if inside else _candidates(nodes),
        )
    return node


def _named(model, nodes, name):
    """Return the last call of the layer `name` in the model."""
    matches = [node for node in nodes if node.operation.name == name]
    if not matches:
        raise _unknown(model, nodes, name)
    node = matches[-1]
    if not graph.is_map(node):
        shapes = [tuple(tensor.shape) for tensor in node.outputs]
        raise invalid(
            "tap",
            "a layer with one 4-D output (batch, height, width, channels)",
            received=f"tap={name!r} with output shape "
            f"{shapes[0] if len(shapes) == 1 else shapes} in model '{model.name}'",
            hint=_candidates(nodes),
        )
    if not any(graph.has_weights(operation) for operation in graph.ancestors(node)):
        raise invalid(
            "tap",
            "a feature map computed by layers with weights",
            received=f"tap={name!r}, before which model '{model.name}' has none",
            hint=_candidates(nodes),
        )
    return node


def _unknown(model, nodes, name):
    for inner in _nested(nodes):
        if name in {operation.name for operation in inner.layers}:
            return invalid(
                "tap",
                f"a layer of model '{model.name}' itself",
                received=f"tap={name!r}, which is inside its nested model "
                f"'{inner.name}'",
                hint=_unnest(inner.name),
            )
    if name in {layer.name for layer in model._flatten_layers(include_self=False)}:
        return invalid(
            "tap",
            "a layer on which the logits depend",
            received=f"tap={name!r}, whose output model '{model.name}' does not use",
            hint=_candidates(nodes),
        )
    similar = nearest(name, [node.operation.name for node in nodes]).strip()
    return invalid(
        "tap",
        f"the name of a layer of model '{model.name}'",
        name,
        hint=f"{similar} {_candidates(nodes)}".strip(),
    )


def _nested(nodes):
    return [n.operation for n in nodes if graph.is_nested(n.operation)]


def _unnest(name):
    return (
        f"Pass the inner model '{name}' as the network, or build the network without "
        "nesting: keras.Model(inner.input, head(inner.output)) instead of "
        "head(inner(x))."
    )


def _maps(nodes):
    """List the names of the layers that can be tapped, last first."""
    names = []
    weights = False
    for node in nodes:
        weights = weights or graph.has_weights(node.operation)
        if weights and graph.is_map(node):
            names.append(node.operation.name)
    return names[::-1]


def _candidates(nodes):
    names = _maps(nodes)
    if not names:
        return "It has no layer with a 4-D output after its first weights."
    shown = ", ".join(f"'{name}'" for name in names[:4])
    return f"Its last layers with a 4-D output: {shown}."


def _note(map_shape):
    if map_shape[:2] == (1, 1):
        return "1x1 map: larger images, or an earlier layer as tap, keep positions"
    return ""
