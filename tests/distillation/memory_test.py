"""Order of weight gradients: which operations of a traced step wait for which."""

import keras
import pytest
import tensorflow as tf
import tiny

from afd_tf.distillation import memory


def waits_for(operation, other):
    """Whether `operation` runs after `other` in every schedule."""
    seen, open_ends = set(), [operation]
    while open_ends:
        last = open_ends.pop()
        before = [t.op for t in last.inputs] + list(last.control_inputs)
        if other in before:
            return True
        open_ends += [op for op in before if op not in seen]
        seen.update(before)
    return False


def graph_of_a_step(make_network):
    model = tiny.distiller([make_network() for _ in range(2)])
    images, labels = tiny.batch()
    return tf.function(model.train_step).get_concrete_function((images, labels)).graph


def network(body):
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(body(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def convolution(x, name, **options):
    x = keras.layers.Conv2D(3, 3, padding="same", name=name, **options)(x)
    return keras.layers.Activation("tanh", name=f"{name}_map")(x)


def deep():
    return network(lambda x: convolution(convolution(convolution(x, "a"), "b"), "c"))


def branched():
    def body(x):
        x = convolution(convolution(x, "a"), "b")
        return keras.layers.Add(name="sum")(
            [keras.layers.Conv2D(3, 1, name=name)(x) for name in ("c", "d")]
        )

    return network(body)


def gradients(graph, kind, layer):
    return [
        operation
        for operation in graph.get_operations()
        if operation.type == f"Conv2DBackprop{kind}"
        and f"/{layer}_" in operation.name.replace("/convolution", "_")
    ]


def test_the_backward_pass_waits_for_the_weight_gradient_of_the_layer_above():
    graph = graph_of_a_step(deep)
    followers = gradients(graph, "Input", "b")
    assert len(followers) == 4  # two networks, E1 and E3
    for follower in followers:
        above = gradients(graph, "Filter", "c")
        assert sum(waits_for(follower, other) for other in above) == 1


def test_it_waits_for_both_of_two_branches_that_are_summed():
    # Their weight gradients are computed from one and the same gradient of the sum.
    graph = graph_of_a_step(branched)
    for follower in gradients(graph, "Input", "b"):
        for layer in ("c", "d"):
            above = gradients(graph, "Filter", layer)
            assert sum(waits_for(follower, other) for other in above) == 1


def test_a_transposed_convolution_is_no_gradient_of_another():
    def body(x):
        x = convolution(x, "a")
        x = keras.layers.Conv2DTranspose(3, 3, strides=2, name="up")(x)
        return convolution(x, "b", strides=2)

    model = tiny.distiller(
        [network(body) for _ in range(2)], compiled={"run_eagerly": False}
    )
    images, labels = tiny.batch()
    assert model.train_on_batch(images, labels, return_dict=True)["loss"] > 0


def images():
    return tf.compat.v1.placeholder(tf.float32, (2, 8, 8, 3))


def filters():
    return tf.compat.v1.placeholder(tf.float32, (3, 3, 3, 3))


def convolve(x, count=1):
    for _ in range(count):
        x = tf.tanh(tf.nn.conv2d(x, filters(), 1, "SAME"))
    return x


def chain(x):
    return convolve(x, 4)


def residual(x):
    for _ in range(3):
        x = tf.nn.relu(x + convolve(x, 2))
    return x


def depthwise(x):
    kernel = tf.compat.v1.placeholder(tf.float32, (3, 3, 3, 1))
    return convolve(tf.nn.depthwise_conv2d(convolve(x), kernel, [1] * 4, "SAME"))


def transposed(x):
    x = convolve(x)
    up = [tf.nn.conv2d_transpose(x, filters(), (2, 8, 8, 3), 1) for _ in range(2)]
    return convolve(up[0] + convolve(up[1])) + convolve(x)


def backward_graph(body):
    """Trace a body and its gradients by all filters."""
    graph = tf.Graph()
    with graph.as_default():
        tf.gradients(body(images()), graph_filters(graph))
    return graph


def graph_filters(graph):
    return [
        operation.outputs[0]
        for operation in graph.get_operations()
        if operation.type == "Placeholder" and operation.outputs[0].shape[0] == 3
    ]


def data_comes_from(operation, source):
    seen, open_ends = {operation}, [operation]
    while open_ends:
        before = {tensor.op for tensor in open_ends.pop().inputs} - seen
        seen |= before
        open_ends += before
    return source in seen


def edges_by_definition(graph):
    """Every convolution's map gradient, after the weight gradients next above it."""
    operations = graph.get_operations()
    edges = set()
    for above in operations:
        if not above.type.endswith("BackpropInput"):
            continue
        waited_for = [
            o
            for o in operations
            if o.type.endswith("BackpropFilter")
            and o.inputs[2] is above.inputs[2]
            and not data_comes_from(o, above)
        ]
        reached, open_ends = set(), [above]
        while open_ends:
            for consumer in open_ends.pop().outputs[0].consumers():
                if consumer.type.endswith("BackpropInput"):
                    edges |= {(consumer, other) for other in waited_for}
                elif consumer.type.endswith("BackpropFilter"):
                    continue
                elif consumer not in reached and consumer.outputs:
                    reached.add(consumer)
                    open_ends.append(consumer)
    return edges


def edges(graph):
    return {(o, w) for o in graph.get_operations() for w in o.control_inputs}


@pytest.mark.parametrize("body", [chain, residual, depthwise, transposed])
def test_these_and_no_other_operations_wait(body):
    graph = backward_graph(body)
    before = edges(graph)
    with graph.as_default():
        memory.order_weight_gradients()
    assert edges(graph) - before == edges_by_definition(graph) != set()
