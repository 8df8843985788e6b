"""Which operations of a traced step wait for which."""

import keras
import tensorflow as tf
import tiny


def waits_for(operation, other):
    """Whether `operation` runs after `other` in every schedule."""
    seen, open_ends = set(), [operation]
    while open_ends:
        now = open_ends.pop()
        before = [t.op for t in now.inputs] + list(now.control_inputs)
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
