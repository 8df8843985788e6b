"""Memory of the backward pass: weight gradients in time, so that maps are freed."""

import collections

import tensorflow as tf


# Where AutoGraph converts the step, these loops would take 60 times as long.
@tf.autograph.experimental.do_not_convert
def order_weight_gradients():
    """Let no convolution's weight gradient lag more than one convolution behind.

    Nothing waits for a weight gradient but the optimizer, so TensorFlow runs the chain
    of map gradients ahead of them and keeps every map's gradient until they have had
    it. Two backward passes through one forward pass free no map before both are done,
    and those gradients come on top: a quarter of all activations. Here each step of
    the chain waits for the weight gradients of the step before. Numbers do not change,
    only the order.

    To be called when all gradients of the graph being traced are in it; those of
    other graphs (the branches of a condition have their own) stay as they are. In
    eager execution there is nothing to do.
    """
    if tf.executing_eagerly():
        return
    operations = tf.compat.v1.get_default_graph().get_operations()
    map_gradients, weight_gradients = [], collections.defaultdict(list)
    for operation in operations:
        if operation.type.endswith("BackpropInput"):
            map_gradients.append(operation)
        elif operation.type.endswith("BackpropFilter"):
            # By the gradient it takes: of one map, or of the sum of two branches.
            weight_gradients[operation.inputs[2].ref()].append(operation)
    origins = _origins(operations, map_gradients)
    for i, operation in enumerate(map_gradients):
        waited_for = [
            other
            for other in weight_gradients[operation.inputs[2].ref()]
            # A transposed convolution computes its output by such an operation.
            if not origins[other] >> i & 1
        ]
        if waited_for:
            for follower in _following(operation):
                follower._add_control_inputs(waited_for)


def _origins(operations, asked):
    """Find all that each operation is computed from, in one pass over the graph.

    Args:
        operations: list of all operations of a graph, in the order of their making:
            each after those that it is computed from.
        asked: list of operations.

    Returns:
        dict from each operation to an int, whose bit i says whether the operation is,
        or is computed from, `asked[i]`.
    """
    own = {operation: 1 << i for i, operation in enumerate(asked)}
    origins = {}
    for operation in operations:
        bits = own.get(operation, 0)
        for tensor in operation.inputs:
            bits |= origins[tensor.op]
        origins[operation] = bits
    return origins


def _following(operation):
    """List the next convolutions' map gradients that are computed from this one's."""
    found, seen, open_ends = [], set(), [operation]
    while open_ends:
        for consumer in open_ends.pop().outputs[0].consumers():
            if id(consumer) in seen:
                continue
            seen.add(id(consumer))
            if consumer.type.endswith("BackpropInput"):
                found.append(consumer)
            elif consumer.outputs and not consumer.type.endswith("BackpropFilter"):
                open_ends.append(consumer)
    return found
