"""What one training step computes, and whom it changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from keras import ops

from afd_tf import OnlineDistiller

UNNORMALIZED = {"discriminator_normalization": "none"}


def paths(variables):
    return {v.path for v in variables}


def test_each_update_changes_its_own_variables_only():
    networks = [tiny.network(4), tiny.network(6)]
    extractors = [v for n in networks for v in n.get_layer("conv").trainable_variables]
    heads = [v for n in networks for v in n.get_layer("logits").trainable_variables]
    images, labels = tiny.batch()

    def who_changes(rates):
        model = tiny.distiller(networks, tiny.afd(), rates)
        model.train_on_batch(images, labels)  # traces, builds nothing new
        return model, tiny.changed(model, lambda: model.train_on_batch(images, labels))

    model, logit = who_changes((0.1, 0.0, 0.0))
    statistics = paths(
        v for d in model.discriminators for v in d.non_trainable_variables
    )
    assert logit - statistics == paths(extractors) | paths(heads)
    model, feature = who_changes((0.0, 0.1, 0.0))
    transfers = [v for t in model.transfers for v in t.trainable_variables]
    assert transfers
    assert feature - statistics >= paths(extractors)
    assert feature - statistics <= paths(extractors) | paths(transfers)
    assert feature & paths(v for v in transfers if v.name == "kernel")
    model, judges = who_changes((0.0, 0.0, 0.1))
    trainable = paths(v for d in model.discriminators for v in d.trainable_variables)
    assert (
        judges
        - paths(v for d in model.discriminators for v in d.non_trainable_variables)
        <= trainable
    )
    assert len(judges & trainable) > len(trainable) / 2


def literal_step(networks, discriminators, images, labels, rates):
    """One step as the paper writes it: an optimizer per network, around the cycle."""
    extractors = [keras.Model(n.inputs, n.get_layer("map").output) for n in networks]
    logit_rate, feature_rate, judge_rate = rates
    logits = [None] * len(networks)
    gradients = []
    with tf.GradientTape(persistent=True) as tape:
        logits = [n(images) for n in networks]
        e1 = []
        for k in range(len(networks)):
            ce = keras.losses.sparse_categorical_crossentropy(
                labels, logits[k], from_logits=True
            )
            p = ops.softmax(tf.stop_gradient(logits[k - 1]) / 3)
            log_q = ops.log_softmax(logits[k] / 3)
            kl = 9 * ops.sum(p * (ops.log(p) - log_q), axis=-1)
            e1.append(ops.mean(ce + kl))
    for k, network in enumerate(networks):
        gradients.append(tape.gradient(e1[k], network.trainable_variables))
    for network, gradient in zip(networks, gradients, strict=True):
        for v, g in zip(network.trainable_variables, gradient, strict=True):
            v.assign_sub(logit_rate * g)
    # Fresh maps, all from one pass after the logit update; then D_1, G_1, D_2, G_2...
    with tf.GradientTape(persistent=True) as map_tape:
        maps = [extractor(images) for extractor in extractors]
    constants = [tf.stop_gradient(m) for m in maps]
    for k, judge in enumerate(discriminators):
        with tf.GradientTape() as tape:
            e2 = ops.mean((1 - judge(constants[k - 1], training=True)) ** 2)
            e2 += ops.mean(judge(constants[k], training=True) ** 2)
        judge_gradients = tape.gradient(e2, judge.trainable_variables)
        for v, g in zip(judge.trainable_variables, judge_gradients, strict=True):
            v.assign_sub(judge_rate * g)
        with tf.GradientTape() as tape:
            tape.watch(constants[k])
            e3 = ops.mean((1 - judge(constants[k], training=True)) ** 2)
        cotangent = tape.gradient(e3, constants[k])
        variables = extractors[k].trainable_variables
        own = map_tape.gradient(maps[k], variables, output_gradients=cotangent)
        for v, g in zip(variables, own, strict=True):
            v.assign_sub(feature_rate * g)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_a_fresh_step_equals_the_literal_order_around_the_cycle(count, normalization):
    images, labels = tiny.batch()
    rates = (0.1, 0.5, 0.3)
    method = tiny.afd(discriminator_normalization=normalization)
    model = tiny.distiller(
        [tiny.network() for _ in range(count)], method, rates, forward="fresh"
    )
    twins = [keras.models.clone_model(n) for n in model.networks]
    judges = [keras.models.clone_model(d) for d in model.discriminators]
    for twin, own in zip(twins + judges, model.networks + model.discriminators):
        twin.set_weights(own.get_weights())
    for _ in range(3):
        literal_step(twins, judges, images, labels, rates)
        model.train_on_batch(images, labels)
    for twin, own in zip(twins + judges, model.networks + model.discriminators):
        for expected, actual in zip(twin.trainable_variables, own.trainable_variables):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-6)


def test_shared_and_fresh_agree_when_the_logit_update_stands_still():
    images, labels = tiny.batch()
    models = []
    for forward in ("shared", "fresh"):
        keras.utils.set_random_seed(1)
        networks = [tiny.network(4, normalization=True), tiny.network(6)]
        models.append(
            tiny.distiller(networks, tiny.afd(), (0.0, 0.5, 0.5), forward=forward)
        )
        models[-1].train_on_batch(images, labels)
    for shared, fresh in zip(models[0].variables, models[1].variables, strict=True):
        np.testing.assert_allclose(shared, fresh, rtol=1e-5, atol=1e-7)


def test_shared_and_fresh_differ_when_the_logit_update_moves():
    images, labels = tiny.batch()
    kernels = []
    for forward in ("shared", "fresh"):
        keras.utils.set_random_seed(1)
        model = tiny.distiller(None, tiny.afd(), (0.5, 0.5, 0.5), forward=forward)
        model.train_on_batch(images, labels)
        kernels.append(np.array(model.networks[0].get_layer("conv").kernel))
    assert not np.allclose(kernels[0], kernels[1], rtol=1e-5)


@pytest.mark.parametrize("forward", ["shared", "fresh"])
def test_statistics_move_by_exactly_one_momentum_update(forward):
    images, labels = tiny.batch()
    networks = [tiny.network(4, normalization=True) for _ in range(2)]
    expected = []
    for network in networks:
        inner = keras.Model(network.inputs, network.get_layer("conv").output)(images)
        expected.append(0.1 * np.mean(inner, axis=(0, 1, 2)))
    model = tiny.distiller(networks, tiny.afd(), forward=forward)
    model.train_on_batch(images, labels)
    for network, mean in zip(networks, expected, strict=True):
        np.testing.assert_allclose(
            network.get_layer("bn").moving_mean, mean, rtol=1e-4, atol=1e-6
        )


def constant_network(value):
    """Return a classifier whose map is `value` everywhere, whatever the image."""
    inputs = keras.Input((6, 6, 2))
    bias = keras.initializers.Constant(value)
    conv = keras.layers.Conv2D(
        1, 1, kernel_initializer="zeros", bias_initializer=bias, name="map"
    )
    x = keras.layers.GlobalAveragePooling2D()(conv(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def mean_judge():
    inputs = keras.Input((6, 6, 1))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Activation("sigmoid")(mean))


def test_in_a_cycle_of_three_each_discriminator_takes_the_network_before_for_real():
    images, labels = tiny.batch()
    networks = [constant_network(value) for value in (-1.0, 0.5, 2.0)]
    model = OnlineDistiller(
        networks,
        tap="map",
        names=["a", "b", "c"],
        discriminators=[mean_judge() for _ in range(3)],
    )
    model.compile(feature_weight_decay=0, run_eagerly=True)
    logs = model.train_on_batch(images, labels, return_dict=True)
    sigmoid = {n: 1 / (1 + np.exp(-v)) for n, v in zip("abc", (-1.0, 0.5, 2.0))}
    for own, source in (("a", "c"), ("b", "a"), ("c", "b")):
        real, fake = logs[f"{own}_discriminator_real"], logs[f"{own}_discriminator_own"]
        np.testing.assert_allclose(real, sigmoid[source], rtol=1e-6)
        np.testing.assert_allclose(fake, sigmoid[own], rtol=1e-6)
        np.testing.assert_allclose(
            logs[f"{own}_discriminator_loss"], (1 - real) ** 2 + fake**2, rtol=1e-6
        )
        np.testing.assert_allclose(
            logs[f"{own}_feature_loss"], (1 - fake) ** 2, rtol=1e-6
        )


def test_a_sample_of_weight_zero_counts_for_nothing():
    images, labels = tiny.batch(8)
    weight = tf.constant([2.0] * 4 + [0.0] * 4)
    models = []
    for arguments in ((images, labels, weight), (images[:4], labels[:4])):
        keras.utils.set_random_seed(1)
        models.append(tiny.distiller(None, tiny.afd(**UNNORMALIZED)))
        models[-1].train_on_batch(*arguments)
    for weighted, alone in zip(models[0].variables, models[1].variables, strict=True):
        np.testing.assert_allclose(weighted, alone, rtol=1e-4, atol=1e-6)


def test_regularisers_join_the_logit_loss_once():
    images, labels = tiny.batch()
    losses_of = {}
    for factor in (0.0, 0.7):
        keras.utils.set_random_seed(1)
        regulariser = keras.regularizers.L2(factor) if factor else None
        networks = [tiny.network(kernel_regularizer=regulariser), tiny.network()]
        kernel = np.array(networks[0].get_layer("conv").kernel)
        model = tiny.distiller(networks, "afd", (0.1, 0, 0), names=["a", "b"])
        logs = model.train_on_batch(images, labels, return_dict=True)
        losses_of[factor] = (
            logs["a_loss"],
            np.array(networks[0].get_layer("conv").kernel),
        )
    (plain, plain_after), (l2, l2_after) = losses_of.values()
    np.testing.assert_allclose(l2 - plain, 0.7 * np.sum(kernel**2), rtol=1e-4)
    np.testing.assert_allclose(
        plain_after - l2_after, 0.1 * 1.4 * kernel, rtol=1e-3, atol=1e-6
    )


def test_activity_regularisers_count_once():
    images, labels = tiny.batch()
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, activity_regularizer=keras.regularizers.L2(0.3))(
        inputs
    )
    flat = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(inputs, keras.layers.Dense(3)(flat))
    activity = keras.Model(inputs, x)(images)
    model = tiny.distiller([network, tiny.network()], "dml", names=["a", "b"])
    for _ in range(2):
        activity = keras.Model(inputs, x)(images)
        logs = model.train_on_batch(images, labels, return_dict=True)
        expected = 0.3 * np.sum(np.square(activity)) / len(images)
        np.testing.assert_allclose(
            logs["a_loss"] - logs["a_cross_entropy"] - logs["a_kl"], expected, rtol=1e-3
        )


def test_the_gradient_ratio_is_that_of_the_norms_before_decay():
    images, labels = tiny.batch()
    rates = (1.0, 1.0, 0.0)
    model = tiny.distiller(None, tiny.afd(**UNNORMALIZED), rates, names=["a", "b"])
    logs = model.train_on_batch(images, labels, return_dict=True)
    norms = []
    for only in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
        keras.utils.set_random_seed(0)
        twin = tiny.distiller(None, tiny.afd(**UNNORMALIZED), only)
        layer = twin.networks[0].get_layer("conv")
        before = tiny.values(layer.variables)
        twin.train_on_batch(images, labels)
        steps = [b - a for b, a in zip(before, tiny.values(layer.variables))]
        norms.append(np.sqrt(sum(np.sum(s**2) for s in steps)))
    del model
    np.testing.assert_allclose(logs["a_gradient_ratio"], norms[1] / norms[0], rtol=1e-3)
