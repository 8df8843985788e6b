"""Which part of an image is drawn, and the pixels of it, against float64 NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from numpy_images import centre_of, part_of
from PIL import Image

from afd_tf.data.random_resized_crop import RandomResizedCrop, draw_part
from afd_tf.data.readers.images import Fit, fit_tensor, part_tensor, read_part

# Which part ---------------------------------------------------------------------------


def draws(count=4000, size=(1000, 1000), seed=0, epoch=0, **options):
    settings = RandomResizedCrop(**options)
    return np.stack([draw_part(settings, seed, epoch, i, size) for i in range(count)])


def assert_uniform(values):
    """Kolmogorov-Smirnov at the level 0.01."""
    values = np.sort(values)
    steps = np.arange(len(values) + 1) / len(values)
    distance = max(np.max(steps[1:] - values), np.max(values - steps[:-1]))
    assert distance < 1.63 / np.sqrt(len(values))


def test_area_shape_and_position_of_parts_are_uniform():
    # No part of half the area and a ratio up to 4/3 is larger than the image.
    parts = draws(scale=(0.08, 0.5)).astype(np.float64)
    top, left, height, width, mirror = parts.T
    share = height * width / 1e6
    assert_uniform((share - 0.08) / 0.42)
    assert_uniform((np.log(width / height) + np.log(4 / 3)) / (2 * np.log(4 / 3)))
    half = np.random.default_rng(0).uniform(size=(2, len(parts)))
    assert_uniform((top + half[0]) / (1001 - height))
    assert_uniform((left + half[1]) / (1001 - width))
    assert abs(mirror.mean() - 0.5) < 0.03
    related = np.corrcoef([share, width / height, mirror, top / (1001 - height)])
    assert abs(related - np.eye(4)).max() < 0.05


def test_parts_lie_within_the_image_and_keep_to_scale_and_ratio():
    parts = draws(2000, size=(90, 120))
    top, left, height, width, _ = parts.T
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() == 90
    assert (left + width).max() == 120
    share = height * width / (90 * 120)
    assert 0.07 < share.min() < 0.1
    assert share.max() > 0.95
    ratio = width / height
    assert 0.72 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.38


def test_ratio_is_width_over_height():
    wide = RandomResizedCrop(scale=(0.25, 0.25), ratio=(2.0, 2.0))
    *_, height, width, _ = draw_part(wide, 0, 0, 0, (1000, 1000))
    assert (height, width) == (354, 707)  # the roots of 125,000 and 500,000


def test_where_no_part_fits_the_centre_is_taken():
    always = RandomResizedCrop(scale=(1.0, 1.0), flip=False)
    # As wide as 4/3 of the height, and as high as 4/3 of the width.
    assert draw_part(always, 0, 0, 0, (30, 101)).tolist() == [0, 31, 30, 40, 0]
    assert draw_part(always, 0, 0, 0, (101, 30)).tolist() == [31, 0, 40, 30, 0]
    assert draw_part(always, 0, 0, 0, (1, 1)).tolist() == [0, 0, 1, 1, 0]


def test_a_part_depends_on_seed_epoch_and_index_and_on_nothing_else():
    settings = RandomResizedCrop()
    reference = draw_part(settings, 1, 2, 3, (100, 100)).tolist()
    np.random.seed(5)
    assert draw_part(settings, 1, 2, 3, (100, 100)).tolist() == reference
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3), (1, 3, 2)):
        assert draw_part(settings, *other, (100, 100)).tolist() != reference
    assert draw_part(settings, 2**63 - 1, 0, 0, (9, 9)).dtype == np.int32


def test_the_random_stream_stays_what_it_is():
    # Golden values: a change of them breaks the resumption of runs begun before it.
    settings = RandomResizedCrop()
    parts = [draw_part(settings, 0, 0, i, (375, 500)).tolist() for i in range(3)]
    assert parts == [
        [38, 19, 140, 121, 1],
        [39, 27, 266, 278, 1],
        [0, 78, 372, 392, 1],
    ]


# The pixels ---------------------------------------------------------------------------


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
