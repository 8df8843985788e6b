"""A method of one's own: an objective and a registration, and nothing else."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from afd_tf import losses, methods

FACTOR = 5.0


@keras.saving.register_keras_serializable(package="test")
@dataclasses.dataclass(frozen=True)
class MeanColour(methods.FeatureObjective):
    """Squared distance of a map's mean from the peers', times a factor."""

    factor: float = 1.0

    def make_transfers(self, map_shapes, peers):
        return [None for _ in map_shapes]

    def transfer(self, maps, transfers, peers):
        return list(maps)

    def losses(self, transferred, maps, peers, discriminators):
        means = [tf.reduce_mean(m, axis=(1, 2, 3)) for m in maps]
        result = []
        for own, own_peers in zip(transferred, peers, strict=False):
            target = tf.add_n([means[j] for j in own_peers]) / len(own_peers)
            distance = (tf.reduce_mean(own, axis=(1, 2, 3)) - target) ** 2
            result.append(self.factor * distance)
        return result


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    registry = dict(methods.method._METHODS)
    monkeypatch.setattr(methods.method, "_METHODS", registry)
    methods.register("colour", "mean of the map, with KL", kl=True, feature=MeanColour)


def colour(networks, **options):
    method = methods.get("colour", factor=FACTOR)
    return tiny.distiller(networks, method, names=["a", "b"], **options)


def map_means(model, images):
    return [
        np.float64(tap.forward(images)[0]).mean(axis=(1, 2, 3)) for tap in model.taps
    ]


def test_it_is_listed_described_and_has_its_options():
    assert "colour" in methods.names()
    assert methods.describe("colour") == "mean of the map, with KL"
    assert methods.get("colour").feature == MeanColour(1.0)
    with pytest.raises(ValueError, match=r"no option `factr`.*Did you mean 'factor'"):
        methods.get("colour", factr=2.0)
    assert methods.get("colour").parts() == {
        "kl": True,
        "maps": True,
        "feature_update": True,
        "discriminators": False,
        "source": False,
        "branches": None,
        "objective": "MeanColour",
    }


def test_its_metrics_are_those_of_its_parts_and_its_loss_is_numpys():
    images, labels = tiny.batch()
    model = colour([tiny.network(4), tiny.network(6)])
    a, b = map_means(model, images)
    logs = model.train_on_batch(images, labels, return_dict=True)
    measured = ("loss", "cross_entropy", "kl", "accuracy", "feature_loss")
    assert set(logs) == {
        *("loss", "mean_accuracy", "ensemble_accuracy"),
        *(f"{n}_{what}" for n in "ab" for what in (*measured, "gradient_ratio")),
    }
    for name in "ab":
        expected = FACTOR * np.mean((a - b) ** 2)
        np.testing.assert_allclose(logs[f"{name}_feature_loss"], expected, rtol=1e-4)
    specs = model.metric_specs
    assert specs["b_feature_loss"].quantity == "feature_loss"
    assert specs["b_feature_loss"].network == "b"
    assert specs["b_feature_loss"].is_loss
    assert not specs["b_feature_loss"].shown


def test_its_update_is_the_gradient_of_its_loss():
    images, labels = tiny.batch()
    model = colour([tiny.network(4), tiny.network(4)], rates=(0, 0.5, 0))
    kernels = [n.get_layer("conv").kernel for n in model.networks]
    with tf.GradientTape(persistent=True) as tape:
        maps = [tap.forward(images)[0] for tap in model.taps]
        a, b = (tf.reduce_mean(m, axis=(1, 2, 3)) for m in maps)
        losses = [
            FACTOR * tf.reduce_mean((own - tf.stop_gradient(peer)) ** 2)
            for own, peer in ((a, b), (b, a))
        ]
    expected = [
        np.array(kernel) - 0.5 * tape.gradient(loss, kernel.value).numpy()
        for kernel, loss in zip(kernels, losses, strict=True)
    ]
    model.train_on_batch(images, labels)
    for kernel, value in zip(kernels, expected, strict=True):
        np.testing.assert_allclose(kernel, value, rtol=1e-4, atol=1e-6)


def test_it_learns_from_a_frozen_source_and_is_saved_and_loaded(tmp_path):
    images, labels = tiny.batch()
    model = colour([tiny.network(4), tiny.network(6)], source=tiny.network(3))
    a, _ = map_means(model, images)
    source = keras.Model(model.source.inputs, model.source.get_layer("map").output)
    target = np.float64(source(images)).mean(axis=(1, 2, 3))
    logs = model.train_on_batch(images, labels, return_dict=True)
    expected = FACTOR * np.mean((a - target) ** 2)
    np.testing.assert_allclose(logs["a_feature_loss"], expected, rtol=1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.method == model.method
    for each in (model, loaded):
        each.train_on_batch(images, labels)
    for one, other in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_peers_maps_are_constants_where_its_loss_joins_the_logit_loss(monkeypatch):
    monkeypatch.setattr(MeanColour, "joins_logit_loss", True)
    images, labels = tiny.batch()
    networks = [tiny.network(4), tiny.network(4)]
    model = colour(networks, rates=(0.5, 0, 0), kl_weight=0.0)
    kernels = [n.get_layer("conv").kernel for n in model.networks]
    with tf.GradientTape() as tape:
        a, b = (
            tf.reduce_mean(tap.forward(images)[0], axis=(1, 2, 3)) for tap in model.taps
        )
        total = sum(
            FACTOR * tf.reduce_mean((own - tf.stop_gradient(peer)) ** 2)
            + tf.reduce_mean(losses.cross_entropy(labels, network(images)))
            for own, peer, network in ((a, b, networks[0]), (b, a, networks[1]))
        )
    gradients = tape.gradient(total, [kernel.value for kernel in kernels])
    expected = [np.array(k) - 0.5 * g for k, g in zip(kernels, gradients, strict=True)]
    model.train_on_batch(images, labels)
    for kernel, value in zip(kernels, expected, strict=True):
        np.testing.assert_allclose(kernel, value, rtol=1e-4, atol=1e-6)
