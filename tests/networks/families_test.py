"""Networks beyond the CIFAR ResNets: published sizes, values against NumPy, taps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy_layers import Layers, max_pool, randomize, windows

from afd_tf import exports, networks
from afd_tf.networks.layers.normalization import FusedBatchNormalization


def relu(x):
    return np.maximum(x, 0)


def trainable_count(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


# ImageNet networks: "num_params" of torchvision's model pages, 1,000 classes.
TORCHVISION = {
    "imagenet_resnet18": 11_689_512,
    "imagenet_resnet34": 21_797_672,
    "imagenet_resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "shufflenet_v2_x0_5": 1_366_792,
    "shufflenet_v2_x1_0": 2_278_604,
    "shufflenet_v2_x1_5": 3_503_624,
    "shufflenet_v2_x2_0": 7_393_996,
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_imagenet_networks_have_torchvisions_number_of_parameters(name):
    model = networks.build(name, 1000, (64, 64, 3))
    assert trainable_count(model) == TORCHVISION[name]
    assert model.name == name


@pytest.mark.parametrize(
    # Widely used CIFAR codes have 14,728,266 for VGG-16 and a bias per convolution.
    ("depth", "with_biases", "channels"),
    [
        (11, 9_231_114, 64 + 128 + 2 * 256 + 4 * 512),
        (13, 9_416_010, 2 * (64 + 128 + 256) + 4 * 512),
        (16, 14_728_266, 2 * (64 + 128) + 3 * 256 + 6 * 512),
        (19, 20_040_522, 2 * (64 + 128) + 4 * 256 + 8 * 512),
    ],
)
def test_vgg_has_the_published_number_of_parameters_without_biases(
    depth, with_biases, channels
):
    model = networks.build(f"vgg{depth}_bn", 10)
    assert trainable_count(model) == with_biases - channels
    plain = networks.vgg(depth, 10, normalization="none")
    assert plain.name == f"vgg{depth}"
    assert trainable_count(plain) == with_biases - 2 * channels


def densenet_parameters(depth, growth, classes):
    """Convolutions, and two numbers per channel in front of each but the first."""
    channels = 2 * growth
    total = 27 * channels
    for stage in range(3):
        for _ in range((depth - 4) // 6):
            total += 2 * channels + channels * 4 * growth
            total += 2 * 4 * growth + 9 * 4 * growth * growth
            channels += growth
        if stage < 2:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    return total + 2 * channels + channels * classes + classes


def test_densenet_has_the_published_number_of_parameters():
    # The paper's table 2: 0.8M for DenseNet-BC (k = 12, depth 100).
    assert densenet_parameters(100, 12, 10) == 769_162
    assert trainable_count(networks.build("densenet100_12", 10)) == 769_162
    small = networks.densenet(40, 12, 100, (16, 16, 3))
    assert trainable_count(small) == densenet_parameters(40, 12, 100)


def test_small_image_stems_have_the_parameters_of_the_large_ones():
    # A dense layer of 10 instead of 1,000 classes on 1280 and 1024 channels.
    for name, count, channels in (
        ("mobilenet_v2", 3_504_872, 1280),
        ("shufflenet_v2_x1_0", 2_278_604, 1024),
    ):
        model = networks.build(f"cifar_{name}", 10)
        assert trainable_count(model) == count - 990 * (channels + 1)


# The same networks in float64 NumPy ---------------------------------------------------


def imagenet_resnet(net, x, stages, bottleneck):
    x = max_pool(net.unit(x, "stem", 2), 3, 2)
    for stage, blocks in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            if bottleneck:
                y = net.unit(net.unit(x, f"{name}_1"), f"{name}_2", stride)
            else:
                y = net.unit(x, f"{name}_1", stride)
            y = net.norm(net.conv(y, f"{name}_last_conv"), f"{name}_last_norm")
            if block == 1 and (stage > 1 or bottleneck):
                x = net.conv(x, f"{name}_shortcut_conv", stride)
                x = net.norm(x, f"{name}_shortcut_norm")
            x = relu(x + y)
    return x


def vgg(net, x, stages):
    for stage, convolutions in enumerate(stages, start=1):
        x = x if stage == 1 else max_pool(x, 2, 2)
        for number in range(1, convolutions + 1):
            x = net.unit(x, f"stage{stage}_{number}")
    return x


def densenet(net, x, layers):
    def before(x, name):
        return net.conv(relu(net.norm(x, f"{name}_norm")), f"{name}_conv")

    x = net.conv(x, "conv")
    for stage in (1, 2, 3):
        if stage > 1:
            x = before(x, f"transition{stage - 1}")
            x = windows(x, 2, 2).mean(axis=(3, 4))
        for layer in range(1, layers + 1):
            name = f"stage{stage}_layer{layer}"
            y = before(before(x, f"{name}_1"), f"{name}_2")
            x = np.concatenate([x, y], axis=-1)
    return relu(net.norm(x, "norm"))


def mobilenet_v2(net, x, stem_stride, strides):
    x = net.unit(x, "stem", stem_stride, 6)
    for stage, (blocks, stride) in enumerate(
        zip((1, 2, 3, 4, 3, 3, 1), strides, strict=True), start=1
    ):
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            y = x if stage == 1 else net.unit(x, f"{name}_expand", limit=6)
            y = net.depthwise(y, f"{name}_depthwise_conv", stride if block == 1 else 1)
            y = np.clip(net.norm(y, f"{name}_depthwise_norm"), 0, 6)
            y = net.norm(net.conv(y, f"{name}_project_conv"), f"{name}_project_norm")
            x = y if block == 1 else x + y
    return net.unit(x, "last", limit=6)


def shuffle(x):
    """Two groups: the paper's reshape to (2, n), transpose, flatten."""
    *shape, channels = x.shape
    return x.reshape(*shape, 2, channels // 2).swapaxes(-1, -2).reshape(x.shape)


def shufflenet_v2(net, x, small):
    def depthwise(x, name, stride=1):
        return net.norm(net.depthwise(x, f"{name}_conv", stride), f"{name}_norm")

    x = net.unit(x, "stem", 1 if small else 2)
    x = x if small else max_pool(x, 3, 2)
    for stage, blocks in ((2, 4), (3, 8), (4, 4)):
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            stride = 2 if block == 1 else 1
            if block == 1:
                left = depthwise(x, f"{name}_left_depthwise", 2)
                left, right = net.unit(left, f"{name}_left_2"), x
            else:
                left, right = np.split(x, 2, axis=-1)
            right = net.unit(right, f"{name}_right_1")
            right = depthwise(right, f"{name}_right_depthwise", stride)
            right = net.unit(right, f"{name}_right_2")
            x = shuffle(np.concatenate([left, right], axis=-1))
    return net.unit(x, "last")


@pytest.mark.parametrize(
    ("name", "size", "reference", "arguments"),
    [
        ("imagenet_resnet18", 64, imagenet_resnet, ((2, 2, 2, 2), False)),
        ("imagenet_resnet50", 64, imagenet_resnet, ((3, 4, 6, 3), True)),
        ("vgg16_bn", 17, vgg, ((2, 2, 3, 3, 3),)),
        ("densenet40_12", 16, densenet, (6,)),
        ("mobilenet_v2", 64, mobilenet_v2, (2, (1, 2, 2, 2, 1, 2, 1))),
        ("cifar_mobilenet_v2", 16, mobilenet_v2, (1, (1, 1, 2, 2, 1, 2, 1))),
        ("shufflenet_v2_x0_5", 64, shufflenet_v2, (False,)),
        ("cifar_shufflenet_v2_x1_0", 17, shufflenet_v2, (True,)),
    ],
)
def test_maps_and_logits_are_those_of_float64_numpy(name, size, reference, arguments):
    model = networks.build(name, 5, (size, size, 3))
    randomize(model)
    x = np.random.default_rng(1).normal(size=(2, size, size, 3))
    net = Layers(model)
    expected = reference(net, x, *arguments)
    tapped = networks.tap(model)
    assert tapped.layer_name == "feature_map"
    assert {v.path for v in tapped.head_variables} == {"logits/kernel", "logits/bias"}
    feature_map, logits = tapped.forward(tf.constant(x, tf.float32))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(feature_map, expected, atol=2e-4 * scale)
    expected = net.head(expected)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, atol=2e-4 * scale)
    assert net.used == {layer.name for layer in model.layers if layer.weights}


