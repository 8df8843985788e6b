"""Pixels of images and of parts of them, against float64 NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from numpy_images import centre_of, part_of
from PIL import Image

from afd_tf.data.images import Fit, fit_tensor, part_tensor, read_part

SMOOTH = np.stack(
    np.broadcast_arrays(
        np.linspace(0, 250, 61)[:, np.newaxis], np.linspace(250, 0, 83), 90.0
    ),
    axis=-1,
).astype(np.uint8)


@pytest.mark.parametrize("part", [(5, 20, 40, 44, 0), (0, 0, 61, 83, 1)])
def test_of_a_jpeg_the_part_alone_is_decoded(part):
    encoded = tf.io.encode_jpeg(SMOOTH, quality=98)
    whole = tf.io.decode_jpeg(encoded).numpy()
    sizes = []

    def draw(size):
        sizes.append(size.numpy().tolist())
        return tf.constant(part, tf.int32)

    def decode(_):
        raise AssertionError("a JPEG is not decoded as a whole")

    fit = Fit((10, 14), 3)
    got = part_tensor(encoded, decode, fit, draw)
    assert sizes[-1] == [61, 83]
    np.testing.assert_allclose(got, part_of(whole, part, (10, 14)), atol=2)
    grey = part_tensor(encoded, decode, Fit((10, 14), 1), draw)
    luma = whole @ np.array([[0.299], [0.587], [0.114]])
    expected = part_of(luma, part, (10, 14))
    np.testing.assert_allclose(grey, expected, atol=3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_files_give_the_channels_asked_for(channels):
    image = np.random.RandomState(1).randint(0, 256, (9, 11, channels))
    encoded = tf.io.encode_png(image.astype(np.uint8))
    part = (2, 1, 6, 7, 1)
    for wanted in (1, 3):
        got = part_tensor(
            encoded,
            tf.io.decode_png,
            Fit((5, 4), wanted),
            lambda size: tf.constant(part),
        )
        if wanted == 3:
            colours = np.broadcast_to(image, (9, 11, 3)) if channels == 1 else image
            expected = part_of(colours[..., :3], part, (5, 4))
            np.testing.assert_allclose(got, expected, atol=0.51)
        assert got.shape == (5, 4, wanted)


def test_a_large_photograph_is_decoded_at_a_fraction_and_turned_upright(tmp_path):
    large = np.kron(SMOOTH, np.ones((8, 8, 1), np.uint8))
    photo = Image.fromarray(np.rot90(large, 1).copy())
    exif = photo.getexif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    photo.save(tmp_path / "photo.jpg", quality=98, exif=exif)
    part = (80, 96, 320, 400, 1)
    given = []

    def draw(size):
        given.append(size)
        return part

    got = read_part(str(tmp_path / "photo.jpg"), Fit((20, 25), 3), draw)
    assert given == [large.shape[:2]]
    np.testing.assert_allclose(got, part_of(large, part, (20, 25)), atol=4)


def test_tensors_are_resized_as_files_are():
    random = np.random.RandomState(2)
    image = random.randint(0, 256, (33, 50, 3)).astype(np.uint8)
    got = fit_tensor(tf.constant(image), Fit((16, 20), 3, resize=24))
    np.testing.assert_allclose(got, centre_of(image, 24, (16, 20)), atol=0.51)
    # An image of the right size is resized and cut all the same.
    got = fit_tensor(tf.constant(image[:16, :20]), Fit((16, 20), 3, resize=24))
    expected = centre_of(image[:16, :20], 24, (16, 20))
    np.testing.assert_allclose(got, expected, atol=0.51)
