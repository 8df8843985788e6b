"""Order, crops, flips and normalisation against arrays computed by hand and NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from afd_tf.data.augmentation import (
    Augmentation,
    RandomResizedCrop,
    channel_statistics,
    crop_flip,
    draw_part,
    epoch_crops,
    epoch_order,
    normalize,
)


def cut(image, crops, pad_mode="reflect", padding=1):
    """Run `crop_flip` on one (height, width) image."""
    image = np.asarray(image, np.uint8)
    result = crop_flip(
        tf.constant(image[np.newaxis, ..., np.newaxis]),
        tf.constant([crops], tf.int32),
        Augmentation(padding, pad_mode, True),
    )
    return result.numpy()[0, ..., 0].tolist()


IMAGE = [[1, 2, 3], [4, 5, 6]]


# Padded by reflection:  5 4 5 6 5    with zeros:  0 0 0 0 0
#                        2 1 2 3 2                 0 1 2 3 0
#                        5 4 5 6 5                 0 4 5 6 0
#                        2 1 2 3 2                 0 0 0 0 0
@pytest.mark.parametrize(
    ("crops", "pad_mode", "expected"),
    [
        ([1, 1, 0], "reflect", [[1, 2, 3], [4, 5, 6]]),
        ([1, 1, 1], "reflect", [[3, 2, 1], [6, 5, 4]]),
        ([0, 0, 0], "reflect", [[5, 4, 5], [2, 1, 2]]),
        ([2, 2, 0], "reflect", [[5, 6, 5], [2, 3, 2]]),
        ([0, 2, 1], "reflect", [[5, 6, 5], [2, 3, 2]]),
        ([2, 0, 1], "reflect", [[5, 4, 5], [2, 1, 2]]),
        ([0, 0, 0], "zero", [[0, 0, 0], [0, 1, 2]]),
        ([0, 0, 1], "zero", [[0, 0, 0], [2, 1, 0]]),
        ([2, 2, 0], "zero", [[5, 6, 0], [0, 0, 0]]),
        ([2, 2, 1], "zero", [[0, 6, 5], [0, 0, 0]]),
        ([1, 1, 1], "zero", [[3, 2, 1], [6, 5, 4]]),
    ],
)
def test_crop_and_flip_give_the_pixels_computed_by_hand(crops, pad_mode, expected):
    assert cut(IMAGE, crops, pad_mode) == expected


@pytest.mark.parametrize("pad_mode", ["reflect", "zero"])
def test_a_batch_equals_pad_slice_and_flip_in_numpy(pad_mode):
    random = np.random.RandomState(3)
    images = random.randint(1, 256, (5, 7, 10, 3)).astype(np.uint8)
    crops = np.array([[0, 0, 0], [8, 8, 1], [4, 4, 0], [1, 7, 1], [6, 2, 0]], np.int32)
    result = crop_flip(
        tf.constant(images),
        tf.constant(crops),
        Augmentation(4, pad_mode, True),
    )
    mode = {"reflect": "reflect", "zero": "constant"}[pad_mode]
    for got, image, (top, left, flip) in zip(result, images, crops, strict=True):
        padded = np.pad(image, [(4, 4), (4, 4), (0, 0)], mode=mode)
        expected = padded[top : top + 7, left : left + 10]
        expected = expected[:, ::-1] if flip else expected
        np.testing.assert_array_equal(got, expected)


def test_every_crop_offset_and_flip_is_drawn_equally_often():
    crops = epoch_crops(40_000, 0, 0, Augmentation(4, "reflect", True)).numpy()
    for column, values in zip(crops.T, (9, 9, 2), strict=True):
        share = np.bincount(column, minlength=values) / len(column)
        assert len(share) == values
        np.testing.assert_allclose(share, 1 / values, atol=0.008)
    assert abs(np.corrcoef(crops.T) - np.eye(3)).max() < 0.03


def test_crops_without_flip_never_flip():
    crops = epoch_crops(500, 0, 0, Augmentation(2, "reflect", False)).numpy()
    assert crops[:, 2].max() == 0
    assert crops[:, :2].max() == 4


def test_crops_and_order_depend_on_seed_and_epoch_and_on_nothing_else():
    settings = Augmentation(4, "reflect", True)

    def draw(seed, epoch):
        return (
            epoch_crops(64, seed, tf.constant(epoch, tf.int64), settings).numpy(),
            epoch_order(64, seed, tf.constant(epoch, tf.int64)).numpy(),
        )

    reference = draw(1, 2)
    tf.random.set_seed(99)
    np.random.seed(99)
    for one, other in zip(reference, draw(1, 2), strict=True):
        np.testing.assert_array_equal(one, other)
    for seed, epoch in [(2, 1), (1, 3), (2, 2)]:
        for one, other in zip(reference, draw(seed, epoch), strict=True):
            assert (one != other).any()


def test_the_order_is_an_exact_permutation():
    for epoch in range(3):
        order = epoch_order(1001, 5, epoch).numpy()
        assert sorted(order.tolist()) == list(range(1001))
        # Shuffled over the whole set: far from the identity everywhere.
        assert abs(np.corrcoef(order, np.arange(1001))[0, 1]) < 0.15


def test_the_random_stream_stays_what_it_is():
    # Golden values: a change of them breaks the resumption of runs begun before it.
    crops = epoch_crops(3, 0, 0, Augmentation(4, "reflect", True)).numpy()
    assert crops.tolist() == [[7, 2, 0], [8, 5, 0], [3, 6, 0]]
    assert epoch_order(6, 0, 0).numpy().tolist() == [3, 0, 4, 1, 5, 2]


def test_normalisation_is_that_of_the_formula():
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (2, 3, 5, 3)).astype(np.uint8)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 1.0)
    expected = (images.astype(np.float64) / 255 - mean) / std
    result = normalize(tf.constant(images), mean, std)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_channel_statistics_are_those_of_float64_numpy():
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (11, 4, 5, 3)).astype(np.uint8)
    images[..., 1] //= 3
    images[..., 2] = 51
    mean, std = channel_statistics([images[:4], images[4:8], images[8:]])
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], scaled.std((0, 1, 2))[:2], rtol=1e-12)
    assert mean[2] == pytest.approx(0.2)
    assert std[2] == 1.0  # A channel that never changes is centred, not divided by 0.


# Random parts -------------------------------------------------------------------------


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


def test_the_random_stream_of_parts_stays_what_it_is():
    # Golden values: a change of them breaks the resumption of runs begun before it.
    settings = RandomResizedCrop()
    parts = [draw_part(settings, 0, 0, i, (375, 500)).tolist() for i in range(3)]
    assert parts == [
        [38, 19, 140, 121, 1],
        [39, 27, 266, 278, 1],
        [0, 78, 372, 392, 1],
    ]
