"""ResNets and wide ResNets: published sizes, shapes, the blocks' own arithmetic."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from afd_tf import networks
from afd_tf.networks import resnet, wide_resnet
from afd_tf.networks.architectures import registry


def trainable_count(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def resnet_parameters(depth, classes, image_channels=3, projection=False):
    """Convolutions, two numbers per normalised channel, and the dense layer."""
    n = (depth - 2) // 6
    convolutions = [(3, image_channels, 16)]
    for before, width in ((16, 16), (16, 32), (32, 64)):
        convolutions += [(3, before, width)] + [(3, width, width)] * (2 * n - 1)
        if projection and before != width:
            convolutions.append((1, before, width))
    return (
        sum(k * k * i * o + 2 * o for k, i, o in convolutions) + 64 * classes + classes
    )


def wide_resnet_parameters(depth, width, classes, image_channels=3):
    """As above, with normalisation in front of each convolution but the first."""
    n = (depth - 4) // 6
    total, channels = 9 * image_channels * 16, 16
    for base in (16, 32, 64):
        wide = base * width
        if channels != wide:
            total += channels * wide
        for _ in range(n):
            total += 2 * channels + 9 * channels * wide + 2 * wide + 9 * wide * wide
            channels = wide
    return total + 2 * channels + channels * classes + classes


@pytest.mark.parametrize(
    ("depth", "millions"),
    [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.73)],
)
def test_resnet_has_the_published_number_of_parameters(depth, millions):
    assert round(resnet_parameters(depth, 10) / 1e6, 2) == millions


@pytest.mark.parametrize("depth", [32, pytest.param(110, marks=pytest.mark.slow)])
def test_resnet_has_the_number_of_parameters_of_its_layers(depth):
    assert trainable_count(resnet(depth, 10)) == resnet_parameters(depth, 10)


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [
        (16, 2, 0.7),
        (16, 4, 2.7),
        (28, 2, 1.5),
        (28, 4, 5.8),
        (40, 2, 2.2),
        (28, 10, 36.5),
    ],
)
def test_wide_resnet_has_the_published_number_of_parameters(depth, width, millions):
    assert round(wide_resnet_parameters(depth, width, 10) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("depth", "width"), [(28, 4), pytest.param(28, 10, marks=pytest.mark.slow)]
)
def test_wide_resnet_has_the_number_of_parameters_of_its_layers(depth, width):
    expected = wide_resnet_parameters(depth, width, 10)
    assert trainable_count(wide_resnet(depth, width, 10)) == expected


def test_numbers_known_from_other_implementations():
    assert trainable_count(resnet(20, 10)) == 269_722
    assert trainable_count(wide_resnet(16, 2, 100)) == 703_284
    assert trainable_count(wide_resnet(40, 2, 100)) == 2_255_156


def test_options_change_the_number_of_parameters_as_they_should():
    assert trainable_count(
        resnet(8, 7, (16, 16, 1), shortcut="projection")
    ) == resnet_parameters(8, 7, image_channels=1, projection=True)
    assert trainable_count(wide_resnet(10, 1, 7, (16, 16, 1))) == (
        wide_resnet_parameters(10, 1, 7, image_channels=1)
    )


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: resnet(20, 10), (8, 8, 64)),
        (lambda: wide_resnet(16, 2, 10), (8, 8, 128)),
        (lambda: resnet(8, 10, (16, 16, 1)), (4, 4, 64)),
        (lambda: resnet(8, 10, (7, 10, 2)), (2, 3, 64)),
        (lambda: wide_resnet(10, 1, 10, (5, 5, 3)), (2, 2, 64)),
    ],
)
def test_feature_map_is_found_and_rectified(model, shape):
    model = model()
    tapped = networks.tap(model)
    assert tapped.layer_name == "feature_map"
    assert tapped.map_shape == shape
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:]))
    feature_map, logits = tapped.forward(x.astype("float32"), training=True)
    assert feature_map.shape == (3, *shape)
    assert np.asarray(feature_map).min() == 0.0
    assert logits.shape == (3, 10)
    assert [v.path for v in tapped.head_variables] == ["logits/kernel", "logits/bias"]


def test_names():
    assert resnet(8, 2).name == "resnet8"
    assert wide_resnet(10, 2, 2).name == "wrn10_2"
    assert resnet(8, 2, name="mine").name == "mine"


def symmetric_convolution(x, kernel, stride):
    """3x3 convolution with one row and column of zeros on every side, in NumPy."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1] - 2, x.shape[2] - 2
    rows, columns = range(0, height, stride), range(0, width, stride)
    return np.stack(
        [
            np.stack(
                [
                    np.einsum("bijc,ijco->bo", x[:, i : i + 3, j : j + 3], kernel)
                    for j in columns
                ],
                axis=1,
            )
            for i in rows
        ],
        axis=1,
    )