# Initial values -----------------------------------------------------------------------


def test_initial_values_are_those_of_the_reference_code():
    # torchvision's MobileNetV2: normal over the outputs, of which a depthwise kernel
    # has one per channel and position.
    model = networks.mobilenet_v2(100, (32, 32, 3))
    kernel = np.asarray(model.get_layer("stage6_block2_project_conv").kernel)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / 160), rtol=0.02)
    kernel = np.asarray(model.get_layer("stage6_block2_depthwise_conv").kernel)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 960)), rtol=0.03)
    head = model.get_layer("logits")
    np.testing.assert_allclose(np.asarray(head.kernel).std(), 0.01, rtol=0.02)
    assert not np.asarray(head.bias).any()

    # torchvision's ShuffleNetV2: PyTorch's defaults, +-1/sqrt(inputs).
    model = networks.shufflenet_v2(1.0, 10, (32, 32, 3))
    for layer, inputs in (
        ("stage4_block2_right_1_conv", 232),
        ("stage4_block2_right_depthwise_conv", 9),
        ("stem_conv", 27),
    ):
        kernel = np.abs(np.asarray(model.get_layer(layer).kernel))
        assert 0.98 / np.sqrt(inputs) < kernel.max() <= 1 / np.sqrt(inputs) + 1e-6
        np.testing.assert_allclose(kernel.mean(), 0.5 / np.sqrt(inputs), rtol=0.08)

    # ResNet, VGG and DenseNet: He et al. over the outputs.
    for model, layer, outputs in (
        (networks.imagenet_resnet(18, 5, (32, 32, 3)), "stage3_block1_1_conv", 9 * 256),
        (networks.vgg(11, 5), "stage4_1_conv", 9 * 512),
        (networks.densenet(40, 12, 5), "stage3_layer6_1_conv", 48),
    ):
        kernel = np.asarray(model.get_layer(layer).kernel)
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / outputs), rtol=0.03)


