"""What the distiller derives from its networks, refuses, saves and loads."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny

import afd_tf
from afd_tf import OnlineDistiller, methods


def keras_map(channels=4, size=6):
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(channels, 7 - size, name="map")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def test_equal_channels_need_no_transfer_layers_and_others_need_one_each():
    same = OnlineDistiller([tiny.network(4), tiny.network(4)])
    assert (len(same.transfers), len(same.discriminators)) == (0, 2)
    other = OnlineDistiller([tiny.network(4), tiny.network(6)])
    assert len(other.transfers) == 2
    assert [d.input_shape[1:] for d in other.discriminators] == [(6, 6, 6)] * 2
    for method in ("vanilla", "dml"):
        model = OnlineDistiller([tiny.network(4), tiny.network(6)], method)
        assert (model.transfers, model.discriminators) == ([], [])


@pytest.mark.parametrize("method", ["afd", "l1_kd"])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_maps_of_different_size_meet(method, size):
    model = OnlineDistiller([keras_map(4, 6), keras_map(6, size)], method)
    model.compile(run_eagerly=True)
    logs = model.train_on_batch(*tiny.batch(), return_dict=True)
    assert all(np.isfinite(value) for value in logs.values())


def test_equal_names_are_numbered():
    networks = [tiny.network(name="net") for _ in range(3)]
    model = OnlineDistiller(networks)
    assert model.network_names == ["net", "net_2", "net_3"]


def test_a_numbered_name_gives_way_to_one_that_is_taken():
    networks = [tiny.network(name=name) for name in ("net", "net_2", "net")]
    model = OnlineDistiller(networks, "dml")
    assert model.network_names == ["net", "net_2", "net_3"]


def test_summary_shows_networks_taps_and_layers_between(capsys):
    model = OnlineDistiller([tiny.network(4), tiny.network(6)], names=["a", "b"])
    model.compile()
    model.summary()
    shown = capsys.readouterr().out
    for part in ("6x6x4", "6x6x6", "map", "transfer layers: 2", "feature optimizer"):
        assert part in shown


def softmax_network():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))


def sharing():
    conv = keras.layers.Conv2D(4, 3, name="shared_conv")
    models = []
    for _ in range(2):
        inputs = keras.Input((6, 6, 2))
        x = keras.layers.GlobalAveragePooling2D()(conv(inputs))
        models.append(keras.Model(inputs, keras.layers.Dense(3)(x)))
    return models


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OnlineDistiller([tiny.network()]), "at least 2"),
        (lambda: OnlineDistiller([]), "at least 2"),
        (lambda: OnlineDistiller([tiny.network()] * 2), "same instance"),
        (lambda: OnlineDistiller(sharing()), "shares layer 'shared_conv'"),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network(classes=5)]),
            "numbers of classes",
        ),
        (lambda: OnlineDistiller([tiny.network(), softmax_network()]), "softmax"),
        (lambda: OnlineDistiller([tiny.network(), tiny.network()], tap="mapp"), "map"),
        (lambda: OnlineDistiller([tiny.network(), tiny.network()], tap="pool"), "4-D"),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network()], "adf"),
            "Did you mean 'afd'",
        ),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network()], topology="ring"),
            "cycle",
        ),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network()], temperature=0),
            "`temperature`",
        ),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network()], forward="new"),
            "`forward`",
        ),
        (
            lambda: OnlineDistiller([tiny.network(), tiny.network()], names=["a", "a"]),
            "different names",
        ),
        (
            lambda: OnlineDistiller(
                [tiny.network(), tiny.network()], "dml", discriminators=[]
            ),
            "does not apply",
        ),
        (
            lambda: methods.get("afd", discriminator_batch="separate"),
            "did you mean|Did",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_construction(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_different_input_shapes_are_refused():
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    other = keras.Model(inputs, keras.layers.Dense(3)(x))
    with pytest.raises(ValueError, match="input shapes"):
        OnlineDistiller([tiny.network(), other])


def test_something_that_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"keras\.Model"):
        OnlineDistiller([tiny.network(), "resnet20"])


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


def test_a_frozen_network_is_a_source_that_stays_as_it_is():
    networks = [tiny.network(normalization=True), tiny.network()]
    networks[0].trainable = False
    before = networks[0].get_weights()
    model = tiny.distiller(networks, names=["a", "b"])
    logs = model.train_on_batch(*tiny.batch(), return_dict=True)
    for expected, actual in zip(before, networks[0].get_weights()):
        np.testing.assert_array_equal(actual, expected)
    assert logs["b_gradient_ratio"] > 0


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


def test_discriminators_that_do_not_fit_are_refused():
    judges = [keras.Sequential([keras.Input((6, 6, 4)), keras.layers.Flatten()])] * 2
    with pytest.raises(ValueError, match=r"\(batch, 1\)"):
        OnlineDistiller([tiny.network(), tiny.network()], discriminators=judges)


def test_two_networks_that_share_a_discriminator_are_refused_at_compile():
    judge = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model = OnlineDistiller(
        [tiny.network(), tiny.network()], discriminators=[judge, judge]
    )
    with pytest.raises(ValueError, match="two owners"):
        model.compile()