@pytest.mark.parametrize("size", [4, 5])
def test_downsampling_block_is_the_papers_up_to_a_mirror(size):
    """With even sizes the mirror image; with odd ones the same."""
    model = resnet(8, 2, (size, size, 3), normalization="none")
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    inner = keras.Model(
        model.input,
        [
            model.get_layer("stage1_block1_relu2").output,
            model.get_layer("stage2_block1_add").output,
        ],
    )
    before, after = map(
        np.asarray, inner(rng.normal(size=(2, size, size, 3)).astype("float32"))
    )
    mirror = np.s_[:, ::-1, ::-1] if size % 2 == 0 else np.s_[:]
    kernels = {
        name: (
            layer.kernel.numpy()[::-1, ::-1] if size % 2 == 0 else layer.kernel.numpy(),
            layer.bias.numpy(),
        )
        for name in ("conv1", "conv2")
        for layer in [model.get_layer(f"stage2_block1_{name}")]
    }
    x = before[mirror]
    y = symmetric_convolution(x, kernels["conv1"][0], 2) + kernels["conv1"][1]
    y = symmetric_convolution(np.maximum(y, 0), kernels["conv2"][0], 1)
    y = y + kernels["conv2"][1]
    y[..., :16] += x[:, ::2, ::2]
    np.testing.assert_allclose(after[mirror], y, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("build", [lambda: resnet(8, 5), lambda: wide_resnet(10, 1, 5)])
def test_instances_differ_and_the_seed_repeats_them(build):
    keras.utils.set_random_seed(3)
    first, second = build(), build()
    keras.utils.set_random_seed(3)
    third = build()
    kernels = [
        m.get_layer("stage2_block1_conv1").kernel for m in (first, second, third)
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01
    np.testing.assert_array_equal(kernels[0], kernels[2])
    conv1, conv2 = (
        wide_resnet(10, 1, 5).get_layer(f"stage1_block1_conv{i}").kernel for i in (1, 2)
    )
    assert np.abs(conv1 - conv2).max() > 0.01


def test_convolutions_start_with_he_variance_over_the_outputs():
    kernel = resnet(8, 5).get_layer("stage3_block1_conv1").kernel.numpy()
    assert kernel.shape == (3, 3, 32, 64)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.03)


def test_no_normalization_means_biases_and_bounded_activations():
    model = resnet(56, 5, (16, 16, 1), normalization="none")
    assert not [v for v in model.variables if v.name == "gamma"]
    assert len([v for v in model.variables if v.name == "bias"]) == 56
    x = np.random.default_rng(0).normal(size=(8, 16, 16, 1)).astype("float32")
    feature_map = np.asarray(networks.tap(model).forward(x)[0])
    assert 0.05 < feature_map.std() < 5


@pytest.mark.parametrize(
    ("build", "normalization"),
    [(resnet, "batch"), (resnet, "sync"), (wide_resnet, "none")],
)
def test_every_normalization_learns(build, normalization):
    size = (8,) if build is resnet else (10, 1)
    model = build(*size, 3, (8, 8, 1), normalization=normalization)
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = rng.normal(size=(48, 8, 8, 1)).astype("float32") + y[:, None, None, None]
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    losses = model.fit(x, y, batch_size=24, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_dropout_acts_in_training_only():
    model = wide_resnet(10, 1, 3, (8, 8, 1), dropout=0.5, normalization="none")
    assert len([la for la in model.layers if "dropout" in la.name]) == 3
    x = tf.ones((2, 8, 8, 1))
    np.testing.assert_array_equal(model(x), model(x))
    assert np.abs(model(x, training=True) - model(x, training=True)).max() > 0


@pytest.mark.parametrize(
    "build", [lambda: resnet(8, 4), lambda: wide_resnet(10, 1, 4, dropout=0.1)]
)
def test_network_survives_a_keras_file_with_and_without_our_layers(build, tmp_path):
    model = build()
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    model(x, training=True)
    model.save(tmp_path / "own.keras")
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "own.keras")(x), model(x)
    )
    networks.with_stock_normalization(model).save(tmp_path / "plain.keras")
    plain = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-4, atol=1e-5)
    assert not any("afd_tf" in type(layer).__module__ for layer in plain.layers)
    assert plain.count_params() == model.count_params()


