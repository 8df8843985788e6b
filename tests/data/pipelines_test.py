"""Pipelines of random parts, and of centres, against float64 NumPy."""

import json
import os

import keras
import numpy as np
import prepared_sets
import pytest
from numpy_images import centre_of, part_of
from PIL import Image

from afd_tf import data, networks
from afd_tf.cli import train as train_command
from afd_tf.data.augmentation import RandomResizedCrop, draw_part, epoch_order
from afd_tf.exports import export
from afd_tf.exports.evaluation import evaluate_export

RAW = {"mean": 0.0, "std": 1 / 255}


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
        ({"resize": 20.0}, r"`resize`.*an int.*resize=20\.0"),
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


def test_an_exported_network_is_evaluated_on_images_resized_as_before(folder, tmp_path):
    root, _ = folder
    _, test, info = load(root, mean=0.5, std=0.25)
    assert info.preprocessing()["resize"] == 20
    assert "resize" not in load(root, resize=None)[2].preprocessing()
    network = networks.build("resnet8", 2, info.image_shape)
    export(network, tmp_path / "net.keras", format="keras", preprocessing=info)
    [(images, labels)] = list(test)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    report = evaluate_export(tmp_path / "net.keras", dataset=str(root))
    assert report.loss == pytest.approx(float(loss(labels, network(images))), rel=1e-4)


# Real photographs ---------------------------------------------------------------------


@pytest.mark.slow
def test_photographs_are_trained_on_through_the_command(tmp_path, capsys):
    folder = os.environ.get("AFD_IMAGE_FOLDER")
    if not folder:
        pytest.skip("AFD_IMAGE_FOLDER is not set")
    run = tmp_path / "run"
    settings = {
        "networks": ["shufflenet_v2_x0_5", "shufflenet_v2_x0_5"],
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
