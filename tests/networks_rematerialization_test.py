"""Training in recomputed segments against training that keeps every map."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from keras import layers

from afd_tf import OnlineDistiller, networks
from afd_tf.networks import graph
from afd_tf.networks.rematerialization import cut

SHAPE = (8, 8, 3)


def small_resnet(**options):
    return networks.resnet(8, 3, SHAPE, **options)


def small_wide_resnet(**options):
    return networks.wide_resnet(10, 2, 3, SHAPE, **options)


def images(batch=4, shape=SHAPE, dtype="float32"):
    x = np.random.default_rng(0).normal(size=(batch, *shape))
    return tf.constant(x, dtype)


def passes(network, checkpointing, x, layer=None, compiled=False):
    """Forward pass, then the gradients of two losses, one of the map, one of all."""
    tapped = networks.tap(network, layer, checkpointing=checkpointing)

    def run():
        with tf.GradientTape(persistent=True) as tape:
            feature_map, logits = tapped.forward(x, training=True)
            whole = tf.add_n(
                [tf.reduce_sum(logits**2)]
                + [tf.cast(loss, logits.dtype) for loss in network.losses]
            )
            part = tf.reduce_sum(tf.cast(feature_map, logits.dtype) ** 3)
        return (
            [feature_map, logits, whole],
            tape.gradient(whole, network.trainable_variables),
            tape.gradient(part, tapped.extractor_variables),
        )

    results = (tf.function(run) if compiled else run)()
    state = [tf.convert_to_tensor(v.value) for v in network.non_trainable_variables]
    return [np.asarray(tf.cast(t, "float64")) for t in tf.nest.flatten(results)] + [
        np.asarray(tf.cast(t, "float64")) for t in state
    ]


def with_and_without(network, x, checkpointing=True, **options):
    """Both ways from the same weights, statistics and seeds."""
    start = tiny.values(network.variables)
    results = []
    for option in (False, checkpointing):
        for variable, value in zip(network.variables, start, strict=True):
            variable.assign(value)
        results.append(passes(network, option, x, **options))
    return results


def assert_equal_passes(network, x, rtol=1e-5, **options):
    for expected, received in zip(
        *with_and_without(network, x, **options), strict=True
    ):
        scale = np.abs(expected).max() + 1e-6
        np.testing.assert_allclose(received / scale, expected / scale, atol=rtol)


@pytest.mark.parametrize("make", [small_resnet, small_wide_resnet])
@pytest.mark.parametrize("compiled", [False, True])
def test_maps_gradients_and_statistics_are_those_of_an_ordinary_pass(make, compiled):
    assert_equal_passes(make(), images(), compiled=compiled)


@pytest.mark.parametrize("make", [small_resnet, small_wide_resnet])
def test_in_double_precision_they_agree_to_rounding(make):
    keras.config.set_dtype_policy("float64")
    assert_equal_passes(make(), images(dtype="float64"), rtol=1e-13)


@pytest.mark.parametrize("segments", [2, 3, 1000])
def test_any_number_of_segments_gives_the_same(segments):
    assert_equal_passes(small_resnet(), images(), checkpointing=segments)


def test_recomputed_dropout_draws_the_mask_of_the_forward_pass():
    network = small_wide_resnet(dropout=0.5)
    assert_equal_passes(network, images(), compiled=True)
    seeds = [v for v in network.variables if "seed_generator" in v.path]
    assert len(seeds) == 3
    for seed in seeds:  # moved once a pass, not again in two backward passes
        assert np.array(seed)[1] == 1


def test_half_precision_computes_in_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = small_resnet()
    tapped = networks.tap(network, checkpointing=True)
    assert tapped.forward(images(), training=True)[0].dtype == tf.bfloat16
    assert_equal_passes(network, images(), rtol=1e-2)


class GlobalNoise(layers.Layer):
    """Noise from Keras' global generator, which belongs to no layer."""

    def call(self, x, training=False):
        noise = keras.random.normal(keras.ops.shape(x)) if training else 0.0
        return x * (1.0 + 0.5 * noise)

    def compute_output_shape(self, input_shape):
        return input_shape


def difficult(head=True):
    """Activity regularisers, a layer used three times, a frozen one, global noise."""
    inputs = keras.Input((6, 6, 2))
    rectify = layers.ReLU(name="shared", activity_regularizer=keras.regularizers.L2(2))
    x = rectify(layers.Conv2D(4, 3, padding="same")(inputs))
    x = rectify(layers.BatchNormalization()(x))
    y = GlobalNoise()(x)
    y = layers.Conv2D(4, 3, padding="same", name="inside")(y)
    x = layers.Add()([x, y])
    frozen = layers.Conv2D(4, 3, padding="same", trainable=False)
    x = rectify(frozen(x))
    x = layers.SpectralNormalization(layers.Conv2D(4, 1))(x)
    x = layers.Conv2D(5, 3, kernel_regularizer="l2", name="map")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize("layer", ["map", "inside"])
@pytest.mark.parametrize("checkpointing", [True, 1000])
@pytest.mark.parametrize("compiled", [False, True])
def test_losses_shared_layers_and_state_of_any_kind(layer, checkpointing, compiled):
    network = difficult()
    generator = keras.src.random.seed_generator.global_seed_generator()
    network.global_generator = generator  # so that both ways start from its seed
    assert_equal_passes(
        network,
        images(shape=(6, 6, 2)),
        checkpointing=checkpointing,
        layer=layer,
        compiled=compiled,
    )


def test_sequential_networks_are_cut_too():
    network = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="tanh"),
            layers.Dropout(0.5),
            layers.Conv2D(4, 3, activation="tanh"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    assert_equal_passes(network, images(shape=(6, 6, 2)))
