"""Keep gradients of weights from lagging behind the backward pass."""

import collections

import tensorflow as tf


def bound_backlog():
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
    weight_gradients = collections.defaultdict(list)
    for operation in operations:
        if operation.type.endswith("BackpropFilter"):
            # By the gradient it takes: of one map, or of the sum of two branches.
            weight_gradients[operation.inputs[2].ref()].append(operation)
    for operation in operations:
        if not operation.type.endswith("BackpropInput"):
            continue
        waited_for = [
            other
            for other in weight_gradients[operation.inputs[2].ref()]
            # A transposed convolution computes its output by such an operation.
            if not _is_computed_from(other, operation)
        ]
        if waited_for:
            for follower in _following(operation):
                follower._add_control_inputs(waited_for)


def _is_computed_from(operation, source):
    seen, open_ends = set(), [operation]
    while open_ends:
        for tensor in open_ends.pop().inputs:
            if tensor.op is source:
                return True
            if id(tensor.op) not in seen:
                seen.add(id(tensor.op))
                open_ends.append(tensor.op)
    return False


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
