"""Networks that learn from one that is trained already, and never changes."""

import keras
import numpy as np
import pytest
import tiny

from afd_tf import OnlineDistiller, losses, methods

OFFLINE = sorted({*methods.names()} - {"vanilla", "dml", "one"})


def students():
    return [tiny.network(4, name="a"), tiny.network(8, name="b", normalization=True)]


def teacher(channels=8):
    """Return a network whose moving statistics are not those of any batch."""
    network = tiny.network(channels, name="teacher", normalization=True)
    network.get_layer("bn").moving_mean.assign(np.linspace(-1, 1, channels))
    network.get_layer("bn").moving_variance.assign(np.linspace(0.5, 2, channels))
    return network


def offline(method, networks=None, **options):
    method = tiny.afd() if method == "afd" else method
    model = tiny.distiller(
        networks or students(), method, **{"source": teacher(), **options}
    )
    if model.needs_pretraining:
        model.pretrain(tiny.dataset(), epochs=1, verbose=0)
    return model


@pytest.mark.parametrize("method", OFFLINE)
def test_the_source_never_changes_and_all_else_learns(method):
    model = offline(method)
    before = tiny.values(model.source.variables)
    changed = tiny.changed(
        model, lambda: model.fit(tiny.dataset(), epochs=2, verbose=0)
    )
    model.evaluate(tiny.dataset(), verbose=0)
    for b, a in zip(before, tiny.values(model.source.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {v.path for v in model.trainable_variables} <= changed
    assert any(path.endswith("moving_mean") for path in changed)


@pytest.mark.parametrize("method", ["afd", "ft_kd"])
def test_the_source_has_no_owner_and_no_slots(method):
    model = offline(method)
    frozen = {id(v) for v in model.source.variables}
    owned = [v for phase in model.phases for v in phase.variables]
    assert not frozen & {id(v) for v in owned}
    # SGD without momentum: a step count and a learning rate each.
    assert [len(phase.optimizer.variables) for phase in model.phases] == [2] * len(
        list(model.phases)
    )
    assert not model.source.trainable_variables


def test_kl_comes_from_the_source_in_inference_mode():
    images, labels = tiny.batch()
    networks, source = students(), teacher()
    own = networks[0](images)
    model = offline("kd", networks, source=source)
    logs = model.train_on_batch(images, labels, return_dict=True)
    expected = losses.kl_divergence(source(images, training=False), own, 3.0)
    source.trainable = True
    other = losses.kl_divergence(source(images, training=True), own, 3.0)
    np.testing.assert_allclose(logs["a_kl"], np.mean(expected), rtol=1e-4)
    assert abs(np.mean(other) - np.mean(expected)) > 1e-3


def test_a_source_drops_nothing():
    images, labels = tiny.batch()
    network = tiny.network()
    dropped = keras.layers.Dropout(0.5)(network.get_layer("pool").output)
    logits = network.get_layer("logits")(dropped)
    source = keras.Model(network.inputs, logits, name="teacher")
    networks = students()
    own = networks[0](images)
    for method in ("kd", "l1_kd"):  # by its logits alone, and tapped
        model = offline(method, networks, source=source, rates=(0, 0, 0))
        logs = model.train_on_batch(images, labels, return_dict=True)
        expected = losses.kl_divergence(source(images, training=False), own, 3.0)
        np.testing.assert_allclose(logs["a_kl"], np.mean(expected), rtol=1e-4)


def test_metrics_and_predictions_are_of_the_networks_that_learn():
    model = offline("afd", [tiny.network(4, name="a")])
    logs = model.fit(tiny.dataset(), validation_data=tiny.dataset(), verbose=0).history
    assert not any("teacher" in name for name in logs)
    assert logs["mean_accuracy"] == logs["a_accuracy"] == logs["ensemble_accuracy"]
    predicted = model.predict(tiny.batch()[0], verbose=0)
    assert predicted.keys() == {"a", "ensemble"}
    np.testing.assert_allclose(predicted["ensemble"], predicted["a"], rtol=1e-6)


def test_transfers_bring_own_maps_to_the_channels_of_the_raw_source_map():
    model = offline("afd")
    assert [layer.output_shape[-1] for layer in model.transfers] == [8]
    assert [layer.input_shape[-1] for layer in model.transfers] == [4]


def test_the_discriminator_takes_the_raw_source_map_for_real():
    images, labels = tiny.batch()
    source = teacher()
    model = offline("afd", source=source, rates=(0, 0, 0))
    maps = keras.Model(source.inputs, source.get_layer("map").output)
    real = model.discriminators[0](maps(images, training=False), training=True)
    logs = model.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(logs["a_discriminator_real"], np.mean(real), rtol=1e-4)


@pytest.mark.parametrize("forward", ["shared", "fresh"])
@pytest.mark.parametrize("method", ["afd", "ft_kd", "kd"])
def test_a_saved_model_goes_on_as_the_original(method, forward, tmp_path):
    model = offline(method, forward=forward)
    model.fit(tiny.dataset(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(tiny.dataset(seed=1), verbose=0)
    assert len(loaded.variables) == len(model.variables)
    for one, other in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7, err_msg=one.path)


def test_the_summary_says_who_learns_from_whom():
    lines = []
    model = offline("kd")
    model.summary(print_fn=lines.append)
    assert lines[0].count("teacher\n") == 2
    count = model.source.count_params()
    assert f"frozen source: teacher (parameters: {count})" in lines[0]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("kd", {"source": None}, "trained already.*source=model.*train.source ="),
        ("dml", {}, "learns from no frozen network.*such as 'kd'"),
        ("vanilla", {}, "learns from no frozen network"),
        ("kd", {"topology": "cycle"}, "`topology` does not apply: with a frozen"),
        ("kd", {"kl_topology": "all_pairs"}, "`kl_topology` does not apply"),
        ("afd", {"source": None, "topology": "from_source"}, "no frozen source; pass"),
        ("kd", {"topology": "from_sorce"}, "Did you mean 'from_source'"),
        ("kd", {"source": tiny.network, "networks": []}, "at least 1 models"),
        ("afd", {"tap": ["map", "map"]}, "each of the 2 networks, and the source"),
    ],
)
def test_what_makes_no_sense_with_a_source_says_so(method, options, message):
    given = {"networks": students(), "source": teacher(), **options}
    with pytest.raises(ValueError, match=message):
        OnlineDistiller(method=method, **given)


def test_a_source_must_see_the_same_images_and_classes():
    with pytest.raises(ValueError, match=r"sees the same images.*'t' with .* and 5"):
        OnlineDistiller(students(), "kd", source=tiny.network(name="t", classes=5))
    softmax = keras.Sequential([tiny.network(), keras.layers.Softmax()])
    with pytest.raises(ValueError, match="ends in probabilities"):
        OnlineDistiller(students(), "kd", source=softmax)
    with pytest.raises(TypeError, match="trained already"):
        OnlineDistiller(students(), "kd", source="runs/teacher")
    networks = students()
    with pytest.raises(ValueError, match="is the same instance as network 0"):
        OnlineDistiller(networks, "kd", source=networks[0])


def test_a_source_without_a_map_teaches_by_its_logits_alone():
    inputs = keras.Input((6, 6, 2))
    flat = keras.layers.Dense(tiny.CLASSES)(keras.layers.Flatten()(inputs))
    source = keras.Model(inputs, flat, name="flat")
    model = offline("kd", source=source)
    logs = model.train_on_batch(*tiny.batch(), return_dict=True)
    assert logs["a_kl"] > 0
    with pytest.raises(ValueError, match="feature map, which method 'l1' needs"):
        OnlineDistiller(students(), "l1", source=source)


# What is trained beforehand -----------------------------------------------------------


def test_the_paraphraser_learns_beforehand_and_is_constant_afterwards():
    model = tiny.distiller(students(), "ft", source=teacher())
    with pytest.raises(ValueError, match=r"Call model.pretrain\(train\) before"):
        model.fit(tiny.dataset(), verbose=0)
    with pytest.raises(ValueError, match=r"Call model.pretrain\(train\) before"):
        model.train_on_batch(*tiny.batch())
    *translators, paraphraser = model.transfers
    others = [v for part in (*model.networks, *translators) for v in part.variables]
    before = tiny.values(others), tiny.values(paraphraser.variables)
    model.pretrain(tiny.dataset(), epochs=2, verbose=0)
    assert int(model.pretrained_steps) == 4
    for b, a in zip(before[0], tiny.values(others), strict=True):
        np.testing.assert_array_equal(a, b)
    trained = tiny.values(paraphraser.variables)
    assert not paraphraser.trainable_variables
    assert not any(
        np.array_equal(a, b) for a, b in zip(trained, before[1], strict=True)
    )
    model.fit(tiny.dataset(), epochs=2, verbose=0)
    for b, a in zip(trained, tiny.values(paraphraser.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_pretraining_minimises_the_reconstruction_error_of_the_source_map():
    source = teacher()
    model = tiny.distiller(students(), "ft", source=source)
    maps = keras.Model(source.inputs, source.get_layer("map").output)
    images = tiny.batch()[0]
    real = maps(images, training=False)
    before = np.mean((model.transfers[-1](real)[1] - real) ** 2)
    history = model.pretrain(tiny.dataset(8), epochs=30, verbose=0).history["loss"]
    np.testing.assert_allclose(history[0], before, rtol=1e-4)
    after = np.mean((model.transfers[-1](real)[1] - real) ** 2)
    assert after < history[-1] < 0.8 * history[0]


def test_one_paraphraser_serves_all_networks_and_its_epochs_are_an_option():
    method = methods.get("ft", paraphraser_epochs=3, rate=0.25)
    model = tiny.distiller(students(), method, source=teacher())
    assert [layer.name[:10] for layer in model.transfers] == [
        *("translator", "translator", "paraphrase")
    ]
    assert model.transfers[-1].output_shape[0][-1] == 2
    assert len(model.pretrain(tiny.dataset(), verbose=0).history["loss"]) == 3
    assert methods.get("ft").feature.pretraining_epochs == 30


@pytest.mark.parametrize("epochs", [0, -1, 1.5])
def test_a_paraphraser_of_no_epochs_is_refused(epochs):
    with pytest.raises(ValueError, match=r"paraphraser_epochs.*int >= 1"):
        methods.get("ft", paraphraser_epochs=epochs)


def test_nothing_is_trained_beforehand_without_a_frozen_source():
    with pytest.raises(ValueError, match="trains along with the networks"):
        tiny.distiller(students(), methods.get("ft", paraphraser_epochs=3))
    model = tiny.distiller(students(), "ft")
    with pytest.raises(ValueError, match="beforehand without a frozen source"):
        model.pretrain(tiny.dataset())
    assert not model.needs_pretraining


@pytest.mark.multi_device
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("kd", {}),
        pytest.param("ft_kd", {}, marks=pytest.mark.slow),
        ("adversarial", {"discriminator_normalization": "none"}),
    ],
)
def test_two_devices_give_the_weights_of_one(method, options):
    method = methods.get(method, **options)
    tiny.assert_two_devices_equal_one(
        lambda: OnlineDistiller([tiny.network(4)], method, source=teacher())
    )


@pytest.mark.multi_device
def test_replicas_of_different_shares_train_the_paraphraser_as_one_device():
    results = []
    for strategy in tiny.one_and_two_devices():
        with strategy.scope():
            model = OnlineDistiller([tiny.network(4)], "ft", source=teacher())
        model.compile()
        batches = tiny.dataset(20, 5)  # three rows and two
        history = model.pretrain(batches, 1, tiny.sgd(1.0), verbose=0)
        weights = tiny.values(model.transfers[-1].variables)
        results.append([history.history["loss"], *weights])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-7)
