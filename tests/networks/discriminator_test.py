"""Discriminators: the architecture, the range, and that nothing in them moves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from afd_tf.networks import discriminator


def maps(shape=(6, 8, 8, 64), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_three_blocks_of_64_128_256_channels_without_bias():
    model = discriminator((8, 8, 64))
    shapes = [model.get_layer(f"relu{i}").output.shape[1:] for i in (1, 2, 3)]
    assert shapes == [(4, 4, 64), (2, 2, 128), (2, 2, 256)]
    convolutions = 9 * (64 * 64 + 64 * 128 + 128 * 256)
    assert model.count_params() == convolutions + 2 * (64 + 128 + 256) + 256 + 1
    assert not model.non_trainable_variables


@pytest.mark.parametrize(
    ("map_shape", "sizes"),
    [
        ((32, 32, 8), [(16, 16), (8, 8), (4, 4)]),
        ((4, 4, 8), [(2, 2), (2, 2), (2, 2)]),
        ((2, 2, 8), [(2, 2), (2, 2), (2, 2)]),
        ((1, 1, 8), [(1, 1), (1, 1), (1, 1)]),
        ((7, 3, 8), [(4, 2), (2, 1), (2, 1)]),
    ],
)
def test_stride_stops_at_small_maps(map_shape, sizes):
    model = discriminator(map_shape)
    given = [model.get_layer(f"conv{i}").output.shape[1:3] for i in (1, 2, 3)]
    assert given == sizes
    y = model(maps((4, *map_shape)))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("normalization", ["batch", "sync", "none"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_output_is_a_float32_number_between_0_and_1(normalization, policy):
    keras.config.set_dtype_policy(policy)
    model = discriminator((8, 8, 64), normalization=normalization)
    y = model(10 * maps())
    assert y.dtype == "float32"
    assert y.shape == (6, 1)
    assert ((np.asarray(y) > 0) & (np.asarray(y) < 1)).all()


@pytest.mark.parametrize("normalization", ["batch", "sync", "none"])
def test_training_makes_no_difference_and_nothing_moves(normalization):
    model = discriminator((8, 8, 64), normalization=normalization)
    before = model.get_weights()
    outputs = [model(maps(), training=t) for t in (True, False, True)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_output_by_hand_for_constant_weights():
    """One 2x2 map, kernel 1 in the middle: a per-position affine map, in NumPy."""
    model = discriminator((2, 2, 1), channels=(1,))
    kernel = np.zeros((3, 3, 1, 1))
    kernel[1, 1] = 3.0
    values = [kernel, [2.0], [0.5], [[1.5]], [-0.25]]
    model.set_weights([np.array(value) for value in values])
    x = maps((4, 2, 2, 1))
    z = 3.0 * x.astype("float64")
    z = 2.0 * (z - z.mean()) / np.sqrt(z.var() + 1e-5) + 0.5
    z = np.where(z > 0, z, 0.2 * z).mean((1, 2)) * 1.5 - 0.25
    np.testing.assert_allclose(model(x), 1 / (1 + np.exp(-z)), rtol=1e-5)


def test_separate_batches_hide_a_shift_that_no_normalization_shows():
    x = maps()
    normalized = discriminator((8, 8, 64))
    np.testing.assert_allclose(normalized(x), normalized(2 * x + 3), atol=0.06)
    plain = discriminator((8, 8, 64), normalization="none")
    assert np.abs(plain(x) - plain(2 * x + 3)).max() > 0.1
    assert all(plain.get_layer(f"conv{i}").use_bias for i in (1, 2, 3))


def test_can_be_taught_to_tell_two_kinds_of_maps_apart():
    model = discriminator((4, 4, 8), channels=(8, 8))
    rng = np.random.default_rng(0)
    real = rng.normal(size=(32, 4, 4, 8)).astype("float32")
    own = rng.exponential(size=(32, 4, 4, 8)).astype("float32")
    optimizer = keras.optimizers.Adam(0.01)
    for _ in range(30):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((1 - model(real)) ** 2) + tf.reduce_mean(
                model(own) ** 2
            )
        optimizer.apply(
            tape.gradient(loss, [v.value for v in model.trainable_variables]),
            model.trainable_variables,
        )
    assert np.mean(model(real) > 0.5) > 0.9
    assert np.mean(model(own) < 0.5) > 0.9


@pytest.mark.parametrize("normalization", ["batch", "sync", "none"])
def test_keras_file_round_trip(normalization, tmp_path):
    model = discriminator((8, 8, 3), normalization=normalization, name="mine")
    model.save(tmp_path / "mine.keras")
    loaded = keras.models.load_model(tmp_path / "mine.keras")
    x = maps((4, 8, 8, 3))
    np.testing.assert_array_equal(model(x), loaded(x))
    assert loaded.name == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((8, 8),), "`map_shape`"),
        (((None, 8, 3),), "`map_shape`"),
        (((0, 8, 3),), "`map_shape`"),
    ],
)
def test_bad_map_shapes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        discriminator(*arguments)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="`channels`"):
        discriminator((8, 8, 3), channels=())
    with pytest.raises(ValueError, match=r"Did you mean 'none'\?"):
        discriminator((8, 8, 3), normalization="non")