# keras.applications -------------------------------------------------------------------


def test_an_application_computes_what_keras_does_without_its_preprocessing():
    shape = (32, 32, 3)
    own = networks.build("applications/EfficientNetB0", 5, shape)
    # torchvision's efficientnet_b0: 5,288,548; the paper's table 2: 5.3M.
    assert trainable_count(own) == 5_288_548 - 995 * (1280 + 1)
    tapped = networks.tap(own)
    assert (tapped.layer_name, tapped.map_shape) == ("top_activation", (1, 1, 1280))
    theirs = keras.applications.EfficientNetB0(
        weights=None, input_shape=shape, classes=5, classifier_activation=None
    )
    randomize(own)
    # The stock network has the mean, the variance and a count of its normalisation.
    theirs.set_weights([*theirs.get_weights()[:3], *own.get_weights()])
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype("float32")
    np.testing.assert_allclose(own(pixels / 255), theirs(pixels), rtol=1e-3, atol=1e-4)


def test_an_application_learns_with_fused_normalisation_of_keras_momentum():
    model = networks.application("MobileNetV2", 5, (32, 32, 3), name="mine")
    assert model.name == "mine"
    layer = model.get_layer("bn_Conv1")
    assert isinstance(layer, FusedBatchNormalization)
    assert (layer.momentum, layer.epsilon, layer.unbiased) == (0.999, 1e-3, False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: networks.build("applications/EfficientNet", 5), "Did you mean"),
        (
            lambda: networks.application("Xception", 5, (32, 32, 3)),
            r"`input_shape`.*Xception.*\(32, 32, 3\).*71x71",
        ),
        (lambda: networks.application("ResNet50", 1), "`num_classes`"),
        (lambda: networks.build("imagenet_resnet20", 5), r"`depth`.*\[18, 34, 50\]"),
        (lambda: networks.build("resnet18", 5), r"nearest.* 20\..*imagenet_resnet"),
        (lambda: networks.vgg(12, 5), r"`depth`.*\[11, 13, 16, 19\].*depth=12"),
        (lambda: networks.densenet(41, 12, 5), r"nearest valid depth is 40"),
        (lambda: networks.densenet(40, 0, 5), r"`growth`.*growth=0"),
        (lambda: networks.mobilenet_v2(5, stem="cifra"), r"Did you mean 'cifar'\?"),
        (lambda: networks.mobilenet_v2(5, dropout=1.0), r"`dropout`.*dropout=1\.0"),
        (lambda: networks.shufflenet_v2(0.7, 5), r"`width`.*width=0\.7"),
        (lambda: networks.build("shufflenet_v2_x3_0", 5), "Did you mean 'shufflenet"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Together with the rest of the package ------------------------------------------------


@pytest.mark.parametrize(
    "name", ["cifar_shufflenet_v2_x0_5", "cifar_mobilenet_v2", "densenet16_12"]
)
def test_segments_recompute_the_same_maps_and_gradients(name):
    model = networks.build(name, 5, (16, 16, 3))
    keras.utils.set_random_seed(1)
    x = tf.random.normal((4, 16, 16, 3))
    results = []
    start = model.get_weights()
    for checkpointing in (False, 3):
        model.set_weights(start)
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0  # one seed more would be drawn in the second pass
        tapped = networks.tap(model, checkpointing=checkpointing)
        with tf.GradientTape() as tape:
            feature_map, logits = tapped.forward(x, training=True)
            loss = tf.reduce_sum(logits**2) + tf.reduce_mean(feature_map)
        gradients = tape.gradient(loss, model.trainable_variables)
        moved = [np.asarray(v) for v in model.non_trainable_variables]
        results.append([feature_map, logits, *gradients, *moved])
    assert tapped.segments is not None
    for one, other in zip(*results, strict=True):
        scale = np.abs(one).max() + 1e-6
        np.testing.assert_allclose(one, other, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "name",
    [
        "cifar_shufflenet_v2_x0_5",
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
        pytest.param("applications/EfficientNetB0", marks=pytest.mark.slow),
    ],
)
def test_networks_are_exported_and_load_without_this_package(name, tmp_path):
    model = networks.build(name, 5, (32, 32, 3))
    randomize(model)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    exports.export(model, tmp_path / "net.keras", format="keras")
    plain = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-3, atol=1e-3)
    assert not any("afd_tf" in type(layer).__module__ for layer in plain.layers)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["resnet99999998", "resnet8"],
            r"2 networks of 100,000,006 layers, .*'resnet9",
        ),
        (["resnet8"] * 3000, r"3,000 networks of 24,000 layers, the largest 'resnet8'"),
        (["wrn10_2", "densenet10000_12"], r"of 10,010 layers, .*max_layers to 10010"),
    ],
)
def test_more_layers_than_a_limit_are_refused_unbuilt(names, said):
    with pytest.raises(ValueError, match=said), networks.at_most_layers(names, 10_000):
        pytest.fail("the networks would be built")
    with networks.at_most_layers(names, 10**9):
        pass


def test_the_limit_holds_for_functions_with_arguments_of_their_own():
    with networks.at_most_layers([networks.resnet], 20):
        assert networks.resnet(20, 10).name == "resnet20"
        with pytest.raises(ValueError, match=r"at most 20 layers.*max_layers to 99998"):
            networks.resnet(99998, 10)
    assert networks.resnet(26, 10).name == "resnet26"


@pytest.mark.parametrize("name", ["wrn10_9999", "wrn10_99999999", "densenet40_999999"])
def test_a_network_that_is_far_too_wide_is_refused_before_its_weights_are_made(name):
    with pytest.raises(
        ValueError, match=r"at most 268,435,456 weights.*Received: \d+,"
    ):
        networks.build(name, 10)
