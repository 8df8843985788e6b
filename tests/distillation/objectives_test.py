"""Objectives E1, E2 and E3 against values computed by hand."""

import keras
import numpy as np
import tensorflow as tf
import tiny

from afd_tf import OnlineDistiller, losses

NAMES = ["a", "b", "c"]
UNNORMALIZED = {"discriminator_normalization": "none"}


def twins(options, **shared):
    """Return a distiller per dict of options, all with the same initial weights."""
    models = [tiny.distiller(**shared, **own) for own in options]
    for model in models[1:]:
        for part in ("networks", "transfers", "discriminators"):
            for to, of in zip(getattr(model, part), getattr(models[0], part)):
                to.set_weights(of.get_weights())
    return models


def test_temperature_weight_and_topology_of_the_kl_term():
    images, labels = tiny.batch()
    networks = [tiny.network() for _ in NAMES]
    z = [n(images) for n in networks]
    model = tiny.distiller(
        networks,
        names=NAMES,
        temperature=5.0,
        kl_weight=2.5,
        kl_topology="all_pairs",
    )
    logs = model.train_on_batch(images, labels, return_dict=True)
    for k, peers in enumerate([(1, 2), (0, 2), (0, 1)]):
        name = NAMES[k]
        kl = np.mean([np.mean(losses.kl_divergence(z[j], z[k], 5.0)) for j in peers])
        np.testing.assert_allclose(logs[f"{name}_kl"], kl, rtol=1e-4)
        total = logs[f"{name}_cross_entropy"] + 2.5 * kl
        np.testing.assert_allclose(logs[f"{name}_loss"], total, rtol=1e-4)


def test_feature_weight_multiplies_the_feature_update():
    steps = []
    for model in twins([{}, {"feature_weight": 9.0}], rates=(0, 0.1, 0)):
        kernel = model.networks[0].get_layer("conv").kernel
        before = np.array(kernel)
        model.train_on_batch(*tiny.batch())
        steps.append(np.array(kernel) - before)
    np.testing.assert_allclose(steps[1], 9 * steps[0], rtol=1e-2, atol=1e-6)


def constant_network(value):
    """Return a classifier whose map is `value` everywhere, whatever the image."""
    inputs = keras.Input((6, 6, 2))
    bias = keras.initializers.Constant(value)
    conv = keras.layers.Conv2D(
        1, 1, kernel_initializer="zeros", bias_initializer=bias, name="map"
    )
    x = keras.layers.GlobalAveragePooling2D()(conv(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def mean_discriminator():
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
        discriminators=[mean_discriminator() for _ in range(3)],
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


def test_with_several_sources_discriminator_losses_are_means_over_them():
    values = np.array([-1.0, 0.5, 2.0])
    model = tiny.distiller(
        [constant_network(value) for value in values],
        tap="map",
        names=NAMES,
        topology="all_pairs",
        discriminators=[mean_discriminator() for _ in NAMES],
    )
    logs = model.train_on_batch(*tiny.batch(), return_dict=True)
    outputs = 1 / (1 + np.exp(-values))
    for k, name in enumerate(NAMES):
        real, own = np.delete(outputs, k), outputs[k]
        expected = {
            "loss": np.mean((1 - real) ** 2) + own**2,
            "real": np.mean(real),
            "own": own,
            "accuracy": (np.mean(real > 0.5) + float(own < 0.5)) / 2,
        }
        for what, value in expected.items():
            np.testing.assert_allclose(
                logs[f"{name}_discriminator_{what}"], value, rtol=1e-5
            )
        np.testing.assert_allclose(
            logs[f"{name}_feature_loss"], (1 - own) ** 2, rtol=1e-5
        )


def test_concatenated_e3_sees_the_source_beside_its_own_map_as_a_constant():
    images, labels = tiny.batch()
    model = tiny.distiller(
        None,
        tiny.afd(discriminator_batches="concatenated"),
        rates=(0, 0.5, 0),
        names=["a", "b"],
    )
    kernels = [n.get_layer("conv").kernel for n in model.networks]
    with tf.GradientTape(persistent=True) as tape:
        maps = [tap.forward(images)[0] for tap in model.taps]
        e3 = []
        for k, discriminator in enumerate(model.discriminators):
            source = tf.stop_gradient(maps[k - 1])
            output = discriminator(tf.concat([source, maps[k]], 0), training=True)[8:]
            e3.append(tf.reduce_mean((1 - output) ** 2))
    expected = [
        np.array(kernel) - 0.5 * tape.gradient(loss, kernel.value).numpy()
        for kernel, loss in zip(kernels, e3, strict=True)
    ]
    logs = model.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(logs["a_feature_loss"], e3[0], rtol=1e-4)
    for kernel, value in zip(kernels, expected, strict=True):
        np.testing.assert_allclose(kernel, value, rtol=1e-4, atol=1e-6)


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


def test_a_discriminator_s_regularisers_join_e2():
    l2 = keras.regularizers.L2(0.7)
    discriminators = [
        [
            tiny.discriminator_with(keras.layers.Conv2D(3, 3, kernel_regularizer=r))
            for _ in range(2)
        ]
        for r in (None, l2)
    ]
    plain, regularised = twins(
        [{"discriminators": own} for own in discriminators], rates=(0, 0, 0.1)
    )
    kernel = np.array(plain.discriminators[0].layers[1].kernel)
    after = []
    for model in (plain, regularised):
        model.train_on_batch(*tiny.batch())
        after.append(np.array(model.discriminators[0].layers[1].kernel))
    np.testing.assert_allclose(
        after[0] - after[1], 0.1 * 1.4 * kernel, rtol=1e-3, atol=1e-6
    )
