"""What each option of the distiller and of `compile` does to a step's numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from afd_tf import losses

NAMES = ["a", "b", "c"]


def twins(options, **shared):
    """Return a distiller per dict of options, all with the same initial weights."""
    models = [tiny.distiller(**shared, **own) for own in options]
    for model in models[1:]:
        model.set_weights(models[0].get_weights())
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
    for k, sources in enumerate([(1, 2), (0, 2), (0, 1)]):
        name = NAMES[k]
        kl = np.mean([np.mean(losses.kl_divergence(z[j], z[k], 5.0)) for j in sources])
        np.testing.assert_allclose(logs[f"{name}_kl"], kl, rtol=1e-4)
        total = logs[f"{name}_cross_entropy"] + 2.5 * kl
        np.testing.assert_allclose(logs[f"{name}_loss"], total, rtol=1e-4)
    assert model._exchange.peers == ((2,), (0,), (1,))


def test_feature_weight_multiplies_the_feature_update():
    steps = []
    for model in twins([{}, {"feature_weight": 9.0}], rates=(0, 0.1, 0)):
        kernel = model.networks[0].get_layer("conv").kernel
        before = np.array(kernel)
        model.train_on_batch(*tiny.batch())
        steps.append(np.array(kernel) - before)
    np.testing.assert_allclose(steps[1], 9 * steps[0], rtol=1e-2, atol=1e-6)


def constant_network(value):
    inputs = keras.Input((6, 6, 2))
    bias = keras.initializers.Constant(value)
    x = keras.layers.Conv2D(
        1, 1, kernel_initializer="zeros", bias_initializer=bias, name="map"
    )(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def mean_judge():
    inputs = keras.Input((6, 6, 1))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Activation("sigmoid")(mean))


def test_with_several_sources_discriminator_losses_are_means_over_them():
    values = np.array([-1.0, 0.5, 2.0])
    model = tiny.distiller(
        [constant_network(value) for value in values],
        tap="map",
        names=NAMES,
        topology="all_pairs",
        discriminators=[mean_judge() for _ in NAMES],
    )
    logs = model.train_on_batch(*tiny.batch(), return_dict=True)
    verdicts = 1 / (1 + np.exp(-values))
    for k, name in enumerate(NAMES):
        real, own = np.delete(verdicts, k), verdicts[k]
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
        for k, judge in enumerate(model.discriminators):
            source = tf.stop_gradient(maps[k - 1])
            verdict = judge(tf.concat([source, maps[k]], 0), training=True)[8:]
            e3.append(tf.reduce_mean((1 - verdict) ** 2))
    expected = [
        np.array(kernel) - 0.5 * tape.gradient(loss, kernel.value).numpy()
        for kernel, loss in zip(kernels, e3, strict=True)
    ]
    logs = model.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(logs["a_feature_loss"], e3[0], rtol=1e-4)
    for kernel, value in zip(kernels, expected, strict=True):
        np.testing.assert_allclose(kernel, value, rtol=1e-4, atol=1e-6)


def judge_with(*layers):
    inputs = keras.Input((6, 6, 4))
    x = inputs
    for layer in layers:
        x = layer(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))


def test_a_discriminator_s_regularisers_join_e2():
    l2 = keras.regularizers.L2(0.7)
    judges = [
        [judge_with(keras.layers.Conv2D(3, 3, kernel_regularizer=r)) for _ in range(2)]
        for r in (None, l2)
    ]
    plain, regularised = twins(
        [{"discriminators": own} for own in judges], rates=(0, 0, 0.1)
    )
    kernel = np.array(plain.discriminators[0].layers[1].kernel)
    after = []
    for model in (plain, regularised):
        model.train_on_batch(*tiny.batch())
        after.append(np.array(model.discriminators[0].layers[1].kernel))
    np.testing.assert_allclose(
        after[0] - after[1], 0.1 * 1.4 * kernel, rtol=1e-3, atol=1e-6
    )


def test_a_discriminator_s_own_statistics_move_in_its_own_update_only():
    images, labels = tiny.batch()
    judges = [judge_with(keras.layers.BatchNormalization(momentum=0.9)) for _ in "ab"]
    model = tiny.distiller(discriminators=judges, rates=(0, 0, 0))
    maps = [np.mean(tap.forward(images)[0], axis=(0, 1, 2)) for tap in model.taps]
    model.train_on_batch(images, labels)
    # Once for the network's own maps, then once for the source's.
    expected = 0.9 * 0.1 * maps[0] + 0.1 * maps[1]
    np.testing.assert_allclose(
        judges[0].layers[1].moving_mean, expected, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("ensemble", ["probabilities", "logits"])
def test_evaluation_weighs_losses_and_uses_the_ensemble_asked_for(ensemble):
    images, labels = tiny.batch(20)
    weight = np.linspace(0, 3, 20).astype("float32")
    model = tiny.distiller(names=["a", "b"], ensemble=ensemble)
    for scale, network in zip((1.0, 9.0), model.networks, strict=True):
        head = network.get_layer("logits")
        head.kernel.assign(scale * head.kernel.value)
    predicted = model.predict(images, verbose=0)
    logs = model.evaluate(
        images, labels, sample_weight=weight, verbose=0, return_dict=True
    )
    rows = np.arange(20), labels.numpy()
    for name in ("a", "b", "ensemble"):
        per_example = -np.log(predicted[name][rows])
        expected = np.sum(weight * per_example) / 20
        np.testing.assert_allclose(logs[f"{name}_loss"], expected, rtol=1e-4)


def test_the_gradient_ratio_is_computed_at_every_nth_step_and_an_epoch_s_first():
    model = tiny.distiller(names=["a", "b"], compiled={"gradient_ratio_every": 3})
    counted = []

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            counted.append(float(model.metrics[0].count("a_gradient_ratio")))

    images, labels = tiny.batch(10)
    model.fit(images, labels, 2, epochs=2, verbose=0, callbacks=[Count()])
    # Steps 0 and 3 of the first epoch; 5 (its first), 6 and 9 of the second.
    assert counted == [1, 1, 1, 2, 2, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("eagerly", [True, False])
@pytest.mark.parametrize("forward", ["shared", "fresh"])
def test_maps_take_part_in_every_nth_step(forward, eagerly):
    images, labels = tiny.batch()
    own = {"feature_every": 2, "run_eagerly": eagerly}
    model = tiny.distiller(forward=forward, compiled=own)
    always = tiny.distiller(forward=forward)
    never = tiny.distiller(method="dml")

    def copy_to(other):
        for a, b in zip(model.networks, other.networks, strict=True):
            b.set_weights(a.get_weights())
        for a, b in zip(model.discriminators, other.discriminators, strict=False):
            b.set_weights(a.get_weights())

    for step in range(4):
        other = never if step % 2 else always
        copy_to(other)
        before = tiny.values(v for d in model.discriminators for v in d.variables)
        model.train_on_batch(images, labels)
        other.train_on_batch(images, labels)
        for a, b in zip(model.networks, other.networks, strict=True):
            for v, w in zip(a.weights, b.weights, strict=True):
                np.testing.assert_allclose(v, w, rtol=1e-5, atol=1e-7)
        after = tiny.values(v for d in model.discriminators for v in d.variables)
        moved = [not np.array_equal(x, y) for x, y in zip(before, after, strict=True)]
        assert any(moved) == (step % 2 == 0)
    assert int(model.optimizer.iterations) == 4
    assert int(model.feature_optimizer.iterations) == 2
    assert int(model.discriminator_optimizer.iterations) == 2


def test_steps_without_maps_do_not_enter_the_means_of_their_metrics():
    images, labels = tiny.batch(16)
    model = tiny.distiller(names=["a", "b"], compiled={"feature_every": 2})
    logs = model.fit(images, labels, 4, verbose=0).history
    # Four steps, two of which count.
    assert float(model._compiled_parts.train_metrics.count("a_feature_loss")) == 8
    assert 0 < logs["a_discriminator_real"][0] < 1


@pytest.mark.multi_device
def test_what_cannot_skip_the_update_of_maps_says_so():
    with pytest.raises(ValueError, match="no update of its own on feature maps"):
        tiny.distiller(method="dml", compiled={"feature_every": 2})
    for devices in (["CPU:0", "CPU:1"], ["CPU:0"]):
        strategy = tf.distribute.MirroredStrategy(devices)
        with strategy.scope(), pytest.raises(ValueError, match="one device only"):
            tiny.distiller(compiled={"feature_every": 2, "run_eagerly": False})


@pytest.mark.parametrize("every", [1, 2])
def test_an_optimizer_that_accumulates_gradients_counts_steps(every):
    images, labels = tiny.batch()
    model = tiny.distiller(
        compiled={
            "optimizer": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
            "feature_every": every,
            "run_eagerly": False,
        }
    )
    before = tiny.values(model.networks[0].trainable_variables)
    model.fit(images, labels, 2, verbose=0)
    after = tiny.values(model.networks[0].trainable_variables)
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert int(model.optimizer.iterations) == 2
    assert int(model.discriminator_optimizer.iterations) == 4 // every
