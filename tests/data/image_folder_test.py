"""Image folders: layouts, sizes, odd files and what is refused."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afd_tf import data
from afd_tf.data import splits

RED, GREEN = (200, 0, 0), (0, 180, 0)


def paint(path, color=RED, size=(6, 6), **options):
    """Write an image of one colour; `size` is (width, height)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = options.pop("mode", "RGB")
    Image.new("RGB", size, color).convert(mode).save(path, **options)
    return path


def populate(folder, counts, size=(6, 6)):
    """Write `counts[name]` different images per class, each of one grey level."""
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            level = 60 * number + index
            paint(folder / name / f"{index:03}.png", (level,) * 3, size)


def load(folder, batch_size=2, **options):
    options = {"mean": 0.0, "std": 1 / 255, "augmentation": False, **options}
    return data.load(str(folder), batch_size, **options)


def all_images(dataset):
    return np.concatenate([images.numpy() for images, _ in dataset])


def all_labels(dataset):
    return np.concatenate([labels.numpy() for _, labels in dataset])


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    populate(root / "train", {"cat": 6, "dog": 4})
    populate(root / "test", {"cat": 3, "dog": 2})
    return root


def test_train_and_test_folders_are_read_as_they_are(folder):
    train, test, info = load(folder)
    assert (info.name, info.class_names) == ("photos", ("cat", "dog"))
    assert (info.train_examples, info.test_examples) == (10, 5)
    assert info.preprocessing()["dataset"] == "image_folder"
    assert info.image_shape == (6, 6, 3)
    assert info.evaluated_split == "test"
    assert all_labels(test).tolist() == [0, 0, 0, 1, 1]
    levels = np.rint(all_images(test)[:, 0, 0, 0]).astype(int).tolist()
    assert levels == [0, 1, 2, 60, 61]
    for images, labels in train:
        np.testing.assert_array_equal(images.numpy()[:, 0, 0, 0] >= 60, labels == 1)


def test_the_folder_can_be_named_by_data_dir_and_environment(folder, monkeypatch):
    options = {"mean": 0.0, "std": 1.0}
    for name in ("folder", "image_folder"):
        info = data.load(name, 2, data_dir=folder, **options)[2]
        assert info.name == "photos"
    monkeypatch.delenv("AFD_IMAGE_FOLDER", raising=False)
    with pytest.raises(ValueError, match=r"`data_dir`.*image folder"):
        data.load("folder", 2)
    monkeypatch.setenv("AFD_IMAGE_FOLDER", str(folder))
    assert data.load("folder", 2, **options)[2].train_examples == 10


@pytest.mark.parametrize("name", ["validation", "val"])
def test_a_validation_folder_is_evaluated_where_there_is_no_test_or_on_request(
    folder, name
):
    populate(folder / name, {"cat": 1, "dog": 2})
    assert load(folder)[2].evaluated_split == "test"
    _, evaluated, info = load(folder, test_split="validation")
    assert (info.evaluated_split, info.test_examples) == ("validation", 3)
    os.rename(folder / "test", folder / ".test")
    _, evaluated, info = load(folder)
    assert (info.evaluated_split, info.test_examples) == ("validation", 3)
    assert all_labels(evaluated).tolist() == [0, 1, 1]


def test_a_split_that_is_not_there_is_refused(folder):
    for wanted in ("validation", "dev"):
        with pytest.raises(ValueError, match=r"`test_split`.*Received.*" + wanted):
            load(folder, test_split=wanted)


@pytest.mark.parametrize("above", ["", "train"])
def test_class_folders_alone_are_split_stratified(tmp_path, above):
    populate(tmp_path / above, {"cat": 20, "dog": 10})
    train, test, info = load(tmp_path, 24, test_fraction=0.2)
    assert (info.train_examples, info.test_examples) == (24, 6)
    assert np.bincount(all_labels(test)).tolist() == [4, 2]
    levels = [set(all_images(part)[:, 0, 0, 0].tolist()) for part in (train, test)]
    assert len(levels[0] | levels[1]) == 30
    again = load(tmp_path, 24, seed=5)[1]
    np.testing.assert_array_equal(all_images(test), all_images(again))


def test_a_class_too_small_to_split_is_named_with_what_it_needs(tmp_path, caplog):
    populate(tmp_path / "none", {"cat": 1, "dog": 1})
    message = r"`test_fraction`.*0\.2, and of class 'cat' 1 of the 5 examples"
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "none")
    populate(tmp_path / "some", {"ant": 5, "cat": 1, "dog": 10})
    _, test, _ = load(tmp_path / "some")
    assert sorted(all_labels(test)) == [0, 2, 2]
    assert (
        "for one to be tested on: 'cat' (1). At test_fraction=0.2 a class needs 5."
        in (caplog.text)
    )
    with pytest.raises(ValueError, match=r"`validation`.*'cat' 1 of the 100 examples"):
        load(tmp_path / "some", validation=0.01)


