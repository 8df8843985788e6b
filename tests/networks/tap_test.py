"""Taps: which feature map is found, what one forward pass gives, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from afd_tf.networks.tap import tap


def classifier(size=8, classes=5, head="global", **input_options):
    x = images = keras.Input((size, size, 3), **input_options)
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(x)
    x = layers.BatchNormalization(name="bn1")(x)
    x = layers.ReLU(name="relu1")(x)
    y = layers.Conv2D(4, 3, padding="same", name="branch")(x)
    x = layers.Add(name="sum")([x, y])
    x = layers.ReLU(name="last")(x)
    if head == "global":
        x = layers.GlobalAveragePooling2D()(x)
    elif head == "dropout":
        x = layers.SpatialDropout2D(0.5)(x)
        x = layers.ZeroPadding2D(1)(x)
        x = layers.Activation("linear")(x)
        x = layers.GlobalAveragePooling2D()(x)
    elif head == "convolutional":
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = layers.Dropout(0.5)(x)
        x = layers.Conv2D(classes, 1, name="conv_logits")(x)
        return keras.Model(images, layers.Flatten()(x), name="net")
    elif head == "average":
        x = layers.AveragePooling2D(size)(x)
        x = layers.Conv2D(7, 1)(x)
        x = layers.ReLU()(x)
        x = layers.Flatten()(x)
    elif head == "mean":
        x = keras.ops.mean(x, axis=(1, 2), keepdims=True)
        x = layers.Dropout(0.5)(x)
        x = layers.Reshape((4,))(x)
    elif head == "flatten":
        x = layers.Flatten()(x)
    return keras.Model(images, layers.Dense(classes, name="logits")(x), name="net")


HEADS = ["global", "dropout", "convolutional", "average", "mean", "flatten"]


@pytest.mark.parametrize("head", HEADS)
def test_default_tap_is_the_last_map_before_the_head(head):
    tapped = tap(classifier(head=head))
    assert tapped.layer_name == "last"
    assert tapped.map_shape == (8, 8, 4)
    assert tapped.num_classes == 5
    assert tapped.input_shape == (8, 8, 3)
    assert tapped.note == ""


def test_forward_gives_map_and_logits_of_the_network():
    model = classifier()
    tapped = tap(model)
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
    feature_map, logits = tapped.forward(x, training=False)
    np.testing.assert_array_equal(logits, model(x, training=False))
    pooled = np.asarray(feature_map).mean((1, 2))
    dense = model.get_layer("logits")
    np.testing.assert_allclose(
        pooled @ dense.kernel.numpy() + dense.bias.numpy(), logits, rtol=1e-4, atol=1e-5
    )


def test_forward_in_training_moves_statistics_once():
    model = classifier()
    tapped = tap(model)
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
    before = np.asarray(model.get_layer("conv1")(x)).mean((0, 1, 2))
    tapped.forward(x, training=True)
    bn = model.get_layer("bn1")
    np.testing.assert_allclose(bn.moving_mean, 0.01 * before, rtol=1e-3, atol=1e-7)


def test_variables_are_split_at_the_tap_without_overlap():
    model = classifier()
    tapped = tap(model)
    extractor = [v.path for v in tapped.extractor_variables]
    head = [v.path for v in tapped.head_variables]
    assert head == ["logits/kernel", "logits/bias"]
    assert extractor + head == [v.path for v in model.trainable_variables]
    early = tap(model, "relu1")
    assert [v.path for v in early.extractor_variables] == [
        "conv1/kernel",
        "conv1/bias",
        "bn1/gamma",
        "bn1/beta",
    ]
    model.get_layer("conv1").trainable = False
    assert [v.path for v in early.extractor_variables] == ["bn1/gamma", "bn1/beta"]


def test_map_gradient_reaches_the_extractor_only():
    tapped = tap(classifier())
    with tf.GradientTape() as tape:
        feature_map, _ = tapped.forward(tf.ones((2, 8, 8, 3)), training=True)
        loss = tf.reduce_sum(feature_map**2)
    gradients = tape.gradient(
        loss, [v.value for v in tapped.extractor_variables + tapped.head_variables]
    )
    assert all(g is not None for g in gradients[:-2])
    assert gradients[-2:] == [None, None]


def test_sequential_and_named_tap():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(2, 3, activation="relu", name="first"),
            layers.Conv2D(3, 3, activation="relu", name="second"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )
    assert tap(model).map_shape == (2, 2, 3)
    assert tap(model, "first").map_shape == (6, 6, 2)


def test_layer_called_twice_is_tapped_at_its_last_call():
    images = keras.Input((8, 8, 3))
    relu = layers.ReLU(name="relu")
    x = relu(layers.Conv2D(2, 3)(images))
    x = relu(layers.Conv2D(3, 3)(x))
    model = keras.Model(images, layers.Dense(2)(layers.Flatten()(x)))
    assert tap(model, "relu").map_shape == (4, 4, 3)


def test_nested_backbone_is_tapped_at_its_output():
    images = keras.Input((8, 8, 3))
    backbone = keras.Model(images, layers.Conv2D(6, 3)(images), name="backbone")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(1 / 255),
            backbone,
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    tapped = tap(model)
    assert (tapped.layer_name, tapped.map_shape) == ("backbone", (6, 6, 6))
    assert len(tapped.extractor_variables) == 2


def test_mixed_precision_network_keeps_its_precision_when_tapped_later():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = classifier()
    keras.config.set_dtype_policy("float32")
    plain = classifier()
    x = tf.ones((1, 8, 8, 3))
    assert tap(model).forward(x)[0].dtype == "bfloat16"
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert tap(plain).forward(x)[0].dtype == "float32"


@pytest.mark.parametrize(
    ("build", "name", "map_shape"),
    [
        ("MobileNetV2", "out_relu", (1, 1, 1280)),
        ("MobileNetV3Small", None, (1, 1, 576)),
        pytest.param(
            "EfficientNetB0", "top_activation", (1, 1, 1280), marks=pytest.mark.slow
        ),
        pytest.param(
            "ResNet50", "conv5_block3_out", (1, 1, 2048), marks=pytest.mark.slow
        ),
        pytest.param("DenseNet121", "relu", (1, 1, 1024), marks=pytest.mark.slow),
        pytest.param("VGG16", "block5_conv3", (2, 2, 512), marks=pytest.mark.slow),
    ],
)
def test_keras_applications_at_their_smallest_images(build, name, map_shape):
    model = getattr(keras.applications, build)(
        weights=None, classifier_activation=None, input_shape=(32, 32, 3), classes=7
    )
    tapped = tap(model)
    assert tapped.map_shape == map_shape
    assert name is None or tapped.layer_name == name
    assert ("1x1" in tapped.note) == (map_shape[0] == 1)
    names = [layer.name for layer in model.layers]
    head = names[names.index(tapped.layer_name) + 1 :]
    owners = {v.path.split("/")[0] for v in tapped.head_variables}
    assert owners <= set(head)


def test_keras_applications_at_larger_images():
    model = keras.applications.MobileNetV3Small(
        weights=None, classifier_activation=None, input_shape=(96, 96, 3), classes=7
    )
    tapped = tap(model)
    assert tapped.map_shape[:2] == (3, 3)
    assert tapped.note == ""
    with pytest.raises(ValueError, match=r"classifier_activation=None"):
        tap(keras.applications.MobileNetV3Small(weights=None, classes=3))


def softmax_variants():
    images = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(images))
    logits = layers.Dense(3)(x)
    inner = keras.Model(images, layers.Dense(3, activation="softmax")(x))
    return {
        "dense": keras.Model(images, layers.Dense(3, activation="softmax")(x)),
        "sigmoid": keras.Model(images, layers.Dense(3, activation="sigmoid")(x)),
        "activation": keras.Model(images, layers.Activation("softmax")(logits)),
        "layer": keras.Model(images, layers.Softmax()(logits)),
        "op": keras.Model(images, keras.ops.softmax(logits)),
        "behind": keras.Model(
            images, layers.Activation("linear")(layers.Softmax()(logits))
        ),
        "nested": keras.Sequential([keras.Input((8, 8, 3)), inner]),
    }


@pytest.mark.parametrize("variant", list(softmax_variants()))
def test_probabilities_as_output_are_refused(variant):
    with pytest.raises(ValueError, match="ends in probabilities"):
        tap(softmax_variants()[variant])


def test_unknown_tap_names_the_nearest_and_the_candidates():
    with pytest.raises(ValueError, match=r"Did you mean 'relu1'\?.*'last'"):
        tap(classifier(), "reluu1")


@pytest.mark.parametrize("name", ["logits", "global_average_pooling2d"])
def test_tap_that_is_not_4d_is_refused(name):
    with pytest.raises(ValueError, match=r"`tap`.*4-D.*Received: tap='"):
        tap(classifier(), name)


def test_tap_on_the_images_is_refused():
    model = classifier()
    with pytest.raises(ValueError, match="layers with weights"):
        tap(model, model.layers[0].name)


def test_tap_inside_a_nested_model_names_the_mend():
    inner = classifier()
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(2.0), inner])
    for layer in (None, "relu1"):
        with pytest.raises(ValueError, match=r"Pass the inner model 'net'"):
            tap(model, layer)


def test_tap_the_logits_do_not_use_is_refused():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(2, 3, name="used"), layers.Flatten()]
    )
    images = keras.Input((4, 4, 1))
    used = keras.Model(images, model(images))
    used.spare = layers.Conv2D(2, 3, name="spare")
    with pytest.raises(ValueError, match=r"on which the logits depend.*spare"):
        tap(used, "spare")


def test_parallel_branches_without_a_common_map_are_refused():
    images = keras.Input((8, 8, 3))
    a = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="left")(images))
    b = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 5, name="right")(images))
    model = keras.Model(images, layers.Dense(3)(layers.Concatenate()([a, b])))
    with pytest.raises(ValueError, match=r"'(left|right)'"):
        tap(model)
    assert len(tap(model, "left").extractor_variables) == 2


def test_dense_network_without_maps_is_refused():
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, layers.Dense(3)(layers.Flatten()(images)))
    with pytest.raises(ValueError, match="no layer with a 4-D output"):
        tap(model)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(layers.Flatten()(x))


class Overriding(keras.Model):
    def call(self, x, training=None):
        return super().call(x, training=training) * 2


def test_subclassed_models_are_refused():
    model = Subclassed()
    model(tf.ones((1, 4, 4, 1)))
    plain = classifier()
    for network in (model, Overriding(plain.inputs, plain.outputs)):
        with pytest.raises(ValueError, match=r"cannot be tapped.*keras\.Model\(inputs"):
            tap(network)


def test_wrong_ends_are_refused():
    images = keras.Input((8, 8, 3))
    other = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(images)
    y = layers.Dense(3)(layers.Flatten()(x))
    z = layers.Dense(3)(layers.Flatten()(layers.Add()([images, other])))
    with pytest.raises(ValueError, match="2 outputs"):
        tap(keras.Model(images, [y, y]))
    with pytest.raises(ValueError, match="2 inputs"):
        tap(keras.Model([images, other], z))
    with pytest.raises(ValueError, match=r"logits of shape \(batch, classes\)"):
        tap(keras.Model(images, x))
    with pytest.raises(ValueError, match="at least 2 classes"):
        tap(keras.Model(images, layers.Dense(1)(layers.Flatten()(x))))
    with pytest.raises(ValueError, match="is not built"):
        tap(keras.Sequential([layers.Conv2D(2, 3), layers.Flatten()]))
    with pytest.raises(TypeError, match=r"keras\.Model"):
        tap("resnet20")
    flat = keras.Input((8,))
    with pytest.raises(ValueError, match="Expected images of shape"):
        tap(keras.Model(flat, layers.Dense(3)(flat)))


def test_map_of_unknown_size_is_refused():
    images = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(images))
    with pytest.raises(ValueError, match="known size"):
        tap(keras.Model(images, layers.Dense(3)(x)))


def test_channels_first_is_refused():
    images = keras.Input((3, 8, 8))
    x = layers.Conv2D(4, 3, data_format="channels_first")(images)
    with pytest.raises(ValueError, match="channels_first"):
        tap(keras.Model(images, layers.Dense(3)(layers.Flatten()(x))))
