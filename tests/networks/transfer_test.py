"""Transfer layers: when there are any, what they compute, how sizes are matched."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from afd_tf.networks import (
    alignment_transfer,
    match_spatial,
    smallest_size,
    transfer_layers,
)


def maps(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_equal_channels_need_no_transfer():
    assert transfer_layers([(8, 8, 64), (8, 8, 64), (4, 4, 64)]) == [None] * 3


def test_every_network_gets_one_to_the_largest_channel_count():
    layers = transfer_layers([(8, 8, 6), (4, 4, 10), (8, 8, 10)])
    assert [layer.count_params() for layer in layers] == [70, 110, 110]
    assert [layer.name for layer in layers] == ["transfer", "transfer_2", "transfer_3"]
    x = maps(2, 5, 4, 6)
    kernel, bias = layers[0].get_weights()
    np.testing.assert_allclose(
        layers[0](x), x @ kernel[0, 0] + bias, rtol=1e-4, atol=1e-5
    )
    assert np.abs(layers[1].get_weights()[0] - layers[2].get_weights()[0]).max() > 0.01


@pytest.mark.parametrize("kind", [True, "batch", "sync"])
def test_normalised_transfer_by_hand(kind):
    layer = transfer_layers([(8, 8, 3), (8, 8, 5)], normalization=kind)[0]
    kernel, gamma, beta = layer.get_weights()
    x = maps(4, 2, 2, 3)
    z = (x @ kernel[0, 0]).astype("float64")
    z = gamma * (z - z.mean((0, 1, 2))) / np.sqrt(z.var((0, 1, 2)) + 1e-5) + beta
    for training in (True, False):
        np.testing.assert_allclose(
            layer(x, training=training), np.where(z > 0, z, 0.2 * z), atol=1e-4
        )
    assert not layer.non_trainable_variables


def test_alignment_maps_own_channels_onto_the_sources():
    assert alignment_transfer((8, 8, 64), (4, 4, 64)) is None
    layer = alignment_transfer((8, 8, 6), (8, 8, 4))
    x = maps(2, 8, 8, 6)
    kernel, bias = layer.get_weights()
    assert kernel.shape == (1, 1, 6, 4)
    np.testing.assert_allclose(layer(x), x @ kernel[0, 0] + bias, rtol=1e-4, atol=1e-5)


def test_transfer_keras_file_round_trip(tmp_path):
    layer = transfer_layers([(8, 8, 3), (8, 8, 5)], normalization=True)[0]
    layer.save(tmp_path / "transfer.keras")
    loaded = keras.models.load_model(tmp_path / "transfer.keras")
    x = maps(2, 4, 4, 3)
    np.testing.assert_array_equal(layer(x), loaded(x))


def test_smallest_size_is_the_smallest_in_each_direction():
    assert smallest_size([(8, 4, 64), (6, 8, 32)]) == (6, 4)


def test_equal_sizes_pass_through():
    x = tf.constant(maps(2, 4, 4, 3))
    assert match_spatial(x, (4, 4)) is x


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_whole_ratios_average_equal_windows(dtype):
    x = tf.cast(maps(2, 8, 6, 3), dtype)
    y = match_spatial(x, (4, 2))
    expected = np.asarray(tf.cast(x, "float64")).reshape(2, 4, 2, 2, 3, 3).mean((2, 4))
    assert y.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(tf.cast(y, "float64"), expected, atol=tolerance)


def bilinear(x, size):
    """Interpolate at the centres of the new cells, in float64."""

    def weights(old, new):
        centre = (np.arange(new) + 0.5) * old / new - 0.5
        low = np.floor(centre).astype(int)
        matrix = np.zeros((new, old))
        for i, (at, first) in enumerate(zip(centre, low, strict=True)):
            matrix[i, np.clip(first, 0, old - 1)] += 1 - (at - first)
            matrix[i, np.clip(first + 1, 0, old - 1)] += at - first
        return matrix

    rows, columns = weights(x.shape[1], size[0]), weights(x.shape[2], size[1])
    return np.einsum("ih,jw,bhwc->bijc", rows, columns, x)


@pytest.mark.parametrize("size", [(5, 5), (4, 3), (16, 16)])
def test_other_ratios_interpolate(size):
    x = maps(2, 8, 8, 3)
    np.testing.assert_allclose(
        match_spatial(tf.constant(x), size), bilinear(x, size), atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [(4, 4), (5, 3)])
def test_gradient_is_that_of_a_linear_map_that_keeps_the_mean(dtype, size):
    x = tf.cast(maps(2, 8, 8, 3), dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = match_spatial(x, size)
        total = tf.reduce_sum(tf.cast(y, "float32"))
    gradient = tf.cast(tape.gradient(total, x), "float32")
    assert y.dtype == dtype
    np.testing.assert_allclose(
        tf.reduce_sum(gradient), 2 * 3 * size[0] * size[1], rtol=1e-2
    )


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`map_shapes`"):
        transfer_layers([(8, 8, 64), (64,)])
    with pytest.raises(ValueError, match="`map_shapes`"):
        alignment_transfer((8, 8, None), (8, 8, 64))
    with pytest.raises(ValueError, match="`normalization`"):
        transfer_layers([(8, 8, 64), (8, 8, 32)], normalization="layer")