def test_mixed_precision_gives_float32_logits_near_the_full_precision_ones():
    full = resnet(8, 4)
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = resnet(8, 4)
    mixed.set_weights(full.get_weights())
    x = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
    feature_map, logits = networks.tap(mixed).forward(x, training=True)
    assert feature_map.dtype == "bfloat16"
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, full(x, training=True), atol=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resnet(21, 10), r"6n \+ 2.*depth=21.*nearest valid depth is 20"),
        (lambda: resnet(2, 10), r"nearest valid depth is 8"),
        (lambda: resnet("20", 10), r"Received: depth='20'"),
        (lambda: wide_resnet(18, 2, 10), r"6n \+ 4.*nearest valid depth is 16"),
        (lambda: wide_resnet(4, 2, 10), r"nearest valid depth is 10"),
        (lambda: wide_resnet(16, 0, 10), r"`width`.*width=0"),
        (lambda: wide_resnet(16, 2, 10, dropout=1.0), r"`dropout`.*dropout=1\.0"),
        (lambda: resnet(20, 1), r"`num_classes`.*num_classes=1"),
        (lambda: resnet(20, 10, (32, 32)), r"`input_shape`.*\(32, 32\)"),
        (lambda: resnet(20, 10, (None, None, 3)), r"`input_shape`"),
        (lambda: resnet(20, 10, normalization="bach"), r"Did you mean 'batch'\?"),
        (lambda: resnet(20, 10, shortcut="A"), r"`shortcut`.*'identity'"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_networks_are_built_by_name():
    model = networks.build("resnet8", 4, input_shape=(16, 16, 1), shortcut="projection")
    assert model.name == "resnet8"
    assert model.output_shape == (None, 4)
    assert model.input_shape == (None, 16, 16, 1)
    assert networks.build("wrn10_1", 4, dropout=0.2).name == "wrn10_1"
    assert "wrn16_2" in networks.names()
    assert networks.patterns()[:2] == ("resnet<depth>", "wrn<depth>_<width>")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt20", r"resnet<depth>, wrn<depth>_<width>.*Did you mean 'resnet20'\?"),
        ("wrn16-2", r"Did you mean 'wrn16_2'\?"),
        ("resnet", r"Did you mean 'resnet"),
        (20, r"Received: name=20"),
        ("resnet21", r"nearest valid depth is 20"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        networks.build(name, 10)


def test_a_new_network_is_one_registration(monkeypatch):
    monkeypatch.setattr(registry, "_families", {})

    @networks.register("dense<width>_<Activation>", ["dense8_Relu"])
    @networks.register("linear", width=1)
    def dense(width, num_classes, input_shape, activation="linear"):
        images = keras.Input(input_shape)
        x = keras.layers.Flatten()(images)
        x = keras.layers.Dense(width, activation.lower())(x)
        return keras.Model(images, keras.layers.Dense(num_classes)(x), name="dense")

    assert networks.patterns() == ("linear", "dense<width>_<Activation>")
    assert networks.names() == ("linear", "dense8_Relu")
    assert networks.builders() == (dense,)
    for name, width, activation in (
        ("linear", 1, "linear"),
        ("dense12_Relu", 12, "relu"),
    ):
        layer = networks.build(name, 3, (4, 4, 1)).layers[2]
        assert (layer.units, layer.activation.__name__) == (width, activation)
    assert networks.build("linear", 3, (4, 4, 1), width=5).layers[2].units == 5
    with pytest.raises(ValueError, match="not taken"):
        networks.register("linear")
