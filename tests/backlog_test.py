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


def test_the_backward_pass_waits_for_the_weight_gradient_of_the_layer_above():
    networks = [deep_network() for _ in range(2)]
    model = tiny.distiller(networks)
    images, labels = tiny.batch()
    graph = tf.function(model.train_step).get_concrete_function((images, labels)).graph
    operations = graph.get_operations()
    chains = 0
    for follower in operations:
        if follower.type != "Conv2DBackpropInput" or "conv_2" not in follower.name:
            continue
        above = [
            o
            for o in operations
            if o.type == "Conv2DBackpropFilter"
            and "conv_3" in o.name
            and o.name.split("/")[1] == follower.name.split("/")[1]
        ]
        assert any(waits_for(follower, o) for o in above)
        chains += 1
    assert chains == 4  # two networks, E1 and E3


def deep_network():
    inputs = keras.Input((6, 6, 2))
    x = inputs
    for i in (1, 2, 3):
        x = keras.layers.Conv2D(3, 3, padding="same", name=f"conv_{i}")(x)
        x = keras.layers.Activation("tanh", name=f"map_{i}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
