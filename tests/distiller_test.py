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


def state(model):
    optimizers = (
        model.optimizer,
        model.feature_optimizer,
        model.discriminator_optimizer,
    )
    variables = [*model.variables, *(v for o in optimizers if o for v in o.variables)]
    return [np.array(v) for v in variables]


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
    with pytest.raises(ValueError, match="does not fit"):
        models[1].load_weights(tmp_path / "a.weights.h5")


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
    def judge():
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
        discriminators=[judge(), judge()],
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
