"""What each method minimises, and from whom a network learns."""

import keras
import numpy as np
import pytest
import tiny

from afd_tf import losses, methods


@pytest.mark.parametrize("topology", ["cycle", "all_pairs"])
def test_kl_comes_from_the_peers_and_is_their_mean(topology):
    images, labels = tiny.batch()
    networks = [tiny.network() for _ in range(3)]
    z = [n(images) for n in networks]
    model = tiny.distiller(networks, "dml", names=["a", "b", "c"], topology=topology)
    logs = model.train_on_batch(images, labels, return_dict=True)
    pairs = {
        "cycle": {0: [2], 1: [0], 2: [1]},
        "all_pairs": {0: [1, 2], 1: [0, 2], 2: [0, 1]},
    }
    for k, own_peers in pairs[topology].items():
        each = [np.mean(losses.kl_divergence(z[j], z[k], 3.0)) for j in own_peers]
        np.testing.assert_allclose(logs[f"{'abc'[k]}_kl"], np.mean(each), rtol=1e-4)
        total = logs[f"{'abc'[k]}_cross_entropy"] + np.mean(each)
        np.testing.assert_allclose(logs[f"{'abc'[k]}_loss"], total, rtol=1e-4)


def test_kl_may_come_from_all_peers_while_maps_come_from_the_cycle():
    images, labels = tiny.batch()
    networks = [tiny.network() for _ in range(3)]
    z = [n(images) for n in networks]
    maps = [keras.Model(n.inputs, n.get_layer("map").output)(images) for n in networks]
    model = tiny.distiller(
        networks, "l1_kd", names=["a", "b", "c"], kl_topology="all_pairs"
    )
    logs = model.train_on_batch(images, labels, return_dict=True)
    kl = np.mean([losses.kl_divergence(z[j], z[0], 3.0) for j in (1, 2)])
    np.testing.assert_allclose(logs["a_kl"], kl, rtol=1e-4)
    distance = np.mean(losses.l1(maps[0], maps[2]))
    np.testing.assert_allclose(logs["a_feature_loss"], distance, rtol=1e-4)


@pytest.mark.parametrize("weight", ["kl_weight", "feature_weight"])
def test_a_distillation_weight_of_zero_is_not_the_same_as_one(weight):
    images, labels = tiny.batch()
    kernels = []
    for amount in (0.0, 1.0):
        keras.utils.set_random_seed(1)
        model = tiny.distiller(None, "afd", **{weight: amount})
        model.train_on_batch(images, labels)
        kernels.append(np.array(model.networks[0].get_layer("conv").kernel))
    assert not np.allclose(kernels[0], kernels[1], atol=1e-6)


def test_without_distillation_a_step_is_plain_training_of_each_network():
    images, labels = tiny.batch()
    networks = [tiny.network(4), tiny.network(6)]
    twins = [keras.models.clone_model(n) for n in networks]
    for twin, network in zip(twins, networks, strict=True):
        twin.set_weights(network.get_weights())
        twin.compile(
            tiny.sgd(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        twin.train_on_batch(images, labels)
    model = tiny.distiller(networks, "vanilla")
    model.train_on_batch(images, labels)
    for twin, network in zip(twins, networks, strict=True):
        for expected, actual in zip(twin.variables, network.variables, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("phase", ["feature", "logit"])
def test_alignment_pulls_the_own_map_towards_the_raw_source_map(phase):
    images, labels = tiny.batch()
    networks = [tiny.network(4), tiny.network(4)]
    maps = [keras.Model(n.inputs, n.get_layer("map").output) for n in networks]
    own, source = (m(images) for m in maps)
    distance = np.mean(np.abs(own - source))
    method = methods.get("l1", optimizer=phase)
    rates = (0.5, 0.0, 0.0) if phase == "logit" else (0.0, 0.5, 0.0)
    model = tiny.distiller(
        networks, method, rates, names=["a", "b"], feature_weight=9.0
    )
    logs = model.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(logs["a_feature_loss"], distance, rtol=1e-5)
    extra = 9 * distance if phase == "logit" else 0
    np.testing.assert_allclose(
        logs["a_loss"], logs["a_cross_entropy"] + extra, rtol=1e-5
    )
    assert np.mean(np.abs(maps[0](images) - maps[1](images))) < distance


@pytest.mark.parametrize("method", methods.names())
def test_every_method_takes_a_finite_step(method):
    images, labels = tiny.batch()
    model = tiny.of_method(method, normalization=True)
    logs = model.train_on_batch(images, labels, return_dict=True)
    assert all(np.isfinite(value) for value in logs.values())
    assert tiny.changed(model, lambda: model.train_on_batch(images, labels))


def unit(values):
    flat = values.reshape(len(values), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


DISTANCES = {
    "l1": lambda own, source: np.mean(np.abs(own - source)),
    "l2": lambda own, source: np.mean((own - source) ** 2),
    "at": lambda own, source: np.mean(
        (unit(np.sum(own**2, -1)) - unit(np.sum(source**2, -1))) ** 2
    ),
    "ft": lambda own, source: np.mean(np.abs(unit(own) - unit(source))),
}


@pytest.mark.parametrize("method", DISTANCES)
def test_a_loss_on_maps_is_the_mean_over_a_networks_peers(method):
    images, labels = tiny.batch()
    # Maps of other channels from source to source: layers in another order do not fit,
    # or give other numbers.
    channels = (4, 4, 4) if method == "at" else (4, 6, 3)
    networks = [tiny.network(number) for number in channels]
    model = tiny.distiller(networks, method, (0, 0, 0), topology="all_pairs")
    maps = [np.float64(tap.forward(images)[0]) for tap in model.taps]
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    layers = model.transfers or [np.float64] * 6
    shown = [layer(maps[k]) for layer, (k, _) in zip(layers[:6], pairs, strict=True)]
    targets, copies = maps, [0.0] * 3
    if method == "ft":
        both = [layer(maps[j]) for j, layer in enumerate(layers[6:])]
        targets = [np.float64(factor) for factor, _ in both]
        copies = [np.mean((both[j][1] - maps[j]) ** 2) for j in range(3)]
    logs = model.train_on_batch(images, labels, return_dict=True)
    for k, name in enumerate(model.network_names):
        expected = copies[k] + np.mean(
            [
                DISTANCES[method](np.float64(own), targets[j])
                for own, (i, j) in zip(shown, pairs, strict=True)
                if i == k
            ]
        )
        np.testing.assert_allclose(logs[f"{name}_feature_loss"], expected, rtol=1e-4)


@pytest.mark.parametrize("batches", ["separate", "concatenated"])
def test_discriminator_batches_are_seen_apart_or_together(batches):
    images, labels = tiny.batch()
    model = tiny.distiller(
        None, tiny.afd(discriminator_batches=batches), names=["a", "b"], rates=(0, 0, 0)
    )
    maps = [tap.forward(images)[0] for tap in model.taps]
    discriminator = model.discriminators[0]
    if batches == "separate":
        own = np.mean(discriminator(maps[0], training=True))
    else:
        own = np.mean(
            discriminator(np.concatenate([maps[1], maps[0]]), training=True)[8:]
        )
    logs = model.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(logs["a_discriminator_own"], own, rtol=1e-4)
