"""Random-resized-crop and centre crop, against float64 NumPy."""

import json
import os

import numpy as np
import prepared_sets
import pytest
import tensorflow as tf
from PIL import Image

from afd_tf import data
from afd_tf.cli import train as train_command
from afd_tf.data.augmentation import epoch_order
from afd_tf.data.random_resized_crop import RandomResizedCrop, draw_part
from afd_tf.data.sources.images import Fit, fit_tensor, part_tensor, read_part

RAW = {"mean": 0.0, "std": 1 / 255}


def weights(size, result):
    """Return the triangle filter's (result, size) matrix, widened for fewer pixels."""
    scale = size / result
    centres = (np.arange(result) + 0.5) * scale
    pixels = np.arange(size) + 0.5
    matrix = 1 - np.abs(pixels - centres[:, np.newaxis]) / max(scale, 1.0)
    matrix = np.maximum(matrix, 0)
    return matrix / matrix.sum(axis=1, keepdims=True)


def resized(image, height, width):
    """Resize bilinearly with antialiasing, in float64."""
    rows = weights(image.shape[0], height)
    columns = weights(image.shape[1], width)
    return np.einsum("ri,cj,ijk->rck", rows, columns, image.astype(np.float64))


def part_of(image, part, size):
    top, left, height, width, mirror = part
    result = resized(image[top : top + height, left : left + width], *size)
    return result[:, ::-1] if mirror else result


