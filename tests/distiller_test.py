"""The distiller as a Keras model: saving, loading, loss weights, summary."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny

import afd_tf
from afd_tf import OnlineDistiller
from afd_tf.errors import Mistake


def state(model):
    optimizers = [v for o in tiny.optimizers(model) if o for v in o.variables]
    return tiny.values([*model.variables, *optimizers])


@pytest.mark.parametrize(
    "compiled",
    [
        {},
        {"weight_decay": "decoupled", "logit_schedule": "cosine", "total_steps": 9},
        {
            "optimizer": keras.optimizers.Adam(1e-3),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": [keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
        },
    ],
    ids=["defaults", "decoupled", "own"],
)
def test_a_saved_distiller_goes_on_as_if_never_saved(tmp_path, compiled):
    images, labels = tiny.batch()
    networks = [tiny.network(4, normalization=True), tiny.network(6)]
    model = OnlineDistiller(
        networks, tiny.afd(transfer_normalization=True), names=["a", "b"]
    )
    model.compile(**compiled, run_eagerly=True)
    model.fit(images, labels, batch_size=4, epochs=3, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.network_names == ["a", "b"]
    for expected, actual in zip(state(model), state(loaded), strict=True):
        np.testing.assert_array_equal(actual, expected)
    for one in (model, loaded):
        logs = one.train_on_batch(images, labels, return_dict=True)
    assert set(logs) == set(model.get_metrics_result())
    for expected, actual in zip(state(model), state(loaded), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)
    assert [repr(p.schedule) for p in loaded.phases] == [
        repr(p.schedule) for p in model.phases
    ]
    rates = [p.base_learning_rate for p in model.phases]
    assert [p.base_learning_rate for p in loaded.phases] == pytest.approx(rates)


def test_weights_of_another_optimizer_are_refused_not_reset(tmp_path):
    models = [OnlineDistiller([tiny.network(), tiny.network()], "dml") for _ in "ab"]
    models[0].compile(run_eagerly=True)
    models[0].train_on_batch(*tiny.batch())
    models[0].save_weights(tmp_path / "a.weights.h5")
    models[1].compile(keras.optimizers.Adam(0.1))
    with pytest.raises(Mistake, match=r"does not fit.*variables whereas the saved"):
        models[1].load_weights(tmp_path / "a.weights.h5")


def test_a_model_frozen_after_it_was_compiled_is_not_loaded_with_new_moments(tmp_path):
    model = OnlineDistiller([tiny.network(), tiny.network()], "dml")
    model.compile(run_eagerly=True)
    model.networks[0].trainable = False
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="Skipping variable loading"):
        keras.models.load_model(tmp_path / "model.keras")


def test_a_new_process_needs_the_package_s_import_alone_to_load(tmp_path):
    tiny.distiller(method="vanilla").save(tmp_path / "model.keras")
    program = "import afd_tf, keras; print(keras.models.load_model('model.keras').name)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(afd_tf.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "online_distiller\n", result.stderr


def test_own_discriminators_and_transfers_are_used_saved_and_loaded(tmp_path):
    def discriminator():
        return keras.Sequential(
            [
                keras.Input((6, 6, 5)),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(1, activation="sigmoid"),
            ]
        )

    def transfer(channels):
        layer = keras.layers.Conv2D(5, 1)
        layer.build((None, 6, 6, channels))
        return layer

    model = OnlineDistiller(
        [tiny.network(4), tiny.network(6)],
        discriminators=[discriminator(), discriminator()],
        transfers=[transfer(4), transfer(6)],
    )
    model.compile(run_eagerly=True)
    model.train_on_batch(*tiny.batch())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for expected, actual in zip(state(model), state(loaded), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_summary_shows_networks_taps_and_layers_between(capsys):
    model = OnlineDistiller([tiny.network(4), tiny.network(6)], names=["a", "b"])
    model.compile()
    model.summary()
    shown = capsys.readouterr().out
    for part in ("6x6x4", "6x6x6", "map", "transfer layers: 2", "feature optimizer"):
        assert part in shown


@pytest.mark.parametrize("ensemble", ["probabilities", "logits"])
def test_predict_gives_each_network_and_the_ensemble(ensemble):
    images, _ = tiny.batch(5)
    model = tiny.distiller(names=["a", "b"], ensemble=ensemble)
    logits = [n(images).numpy().astype("float64") for n in model.networks]

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(-1, keepdims=True)

    predicted = model.predict(images, batch_size=2, verbose=0)
    assert list(predicted) == ["a", "b", "ensemble"]
    np.testing.assert_allclose(predicted["a"], softmax(logits[0]), rtol=1e-5)
    expected = {
        "probabilities": (softmax(logits[0]) + softmax(logits[1])) / 2,
        "logits": softmax((logits[0] + logits[1]) / 2),
    }[ensemble]
    np.testing.assert_allclose(predicted["ensemble"], expected, rtol=1e-5)


VALUES = {"temperature": 5.0, "kl_weight": 0.25, "feature_weight": 9.0}


def loss_weights(model):
    return {name: float(getattr(model, name)) for name in VALUES}


def test_the_next_step_reads_the_loss_weights_that_were_assigned():
    images, labels = tiny.batch()
    assigned = tiny.named()
    assigned.train_on_batch(images, labels)  # traced with the values before
    for name, value in VALUES.items():
        setattr(assigned, name, value)
    built = tiny.distiller(names=["a", "b"], **VALUES)
    for part in ("networks", "discriminators"):
        for own, other in zip(getattr(assigned, part), getattr(built, part)):
            other.set_weights(own.get_weights())
    logs = [
        m.train_on_batch(images, labels, return_dict=True) for m in (assigned, built)
    ]
    for what in ("kl", "loss", "feature_loss"):
        assert logs[0][f"a_{what}"] == pytest.approx(logs[1][f"a_{what}"], rel=1e-4)
    for one, other in zip(assigned.networks, built.networks, strict=True):
        for v, w in zip(one.variables, other.variables, strict=True):
            np.testing.assert_allclose(v, w, rtol=1e-5, atol=1e-6)


def test_loss_weights_are_saved_with_weights_and_models(tmp_path):
    model = tiny.distiller()
    for name, value in VALUES.items():
        setattr(model, name, value)
    model.save_weights(tmp_path / "a.weights.h5")
    model.save(tmp_path / "model.keras")
    other = tiny.distiller()
    assert loss_weights(other) != VALUES
    other.load_weights(tmp_path / "a.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loss_weights(other) == loss_weights(loaded) == VALUES


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.0), ("kl_weight", -1.0), ("feature_weight", float("nan"))],
)
def test_a_loss_weight_that_makes_no_sense_is_refused(name, value):
    model = tiny.distiller()
    before = loss_weights(model)
    with pytest.raises(ValueError, match=f"`{name}`. Expected a finite number"):
        setattr(model, name, value)
    assert loss_weights(model) == before


def without_maps():
    images = keras.Input((6, 6, 2))
    logits = keras.layers.Dense(tiny.CLASSES)(keras.layers.Flatten()(images))
    return keras.Model(images, logits)


@pytest.mark.parametrize("method", ["vanilla", "dml"])
def test_a_method_that_needs_no_maps_trains_networks_without_any(method):
    model = tiny.distiller([without_maps(), without_maps()], method)
    assert tiny.changed(model, lambda: model.train_on_batch(*tiny.batch()))
    with pytest.raises(ValueError, match="no layer with a 4-D output"):
        _ = model.taps
    with pytest.raises(ValueError, match="no layer with a 4-D output"):
        OnlineDistiller([without_maps(), without_maps()], method, checkpointing=True)


def test_taps_are_made_when_asked_for():
    model = tiny.distiller([tiny.network(4), tiny.network(6)], "dml")
    images, _ = tiny.batch()
    assert [tap.layer_name for tap in model.taps] == ["map", "map"]
    for tap, network in zip(model.taps, model.networks, strict=True):
        np.testing.assert_allclose(tap.forward(images)[1], network(images), rtol=1e-5)
