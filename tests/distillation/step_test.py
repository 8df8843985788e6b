"""The step: whom each update changes, in which order, from which pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from keras import ops

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
    model, discriminators = who_changes((0.0, 0.0, 0.1))
    trainable = paths(v for d in model.discriminators for v in d.trainable_variables)
    assert (
        discriminators
        - paths(v for d in model.discriminators for v in d.non_trainable_variables)
        <= trainable
    )
    assert len(discriminators & trainable) > len(trainable) / 2


def literal_step(networks, discriminators, images, labels, rates):
    """One step as the paper writes it: an optimizer per network, around the cycle."""
    extractors = [keras.Model(n.inputs, n.get_layer("map").output) for n in networks]
    logit_rate, feature_rate, discriminator_rate = rates
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
    for k, discriminator in enumerate(discriminators):
        with tf.GradientTape() as tape:
            e2 = ops.mean((1 - discriminator(constants[k - 1], training=True)) ** 2)
            e2 += ops.mean(discriminator(constants[k], training=True) ** 2)
        discriminator_gradients = tape.gradient(e2, discriminator.trainable_variables)
        for v, g in zip(
            discriminator.trainable_variables, discriminator_gradients, strict=True
        ):
            v.assign_sub(discriminator_rate * g)
        with tf.GradientTape() as tape:
            tape.watch(constants[k])
            e3 = ops.mean((1 - discriminator(constants[k], training=True)) ** 2)
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
    discriminators = [keras.models.clone_model(d) for d in model.discriminators]
    for twin, own in zip(twins + discriminators, model.networks + model.discriminators):
        twin.set_weights(own.get_weights())
    for _ in range(3):
        literal_step(twins, discriminators, images, labels, rates)
        model.train_on_batch(images, labels)
    for twin, own in zip(twins + discriminators, model.networks + model.discriminators):
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


def test_a_discriminator_s_own_statistics_move_in_its_own_update_only():
    images, labels = tiny.batch()
    discriminators = [
        tiny.discriminator_with(keras.layers.BatchNormalization(momentum=0.9))
        for _ in "ab"
    ]
    model = tiny.distiller(discriminators=discriminators, rates=(0, 0, 0))
    maps = [np.mean(tap.forward(images)[0], axis=(0, 1, 2)) for tap in model.taps]
    model.train_on_batch(images, labels)
    # Once for the network's own maps, then once for the source's.
    expected = 0.9 * 0.1 * maps[0] + 0.1 * maps[1]
    np.testing.assert_allclose(
        discriminators[0].layers[1].moving_mean, expected, rtol=1e-4, atol=1e-6
    )


def test_a_frozen_network_is_a_source_that_stays_as_it_is():
    networks = [tiny.network(normalization=True), tiny.network()]
    networks[0].trainable = False
    before = networks[0].get_weights()
    model = tiny.distiller(networks, names=["a", "b"])
    logs = model.train_on_batch(*tiny.batch(), return_dict=True)
    for expected, actual in zip(before, networks[0].get_weights()):
        np.testing.assert_array_equal(actual, expected)
    assert logs["b_gradient_ratio"] > 0


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