def centre_of(image, shorter, size):
    height, width = image.shape[:2]
    scaled = (
        height * shorter // min(image.shape[:2]),
        (width * shorter // min(image.shape[:2])),
    )
    image = resized(image, *scaled)
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


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
    for other in ((2, 1, 3), (1, 3, 2), (3, 2, 1), (1, 2, 4)):
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of noise in PNG, and its images in the order of the folder."""
    root = tmp_path_factory.mktemp("noise")
    random = np.random.RandomState(0)
    images = {"train": [], "test": []}
    for split, count in (("train", 7), ("test", 3)):
        for number in range(count):
            image = random.randint(0, 256, (40 + number, 61 - 5 * number, 3))
            image = image.astype(np.uint8)
            path = root / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            images[split].append((number % 2, number, image))
        images[split] = [image for *_, image in sorted(images[split], key=sort_key)]
    return root, images


def sort_key(labelled):
    return labelled[:2]


def load(root, batch_size=3, **options):
    wanted = {"image_size": (12, 16), "crop": "random_resized", "resize": 20, **RAW}
    return data.load(str(root), batch_size, **{**wanted, **options})


def pixels(dataset):
    return np.concatenate([images.numpy() for images, _ in dataset])


def test_training_images_are_the_parts_drawn_resized_and_mirrored(folder):
    root, images = folder
    train, _, info = load(root, seed=4)
    assert info.augmentation == RandomResizedCrop()
    train.position.assign(2)
    for got, index in zip(pixels(train), epoch_order(7, 4, 2).numpy()):
        image = images["train"][index]
        part = draw_part(info.augmentation, 4, 2, index, image.shape[:2])
        expected = part_of(image, part, (12, 16))
        # Pillow rounds between its two passes.
        np.testing.assert_allclose(got, expected, atol=1.01)


def test_evaluated_images_are_the_centre_of_the_resized_image(folder):
    root, images = folder
    for limit in (2**30, 0):
        _, test, _ = load(root, memory_limit=limit)
        for got, image in zip(pixels(test), images["test"], strict=True):
            np.testing.assert_allclose(got, centre_of(image, 20, (12, 16)), atol=1.01)


def test_held_out_images_are_evaluated_like_test_images(folder):
    root, images = folder
    _, held, info = load(root, 2, validation=0.3)
    assert info.evaluated_split == "validation"
    expected = [centre_of(image, 20, (12, 16)) for image in images["train"]]
    for got in pixels(held):
        assert min(np.abs(got - one).max() for one in expected) < 1.01


def test_a_pass_goes_on_in_the_middle_and_batches_do_not_matter(folder):
    root, _ = folder
    train, _, info = load(root, 2)
    assert info.steps_per_epoch == len(list(train)) == 3
    train.position.assign(5)
    whole = pixels(train)
    train.position.assign(5, step=2)
    np.testing.assert_array_equal(pixels(train), whole[4:])
    larger, _, _ = load(root, 3)
    larger.position.assign(5)
    np.testing.assert_array_equal(pixels(larger), whole)
    train.position.assign(6)
    assert (pixels(train) != whole).any()
    assert train.cardinality() == 3


def test_without_augmentation_the_centre_is_trained_on(folder):
    root, images = folder
    train, _, info = load(root, augmentation=False)
    assert info.augmentation is None
    for got, index in zip(pixels(train), epoch_order(7, 0, 0).numpy()):
        expected = centre_of(images["train"][index], 20, (12, 16))
        np.testing.assert_allclose(got, expected, atol=1.01)


def test_a_prepared_set_gives_the_same_parts_and_centres(tmp_path):
    every = prepared_sets.examples(6, (None, None, 3))
    prepared_sets.prepare(
        str(tmp_path), "noises", (None, None, 3), train=every, test=every[:3]
    )
    train, test, info = data.load(
        "noises",
        3,
        data_dir=str(tmp_path),
        image_size=4,
        resize=6,
        crop="random_resized",
        **RAW,
    )
    # tensorflow-datasets stores examples in an order of its own.
    stored = [example["image"] for example in every]
    centres = [centre_of(image, 6, (4, 4)) for image in stored]
    for got in pixels(test):
        assert min(np.abs(got - one).max() for one in centres) < 0.51
    for got, index in zip(pixels(train), epoch_order(6, 0, 0).numpy()):
        parts = [
            part_of(
                image,
                draw_part(info.augmentation, 0, 0, index, image.shape[:2]),
                (4, 4),
            )
            for image in stored
        ]
        assert min(np.abs(got - one).max() for one in parts) < 0.51


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


# Arguments and records ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "random"}, r"`crop`.*'random_resized'.*crop='random'"),
        ({"crop_scale": (0.0, 1.0)}, r"`crop_scale`.*0 < low <= high <= 1"),
        ({"crop_scale": 0.5}, r"`crop_scale`.*crop_scale=0\.5"),
        ({"crop_ratio": (2.0, 1.0)}, r"`crop_ratio`.*0 < low <= high\."),
        ({"crop_ratio": (1.0, float("inf"))}, r"`crop_ratio`"),
        ({"resize": 15}, r"`resize`.*longer side of `image_size`.*\(12, 16\)"),
        ({"resize": 20.0}, r"`resize`.*integer.*resize=20\.0"),
        ({"image_size": None}, r"`resize`.*which is None"),
    ],
)
def test_bad_arguments_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load(folder[0], **options)


def test_the_embedded_digits_have_no_whole_images():
    with pytest.raises(ValueError, match=r"`crop`.*'padded' for 'digits'"):
        data.load("digits", 8, crop="random_resized")
    with pytest.raises(ValueError, match=r"`resize`.*digits"):
        data.load("digits", 8, image_size=16, resize=20)


def test_a_cache_holds_the_evaluated_images_of_each_resize_apart(folder, tmp_path):
    root, images = folder
    for resize in (20, 16):
        _, test, _ = load(root, resize=resize, cache_dir=str(tmp_path))
        expected = [centre_of(image, resize, (12, 16)) for image in images["test"]]
        np.testing.assert_allclose(pixels(test), expected, atol=1.01)
    assert len([name for name in os.listdir(tmp_path) if "lock" not in name]) == 2


def test_what_an_export_says_of_its_images_includes_the_resize(folder):
    assert load(folder[0])[2].preprocessing()["resize"] == 20
    assert "resize" not in load(folder[0], resize=None)[2].preprocessing()


# Real photographs ---------------------------------------------------------------------


@pytest.mark.slow
def test_photographs_are_trained_on_through_the_command(tmp_path, capsys):
    folder = os.environ.get("AFD_IMAGE_FOLDER")
    if not folder:
        pytest.skip("AFD_IMAGE_FOLDER is not set")
    run = tmp_path / "run"
    settings = {
        "networks": ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0"],
        "epochs": 1,
        "batch_size": 256,
        "tensorboard": False,
    }
    arguments = [f"--gin_param=train.{k} = {v!r}" for k, v in settings.items()]
    arguments += [f"--data_dir={folder}", f"--workdir={run}"]
    assert train_command.main(["--gin_file=datasets/photographs", *arguments]) == 0
    results = json.loads((run / "results.json").read_text())
    described = json.loads((run / "checkpoints" / "dataset.json").read_text())
    assert described["image_shape"] == [96, 96, 3]
    assert described["resize"] == 110
    assert described["augmentation"]["scale"] == [0.08, 1.0]
    for network in results["networks"].values():
        assert np.isfinite(network["loss"])
    assert results["step"] == described["train_examples"] // 256
