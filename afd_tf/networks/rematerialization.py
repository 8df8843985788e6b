"""Gradient checkpointing: maps between segments kept, those inside recomputed."""

import itertools
import math
from numbers import Integral

import keras
import tensorflow as tf

from afd_tf.errors import invalid
from afd_tf.networks import graph


def check_checkpointing(checkpointing):
    """Check the argument `checkpointing`.

    Args:
        checkpointing: bool, or int >= 2, as in `afd_tf.OnlineDistiller`.

    Returns:
        bool or int.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(checkpointing, bool):
        return checkpointing
    if isinstance(checkpointing, Integral) and int(checkpointing) >= 2:
        return int(checkpointing)
    raise invalid(
        "checkpointing",
        "True, False, or the number of segments per network, an int of at least 2 (the "
        "feature map separates two)",
        checkpointing,
        hint="True chooses the number that needs the least memory.",
    )


def cut(nodes, tapped, segments=True):
    """Choose the nodes at which to cut a network into segments.

    A forward pass in segments keeps their borders, and each backward pass the inside of
    one segment at a time. With all outputs of nodes counted, the default minimises

        bytes of all borders + bytes of the largest inside

    which for n equal layers is about sqrt(n) segments.

    Args:
        nodes: list of nodes from the input to the logits, as `graph.sorted_nodes`
            gives them.
        tapped: the node of the feature map, a border if all paths go through it.
        segments: int, how many there may be at most, or True for the default.

    Returns:
        List of nodes that all paths go through, in order, without input and logits.
    """
    index = {id(node): i for i, node in enumerate(nodes)}
    sizes = [sum(map(_bytes, node.outputs)) for node in nodes]
    through = list(itertools.accumulate(sizes))
    possible = [
        index[id(node)]
        for node in graph.bottlenecks(nodes)[1:-1]
        if len(node.outputs) == 1
    ]
    forced, last = index[id(tapped)], len(nodes) - 1

    def pack(bound):
        """Cut as late as insides of at most `bound` bytes allow, and at the tap."""
        borders, start, end = [], 0, None
        for here in [*possible, last]:
            if end is not None and through[here] - through[start] > bound:
                borders.append(end)
                start = end
            end = here
            if here == forced and here != last:
                borders.append(here)
                start, end = here, None
        return borders

    def largest_inside(borders):
        pairs = itertools.pairwise([0, *borders, last])
        return max(through[end] - through[start] for start, end in pairs)

    def cost(borders):
        return sum(sizes[border] for border in borders) + largest_inside(borders)

    # Bounds in small steps, so that few numbers of segments are left out.
    parts = [1 + step / 4 for step in range(4 * len(possible) + 1)]
    choices = [pack(through[-1] / part) for part in parts]
    if segments is True:
        best = min(choices, key=cost)
    else:
        few = [borders for borders in choices if len(borders) < segments]
        best = min(few, key=largest_inside)
    return [nodes[border] for border in best]


def _bytes(tensor):
    """Size of a Keras tensor per example."""
    elements = math.prod(size or 1 for size in tensor.shape[1:])
    return elements * tf.as_dtype(tensor.dtype).size


class Segments:
    """A network's training pass in segments that keep only what enters them.

    Each backward pass through a segment computes it again from its input, the weights
    and the state (moving statistics, seeds of dropout) of the forward pass; only the
    forward pass moves state. Outputs, gradients, moving statistics and `losses` of the
    network are those of an ordinary pass.

    Layers have to keep their state in Keras variables and to draw random numbers by
    `keras.random`, as Keras' own do.

    Args:
        network: keras.Model, Functional or Sequential.
        nodes: list of its nodes, as `graph.sorted_nodes` gives them.
        tapped: the node of the feature map.
        checkpointing: True or int, see `cut`.
    """

    def __init__(self, network, nodes, tapped, checkpointing):
        self._network = network
        self._segments = []
        index = {id(node): i for i, node in enumerate(nodes)}
        start, before = network.inputs[0], 0
        for node in [*cut(nodes, tapped, checkpointing), nodes[-1]]:
            outputs = [node.outputs[0]]
            has_map = before < index[id(tapped)] <= index[id(node)]
            if has_map:
                self._with_map = len(self._segments)
                if node is not tapped:  # a tap inside a residual block
                    outputs.append(tapped.outputs[0])
            self._segments.append(_Segment(start, outputs))
            start, before = node.outputs[0], index[id(node)]

    def __len__(self):
        return len(self._segments)

    def __call__(self, x):
        """Compute the feature map and the logits for training.

        Args:
            x: float tensor of shape `(batch, height, width, channels)`.

        Returns:
            Tuple of the feature map `(batch, h, w, c)` and the logits
            `(batch, num_classes)`.
        """
        self._network._clear_losses()
        x = tf.cast(x, self._network.inputs[0].dtype)
        feature_map, finished = None, []
        for i, segment in enumerate(self._segments):
            outputs, losses = _run(segment, x, finished)
            x = outputs[0]
            if i == self._with_map:
                feature_map = outputs[-1]
            for loss in losses:
                # Of the base class: Functional refuses to.
                keras.layers.Layer.add_loss(self._network, loss)
        return feature_map, x


class _Segment(keras.layers.Layer):
    """A part of a network's graph, called in training mode.

    A model of these tensors would do, but for a layer that the graph calls twice.

    Args:
        start: KerasTensor, the input.
        outputs: list of KerasTensor.
    """

    def __init__(self, start, outputs):
        super().__init__(autocast=False, name="segment")
        self.function = keras.Function(start, outputs)
        self.layers = [
            operation
            for operation in self.function.operations
            if isinstance(operation, keras.layers.Layer)
        ]
        self.built = True

    def call(self, x, training=True):
        # The argument is for layers inside of layers, which look for it further up.
        return self.function._run_through_graph(x, operation_fn=_in_training)


def _in_training(operation):
    """Return the operation's call with training=True, whatever the graph's node says.

    Functional models do the same: the nodes of some layers say training=False.
    """
    if not isinstance(operation, keras.layers.Layer):
        return operation
    return lambda *args, **kwargs: operation(*args, **{**kwargs, "training": True})


class _Pass(keras.StatelessScope):
    """One pass through a segment, which notes what it would move.

    Attributes:
        state: list of (variable, tensor), the state before the pass.
        moved: list of variables with another value after it.
    """

    def __init__(self, weights, state):
        weights, state = list(weights), list(state)
        super().__init__([*weights, *state], collect_losses=True)
        self._weights = {id(variable) for variable, _ in weights}
        self.state = state
        self.moved = []

    def add_update(self, update):
        variable, value = update
        before = self.get_current_value(variable)
        if before is None:
            # None of the segment's: Keras' global seed generator.
            before = tf.convert_to_tensor(variable.value)
            self.state.append((variable, before))
        # As outside a scope: what is assigned passes no gradient, and the gradient of
        # a weight that was assigned to (spectral normalisation) is that of its reads.
        value = tf.stop_gradient(value)
        if id(variable) in self._weights:
            value += before - tf.stop_gradient(before)
        if all(variable is not other for other in self.moved):
            self.moved.append(variable)
        super().add_update((variable, value))


def _run(segment, x, finished):
    """Run a segment, keep what enters it only, and move its state once.

    Args:
        segment: _Segment.
        x: its input.
        finished: list of the gradients of the weights of the segment last
            differentiated in this forward pass. The next begins when all are there:
            if they were put off, they would hold that segment's maps. So only one
            segment is open at a time, and E3's backward pass waits for E1's.

    Returns:
        The segment's outputs and the losses its layers added, two lists of tensors.
    """
    weights = segment.trainable_variables
    passes = []

    def compute(x, *values):
        if passes:
            x = _after(finished, x)
        with _Pass(zip(weights, values, strict=True), state) as own:
            outputs = segment(x, training=True)
        passes.append(own)
        return (*outputs, *own.losses)

    @tf.custom_gradient
    def enter(*inputs):
        def leave(*gradients):
            finished[:] = gradients[1:] or gradients
            return gradients

        return [tf.identity(t) for t in inputs], leave

    # Read once: an update of the weights between the passes must not matter.
    values = [tf.convert_to_tensor(v.value) for v in weights]
    state = [
        (v, tf.convert_to_tensor(v.value)) for v in segment.non_trainable_variables
    ]
    results = tf.recompute_grad(compute)(*enter(x, *values))
    first = passes[0]
    state = first.state
    for variable in first.moved:
        variable.assign(first.get_current_value(variable))
    count = len(results) - len(first.losses)
    return list(results[:count]), list(results[count:])


def _after(tensors, x):
    """Return `x` when `tensors`, if they are of its graph, are there."""
    if tf.executing_eagerly() or not tensors or tensors[0].graph is not x.graph:
        return x
    # A sum, because Grappler drops control dependencies between such operations. It
    # does not know that no number is infinite and not a number at once.
    one_each = [tf.cast(tf.reshape(t, [-1])[:1], tf.float32) for t in tensors]
    numbers = tf.concat(one_each, 0)
    never = tf.reduce_any(tf.math.is_nan(numbers) & tf.math.is_inf(numbers))
    return x + tf.cast(never, x.dtype)
