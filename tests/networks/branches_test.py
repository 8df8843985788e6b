"""ONE: a trunk, its branches and the gate; as networks and as a method."""

import keras
import numpy as np
import pytest
import tiny

from afd_tf import OnlineDistiller, exports, losses, methods, networks

SHAPE = (16, 16, 3)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("build", "trunk"),
    [
        # A 3x3 convolution, norm, and the stages of 16 and 32 channels.
        (lambda: networks.resnet(8, 10, SHAPE), 496 + 4736 + 14080),
        # Up to norm1 and ReLU of the last stage's first block.
        (lambda: networks.wide_resnet(10, 1, 10, SHAPE), 432 + 4736 + 14528 + 128),
    ],
)
def test_every_branch_is_a_whole_network_and_the_trunk_is_shared(build, trunk):
    plain = build()
    alone = plain.count_params()
    one = networks.branched(plain, branches=3)
    assert one.networks[0] is plain
    assert [n.count_params() for n in one.networks] == [alone] * 3
    channels = 32
    gate = (channels + 1) * 3 + 4 * 3
    assert one.joint.count_params() == trunk + 3 * (alone - trunk) + gate
    assert [n.name for n in one.networks] == [plain.name] * 3


def test_the_joint_pass_gives_each_branch_and_the_gated_ensemble():
    one = networks.branched(networks.resnet(8, 10, SHAPE))
    images = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype("float32")
    *logits, gated = one.forward(images)
    for network, z in zip(one.networks, logits, strict=True):
        np.testing.assert_allclose(network(images), z, rtol=1e-4, atol=1e-5)
    weights = np.array(one.joint(images)[-1])
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    expected = np.einsum("bk,kbc->bc", weights, np.array(logits))
    np.testing.assert_allclose(gated, expected, rtol=1e-4, atol=1e-5)


def test_branches_begin_different_and_a_seed_makes_them_again():
    kernels = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        one = networks.branched(tiny.staged())
        kernels.append([np.array(n.layers[3].kernel) for n in one.networks])
    first, again, other = kernels
    assert not any(np.allclose(first[0], k) for k in first[1:])
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first[1], other[1])


@pytest.mark.parametrize("normalization", ["batch", "sync", "none"])
def test_the_gate_normalises_as_the_network_does(normalization):
    network = networks.resnet(8, 10, SHAPE, normalization=normalization)
    names = {layer.name for layer in networks.branched(network).joint.layers}
    assert ("gate_norm" in names) == (normalization != "none")
    if normalization != "none":
        norm = networks.branched(
            networks.resnet(8, 10, SHAPE, normalization=normalization)
        ).joint.get_layer("gate_norm")
        assert norm.synchronized == (normalization == "sync")


def test_a_network_of_one_resolution_cannot_be_branched():
    with pytest.raises(ValueError, match="stages of different resolution"):
        networks.branched(tiny.network())


def one(**options):
    network = tiny.staged(name="net", normalization=True)
    return tiny.distiller([network], "one", **options)


def test_losses_are_those_of_every_branch_and_of_the_gate():
    images, labels = tiny.batch()
    model = one(names=list("abc"))
    *logits, gated = model._exchange.branched.forward(images, training=True)
    logs = model.train_on_batch(images, labels, return_dict=True)
    for name, z in zip("abc", logits, strict=True):
        kl = np.mean(losses.kl_divergence(gated, z, 3.0))
        np.testing.assert_allclose(logs[f"{name}_kl"], kl, rtol=1e-3, atol=1e-6)
        entropy = np.mean(losses.cross_entropy(labels, z))
        np.testing.assert_allclose(logs[f"{name}_loss"], entropy + kl, rtol=1e-4)
    expected = np.mean(losses.cross_entropy(labels, gated))
    np.testing.assert_allclose(logs["ensemble_loss"], expected, rtol=1e-4)


