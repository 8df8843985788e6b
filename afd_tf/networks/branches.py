"""One trunk, several branches and their gate (ONE; Lan, Zhu and Gong 2018)."""

from dataclasses import dataclass

import keras
from keras import ops

from afd_tf import losses
from afd_tf.errors import integer, invalid
from afd_tf.networks import graph
from afd_tf.networks.layers.normalization import FusedBatchNormalization


@dataclass(frozen=True, eq=False)
class Branched:
    """A network whose last stage exists several times.

    Attributes:
        joint: keras.Model from images to a list: the logits `(batch, classes)` of every
            branch, then the gate's weights `(batch, branches)`, which sum to 1.
        networks: list of keras.Model, trunk and one branch each, from images to logits.
            The first is of the layers of the network that was branched; they share
            the trunk.
    """

    joint: keras.Model
    networks: list

    def forward(self, images, training=False):
        """Compute the logits of every branch and of their gated ensemble.

        Args:
            images: float tensor `(batch, height, width, channels)`.
            training: bool.

        Returns:
            List of float32 tensors `(batch, classes)`: those of each branch, then
            `z_e = sum_k g_k z_k` with the gate's weights g.
        """
        outputs = self.joint(images, training=training)
        *logits, weights = (ops.cast(each, "float32") for each in outputs)
        gates = ops.split(weights, len(logits), axis=-1)
        gated = losses.add_in_order([g * z for g, z in zip(gates, logits, strict=True)])
        return [*logits, gated]


def branched(network, branches=3):
    """Give a network several copies of its last stage, and a gate over them.

    The trunk ends at the last map of a higher resolution than the feature map's, that
    all paths go through. From there on each further branch has layers of its own, with
    initial weights of its own. The gate is a dense layer on the trunk's globally pooled
    map, batch normalisation if the network has any, ReLU and softmax.

    Args:
        network: keras Functional or Sequential classifier from images to logits. Its
            own layers become the trunk and the first branch.
        branches: int >= 2, the first one included.

    Returns:
        Branched.

    Raises:
        ValueError: if the network is no graph of layers, or has no map of a higher
            resolution to branch at.

    Example:
        >>> one = branched(resnet(32, num_classes=100), branches=3)
        >>> len(one.networks)
        3
    """
    branches = integer("branches", branches, at_least=2)
    graph.check_graph(network)
    nodes = graph.sorted_nodes(network.outputs)
    cut = _trunk_end(network, nodes)
    trunk = {id(node) for node in graph.sorted_nodes(nodes[cut].outputs)}
    tail = [node for node in nodes if id(node) not in trunk]
    shared = nodes[cut].outputs[0]
    logits = [network.outputs[0]]
    for number in range(2, branches + 1):
        logits.append(_copy(tail, shared, network.outputs[0], f"branch{number}"))
    images = network.inputs[0]
    joint = keras.Model(
        images,
        [*logits, _gate(shared, branches, tail)],
        name=f"{network.name}_branched",
    )
    others = [keras.Model(images, z, name=network.name) for z in logits[1:]]
    return Branched(joint, [network, *others])


def _trunk_end(network, nodes):
    """Return the index of the node at which the trunk ends."""
    chain = {id(node) for node in graph.bottlenecks(nodes)}
    last = graph.last_feature_map(nodes)
    if last is not None:
        size = graph.shape(last)[1:3]
        for i in reversed(range(len(nodes))):
            node = nodes[i]
            larger = graph.is_map(node) and graph.shape(node)[1:3] > size
            weights = any(graph.has_weights(op) for op in graph.ancestors(node))
            if larger and id(node) in chain and weights:
                return i
    raise invalid(
        "networks",
        "a network of stages of different resolution, the last of which can be "
        "branched",
        received=f"'{network.name}', in which no map that all paths go through is "
        "larger than the last one",
    )


def _copy(tail, shared, logits, prefix):
    """Copy a part of a graph, with new layers of the same kind."""
    tensors, layers = {id(shared): shared}, {}
    for node in tail:
        operation = node.operation
        if isinstance(operation, keras.layers.Layer):
            if id(operation) not in layers:  # one that is called twice stays one
                name = f"{prefix}_{operation.name}"
                config = {**operation.get_config(), "name": name}
                layers[id(operation)] = type(operation).from_config(config)
            operation = layers[id(operation)]
        arguments, options = node.arguments.fill_in(tensors)
        results = keras.tree.flatten(operation(*arguments, **options))
        tensors.update(zip(map(id, node.outputs), results, strict=True))
    return tensors[id(logits)]


def _gate(shared, branches, tail):
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="gate_pool")(shared)
    x = keras.layers.Dense(branches, dtype="float32", name="gate")(x)
    kinds = (FusedBatchNormalization, keras.layers.BatchNormalization)
    for node in tail:
        if isinstance(node.operation, kinds):
            x = keras.layers.BatchNormalization(
                momentum=0.9,
                epsilon=1e-5,
                synchronized=getattr(node.operation, "synchronized", False),
                dtype="float32",
                name="gate_norm",
            )(x)
            break
    x = keras.layers.ReLU(dtype="float32", name="gate_relu")(x)
    return keras.layers.Softmax(dtype="float32", name="gate_weights")(x)