@pytest.mark.parametrize(("fraction", "needed"), [(0.2, 5), (0.3, 4), (0.9, 2)])
def test_the_examples_that_a_class_needs_are_enough(fraction, needed):
    assert splits.examples_needed(fraction) == needed
    for seed in range(3):
        _, held = splits.stratified(np.repeat([0, 1], [needed, 30]), fraction, seed)
        assert held.min() < needed


def test_a_class_may_be_called_train(tmp_path):
    populate(tmp_path, {"plane": 5, "train": 5})
    assert load(tmp_path)[2].class_names == ("plane", "train")


def test_validation_of_a_folder_does_not_open_the_test_images(folder):
    (folder / "test" / "cat" / "broken.png").write_bytes(b"no image")
    assert load(folder, validation=0.2)[2].evaluated_split == "validation"
    with pytest.raises(ValueError, match=r"Corrupt image .*broken\.png"):
        load(folder)


def test_odd_names_are_read_and_hidden_ones_left_out_with_a_warning(tmp_path, caplog):
    for name in ("a b", "-dash", "größe", "猫", "semi;colon'\"", "new\nline"):
        paint(tmp_path / name / "- ünï cödé (1).JPG")
        paint(tmp_path / name / "two.jpeg")
    paint(tmp_path / ".hidden" / "x.png")
    paint(tmp_path / "a b" / ".DS_Store.png")
    (tmp_path / "a b" / "notes.txt").write_text("not an image")
    with caplog.at_level(logging.WARNING):
        _, _, info = load(tmp_path, test_fraction=0.5)
    names = ["-dash", "a b", "größe", "猫", "semi;colon'\"", "new\nline"]
    assert info.class_names == tuple(sorted(names))
    assert info.train_examples + info.test_examples == 12
    for left_out in (".hidden", ".DS_Store.png", "notes.txt"):
        assert left_out in caplog.text


def test_a_file_is_decoded_by_content_not_by_extension(tmp_path):
    populate(tmp_path / "train", {"a": 2, "b": 2})
    for label in "ab":
        paint(tmp_path / "test" / label / "inside.jpg", (7, 8, 9), format="PNG")
    images = all_images(load(tmp_path)[1])
    assert np.rint(images[:, 0, 0]).astype(int).tolist() == [[7, 8, 9]] * 2


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "png"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "gif"), ("1", "png")],
)
def test_every_colour_mode_becomes_the_channels_asked_for(tmp_path, mode, name):
    for label in "ab":
        for index in range(2):
            paint(tmp_path / label / f"{index}.{name}", (255, 255, 255), mode=mode)
    for channels in (1, 3):
        _, test, info = load(tmp_path, test_fraction=0.5, channels=channels)
        assert info.image_shape == (6, 6, channels)
        np.testing.assert_allclose(all_images(test), 255, atol=2)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    for label in "ab":
        for index in range(2):
            deep = np.full((4, 4), 257 * 100, np.uint16)
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(deep).save(tmp_path / label / f"{index}.png")
    _, test, _ = load(tmp_path, test_fraction=0.5)
    np.testing.assert_allclose(all_images(test), 100, atol=1e-3)