def test_the_ensemble_is_the_gates():
    images, labels = tiny.batch()
    model = one()
    assert model.network_names == ["net", "net_2", "net_3"]
    model.fit(tiny.dataset(), verbose=0)
    gated = np.array(model._exchange.branched.forward(images)[-1])
    predicted = model.predict(images, verbose=0)
    np.testing.assert_allclose(predicted["ensemble"], softmax(gated), rtol=1e-4)
    logs = model.evaluate(images, labels, return_dict=True, verbose=0)
    right = np.mean(gated.argmax(axis=-1) == np.array(labels))
    np.testing.assert_allclose(logs["ensemble_accuracy"], right, rtol=1e-5)


def test_a_step_moves_everything_and_statistics_once():
    model = one()
    layer = model.branched.get_layer("branch2_bn")
    inputs = keras.Model(model.branched.inputs, layer.input)
    images, labels = tiny.batch()
    mean = np.mean(inputs(images), axis=(0, 1, 2))
    changed = tiny.changed(model, lambda: model.train_on_batch(images, labels))
    assert {v.path for v in model.trainable_variables} <= changed
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-3, atol=1e-6)


def test_a_regulariser_of_the_trunk_counts_once():
    images, labels = tiny.batch()
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 1, kernel_regularizer=keras.regularizers.L2(2.0))(inputs)
    x = keras.layers.Conv2D(3, 3, 2)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(inputs, keras.layers.Dense(tiny.CLASSES)(x))
    model = tiny.distiller([network], "one", names=list("abc"))
    gated = model._exchange.branched.forward(images, training=True)[-1]
    kernel = np.array(network.layers[1].kernel)
    expected = np.mean(losses.cross_entropy(labels, gated)) + 2 * np.sum(kernel**2)
    logs = model.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(logs["ensemble_loss"], expected, rtol=1e-4)
    for name in "abc":
        own = logs[f"{name}_cross_entropy"] + logs[f"{name}_kl"]
        np.testing.assert_allclose(logs[f"{name}_loss"], own, rtol=1e-5)


def test_a_saved_model_goes_on_as_the_original(tmp_path):
    model = one()
    model.fit(tiny.dataset(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(tiny.dataset(seed=1), verbose=0)
    for first, second in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-7)


def test_a_branch_is_exported_as_a_plain_network(tmp_path):
    model = one()
    model.fit(tiny.dataset(), verbose=0)
    images = tiny.batch()[0]
    plain = tiny.staged(normalization=True).count_params()
    for format, path in (("keras", "b.keras"), ("saved_model", "b")):
        report = exports.export(model.networks[1], tmp_path / path, format=format)
        assert report.parameters == plain
    loaded = keras.models.load_model(tmp_path / "b.keras")
    assert loaded.count_params() == plain
    expected = model.predict(images, verbose=0)["net_2"]
    np.testing.assert_allclose(softmax(np.array(loaded(images))), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": [tiny.staged, tiny.staged]}, "makes 3 branches of it"),
        ({"source": tiny.staged}, "learns from no frozen network"),
        ({"topology": "cycle"}, "`topology` does not apply"),
        ({"checkpointing": True}, "`checkpointing` does not apply"),
        ({"transfers": []}, "`transfers` does not apply"),
    ],
)
def test_what_makes_no_sense_with_branches_says_so(options, message):
    made = {
        k: [each() for each in v] if k == "networks" else v()
        for k, v in options.items()
        if k in ("networks", "source")
    }
    with pytest.raises(ValueError, match=message):
        OnlineDistiller(
            method="one", **{"networks": [tiny.staged()], **options, **made}
        )


def test_the_number_of_branches_is_an_option():
    model = tiny.distiller([tiny.staged()], methods.get("one", branches=2))
    assert len(model.networks) == 2
    with pytest.raises(ValueError, match=r"`branches`\. Expected an int >= 2"):
        methods.get("one", branches=1)
    with pytest.raises(ValueError, match="no option `branches`"):
        methods.get("afd", branches=3)


@pytest.mark.multi_device
def test_two_devices_give_the_weights_of_one():
    tiny.assert_two_devices_equal_one(
        lambda: OnlineDistiller([tiny.staged()], "one"), momentum=0.9
    )
