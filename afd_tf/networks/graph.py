"""Graph of a Keras Functional or Sequential model: its order, maps and ends."""

import keras

from afd_tf.errors import invalid

_SHAPE_KEEPERS = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.Permute,
    keras.layers.Reshape,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
)
_GLOBAL_POOLS = (
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)
_PROBABILITIES = ("softmax", "sigmoid", "hard_sigmoid", "hardsigmoid")


def has_graph(model):
    """Say whether a model computes its graph: Functional, Sequential, no own `call`."""
    own = any(
        "call" in vars(cls)
        for cls in type(model).__mro__
        if not cls.__module__.startswith("keras.")
    )
    return bool(getattr(model, "outputs", None)) and not own


def check_graph(model):
    """Refuse a model without a graph.

    Raises:
        ValueError: saying how to build it.
    """
    if not has_graph(model):
        raise invalid(
            "model",
            "a Functional or Sequential model",
            received=f"model '{model.name}' of class {type(model).__name__}, whose "
            "layers are called in Python and cannot be tapped",
            hint="Build it as keras.Model(inputs, logits).",
        )


def sorted_nodes(outputs):
    """List the graph's nodes (calls of an operation), inputs first.

    Args:
        outputs: list of KerasTensor.

    Returns:
        List of Keras nodes in a topological order. A layer that is called twice is
        in it twice.
    """
    order, seen = [], set()
    stack = [(_producer(tensor), False) for tensor in outputs]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((_producer(t), False) for t in node.input_tensors)
    return order


def _producer(tensor):
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def bottlenecks(nodes):
    """List the nodes that every path from the input to the output goes through.

    Args:
        nodes: list of nodes, as `sorted_nodes` gives them.

    Returns:
        List of nodes, a subsequence of `nodes`. In a residual network these are the
        sums and what follows them, never the inside of a block.
    """
    index = {id(node): i for i, node in enumerate(nodes)}
    last_use = list(range(len(nodes)))
    for i, node in enumerate(nodes):
        for tensor in node.input_tensors:
            producer = index[id(_producer(tensor))]
            last_use[producer] = max(last_use[producer], i)
    chain, reach = [], 0
    for i, node in enumerate(nodes):
        # No edge from before this node lands beyond it.
        if reach <= i:
            chain.append(node)
        reach = max(reach, last_use[i])
    return chain


def ancestors(node):
    """List the operations on the paths from the inputs to `node`, itself included."""
    return [n.operation for n in sorted_nodes(node.outputs)]


def shape(node):
    """Return the output shape of a node as a tuple, () if it has several outputs."""
    return tuple(node.outputs[0].shape) if len(node.outputs) == 1 else ()


def is_map(node):
    """Say whether the node gives one 4-D tensor."""
    return len(shape(node)) == 4


def last_feature_map(nodes):
    """Find the last feature map before the head.

    The head starts at the last global pooling, or where the map is flattened. Layers
    that only drop, pad, crop or reshape do not make a map; neither does a head that
    works on a pooled 1x1 map. A map is 1x1 only where the network's own convolutions
    have brought it there.

    Args:
        nodes: list of nodes, as `sorted_nodes` gives them.

    Returns:
        A node, or None if there is none (no bottleneck of the network is a 4-D map
        computed by layers that have weights).
    """
    chain = bottlenecks(nodes)
    maps = [i for i, node in enumerate(chain) if is_map(node)]
    if not maps:
        return None
    pools = [
        i for i, node in enumerate(chain) if isinstance(node.operation, _GLOBAL_POOLS)
    ]
    if pools:
        start = pools[-1] - 1
    else:
        start = _before_pooled_head(chain, maps[-1])
    for node in reversed(chain[: start + 1]):
        if is_map(node) and not _is_passage(node):
            return node if any(has_weights(op) for op in ancestors(node)) else None
    return None


def _before_pooled_head(chain, last):
    """Step over 1x1 convolutions and the like behind a pooling without a class."""
    for i in range(last, 0, -1):
        if _collapses(chain[i]):
            return i - 1
        follows = _producer(chain[i].input_tensors[0]) is chain[i - 1]
        if not follows or not _is_pointwise(chain[i]):
            break
    return last


def _collapses(node):
    """Say whether the node pools a larger map to 1x1, without weights."""
    if not is_map(node) or has_weights(node.operation) or not node.input_tensors:
        return False
    before = tuple(node.input_tensors[0].shape)
    return shape(node)[1:3] == (1, 1) and len(before) == 4 and before[1:3] != (1, 1)


def _is_pointwise(node):
    """Say whether the node keeps a 1x1 map 1x1 by its channels alone."""
    one_input = len(node.input_tensors) == 1
    kernel = getattr(node.operation, "kernel_size", (1, 1))
    return one_input and shape(node)[1:3] == (1, 1) and tuple(kernel) == (1, 1)


def _is_passage(node):
    operation = node.operation
    linear = (
        isinstance(operation, keras.layers.Activation)
        and operation.activation is keras.activations.linear
    )
    return linear or isinstance(operation, _SHAPE_KEEPERS) or _collapses(node)


def has_weights(operation):
    """Say whether the operation is a layer with weights that training can move."""
    if isinstance(operation, keras.layers.Normalization):
        return False
    return isinstance(operation, keras.layers.Layer) and bool(operation.weights)


def is_nested(operation):
    """Say whether the operation is itself a model."""
    return isinstance(operation, keras.Model)


def final_probability(tensor):
    """Name the operation that turns logits into probabilities, if the graph ends so.

    Args:
        tensor: KerasTensor, the output of a model.

    Returns:
        str, the name of the softmax or sigmoid layer, or None.
    """
    while True:
        node = _producer(tensor)
        operation = node.operation
        if is_nested(operation):
            inner = getattr(operation, "outputs", None)
            if not inner or len(inner) != 1:
                return None
            return final_probability(inner[0])
        names = (
            type(operation).__name__,
            getattr(getattr(operation, "activation", None), "__name__", ""),
        )
        if any(name.lower() in _PROBABILITIES for name in names):
            return operation.name
        passes = isinstance(operation, (*_SHAPE_KEEPERS, keras.layers.Flatten))
        if not (passes or _is_passage(node)) or len(node.input_tensors) != 1:
            return None
        tensor = node.input_tensors[0]