def test_images_are_turned_the_way_the_camera_was_held(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # To be shown turned clockwise: the left half is the upper one.
    halves = np.zeros((16, 32, 3), np.uint8)
    halves[:, :16] = 200
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(2):
            path = tmp_path / label / f"{index}.jpg"
            Image.fromarray(halves).save(path, exif=exif)
    _, test, info = load(tmp_path, test_fraction=0.5)
    assert info.image_shape == (32, 16, 3)
    expected = np.repeat([200, 0], 16)[:, np.newaxis] * np.ones(16)
    np.testing.assert_allclose(all_images(test)[0, ..., 0], expected, atol=3)


def test_differing_sizes_need_an_image_size(tmp_path):
    for split in ("train", "test"):
        populate(tmp_path / split, {"a": 2, "b": 2})
    paint(tmp_path / "train" / "b" / "wide.png", size=(12, 6))
    with pytest.raises(ValueError, match=r"`image_size`.*\(6, 6\).*\(6, 12\)"):
        load(tmp_path)
    assert load(tmp_path, image_size=4)[2].image_shape == (4, 4, 3)
    assert load(tmp_path, image_size=(4, 2))[2].image_shape == (4, 2, 3)


def test_resizing_covers_the_size_and_keeps_the_centre(tmp_path):
    # Three vertical stripes, 4 pixels each; the middle one is the centre square.
    stripes = np.zeros((4, 12, 3), np.uint8)
    stripes[:, :4], stripes[:, 4:8], stripes[:, 8:] = 10, 120, 240
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(2):
            Image.fromarray(stripes).save(tmp_path / label / f"{index}.png")
    _, test, _ = load(tmp_path, image_size=2, test_fraction=0.5)
    # Antialiasing mixes neighbours where the stripes meet.
    np.testing.assert_allclose(all_images(test)[0, :, :, 0], [[120, 120]] * 2, atol=20)
    _, test, _ = load(tmp_path, image_size=(2, 6), test_fraction=0.5)
    expected = [10, 10, 120, 120, 240, 240]
    got = all_images(test)[0, 0, :, 0]
    np.testing.assert_allclose(got, expected, atol=30)


def test_links_inside_are_followed_and_links_out_are_refused(folder, tmp_path):
    inside = folder / "train" / "cat" / "again.png"
    inside.symlink_to(folder / "train" / "cat" / "000.png")
    assert load(folder)[2].train_examples == 11
    outside = paint(tmp_path / "elsewhere" / "x.png")
    link = folder / "train" / "dog" / "link.png"
    link.symlink_to(outside)
    with pytest.raises(ValueError, match=r"Invalid link .*link\.png"):
        load(folder)
    link.unlink()
    (folder / "train" / "zebra").symlink_to(outside.parent)
    with pytest.raises(ValueError, match=r"Invalid link .*zebra"):
        load(folder)


def test_a_split_that_links_out_of_the_folder_is_refused(folder, tmp_path):
    os.rename(folder / "test", tmp_path / "moved")
    (folder / "test").symlink_to(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"Invalid link .*test"):
        load(folder)


def test_what_is_not_an_image_folder_is_refused(tmp_path, folder):
    with pytest.raises(ValueError, match=r"`name`.*existing image folder"):
        load(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"`data_dir`.*existing image folder"):
        data.load("folder", 2, data_dir=str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="at least two folders"):
        load(tmp_path / "empty")
    (folder / "train" / "eel").mkdir()
    with pytest.raises(ValueError, match=r"eel.*none"):
        load(folder)
    paint(folder / "train" / "eel" / "deeper" / "x.png")
    with pytest.raises(ValueError, match=r"directly inside.*deeper"):
        load(folder)


def test_test_classes_must_be_training_classes(folder):
    paint(folder / "test" / "cow" / "x.png")
    with pytest.raises(ValueError, match=r"classes of train.*cow"):
        load(folder)


def test_a_test_split_may_lack_a_class_and_keeps_the_labels(folder):
    populate(folder / "train", {"ant": 2, "cat": 0})
    _, test, info = load(folder)
    assert info.class_names == ("ant", "cat", "dog")
    assert all_labels(test).tolist() == [1, 1, 1, 2, 2]


def test_test_images_of_another_size_ask_for_an_image_size(folder):
    for path in (folder / "test").rglob("*.png"):
        paint(path, size=(8, 8))
    with pytest.raises(ValueError, match="image_size"):
        load(folder)


def test_images_on_demand_are_those_in_memory(folder):
    options = {"augmentation": True, "padding": 2, "mean": None, "std": None}
    for validation in (0.0, 0.3):
        stored = load(folder, 3, validation=validation, **options)
        decoded = load(folder, 3, validation=validation, memory_limit=0, **options)
        assert stored[2].in_memory
        assert not decoded[2].in_memory
        np.testing.assert_allclose(stored[2].mean, decoded[2].mean)
        assert decoded[0].cardinality() == stored[0].cardinality()
        assert decoded[0].element_spec == stored[0].element_spec
        stored[0].position.assign(2, 1)
        decoded[0].position.assign(2, 1)
        for one, other in zip(stored[:2], decoded[:2], strict=True):
            for (x, y), (u, v) in zip(one, other, strict=True):
                np.testing.assert_array_equal(x, u)
                np.testing.assert_array_equal(y, v)
        assert decoded[0].position.value() == (3, 0)


def test_real_photographs_of_differing_sizes():
    root = os.environ.get("AFD_IMAGE_FOLDER")
    if not root:
        pytest.skip("AFD_IMAGE_FOLDER is not set")
    train, test, info = data.load(root, 32, image_size=32)
    images, labels = next(iter(train))
    assert images.shape == (32, 32, 32, 3)
    assert info.num_classes == len(info.class_names) > 1
    assert 0.2 < np.mean(info.mean) < 0.8
    assert len(all_labels(test)) == info.test_examples
    lazy, _, _ = data.load(root, 32, image_size=32, memory_limit=0, mean=0.5, std=0.25)
    same, _, _ = data.load(root, 32, image_size=32, mean=0.5, std=0.25)
    np.testing.assert_array_equal(next(iter(lazy))[0], next(iter(same))[0])
    np.testing.assert_array_equal(next(iter(lazy))[1].shape, labels.shape)
