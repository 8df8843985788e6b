"""Keep gradients of weights from lagging behind the backward pass."""

import tensorflow as tf


def bound_backlog():
    """Let no convolution's weight gradient lag more than one convolution behind.

    Nothing waits for a weight gradient but the optimizer, so TensorFlow runs the chain
    of map gradients ahead of them and keeps every map's gradient until they have had
    it. Two backward passes through one forward pass free no map before both are done,
    and those gradients come on top: a quarter of all activations. Here each step of
    the chain waits for the weight gradient of the step before. Numbers do not change,
    only the order; in eager execution there is nothing to do.
    """
    graph = tf.compat.v1.get_default_graph()
    if tf.executing_eagerly():
        return
    operations = graph.get_operations()
    weight_gradients = {
        operation.inputs[2].ref(): operation
        for operation in operations
        if operation.type.endswith("BackpropFilter")
    }
    for operation in operations:
        if not operation.type.endswith("BackpropInput"):
            continue
        weight_gradient = weight_gradients.get(operation.inputs[2].ref())
        if weight_gradient is not None:
            for follower in _following(operation):
                follower._add_control_input(weight_gradient)


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
