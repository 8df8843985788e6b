"""Sets of tensorflow-datasets by name, and real CIFAR-100."""

import os

import numpy as np
import pytest
import tensorflow as tf
from prepared_sets import CLASSES, examples, prepare

from afd_tf import data
from afd_tf.data.augmentation import normalize


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    flat, ragged = (6, 6, 3), (None, None, 1)
    part = {"train": examples(30, flat), "test": examples(7, flat)}
    prepare(root, "small_set", flat, **part)
    prepare(root, "array_set", flat, file_format="array_record", **part)
    prepare(root, "parquet_set", flat, file_format="parquet", **part)
    prepare(root, "plain_set", flat, supervised=False, **part)
    prepare(root, "lonely_set", flat, train=examples(30, flat))
    sides = {"train": examples(9, ragged), "validation": examples(4, ragged)}
    prepare(root, "ragged_set", ragged, **sides)
    unlabelled = examples(5, flat, lambda index: -1 if index == 3 else 0)
    prepare(root, "unlabelled_set", flat, train=examples(9, flat), test=unlabelled)
    prepare(root, "mnist", flat, **part)
    return root


def load(name, batch_size, root, **options):
    options = {"mean": 0.0, "std": 1 / 255, "augmentation": False, **options}
    return data.load(name, batch_size, data_dir=root, **options)


def all_images(dataset):
    return np.concatenate([images.numpy() for images, _ in dataset])


def listing(root):
    return sorted(str(path) for path in root.rglob("*"))


def test_a_prepared_set_is_found_by_name_and_left_as_it_is(prepared):
    before = listing(prepared)
    train, test, info = load("small_set", 8, prepared)
    assert listing(prepared) == before
    assert (info.name, info.num_classes) == ("small_set", 3)
    assert info.class_names == tuple(CLASSES)
    assert (info.train_examples, info.test_examples) == (30, 7)
    assert info.description.endswith("small_set/1.2.3")
    first = np.rint(all_images(test)[:, 0, 0, 0]).astype(int)
    labels = np.concatenate([y for _, y in test])
    assert sorted(first) == list(range(7))
    np.testing.assert_array_equal(first % 3, labels)
    for images, labels in train:
        first = np.rint(images.numpy()[:, 0, 0, 0]).astype(int)
        np.testing.assert_array_equal(first % 3, labels)


def test_the_folder_can_come_from_the_environment(prepared, monkeypatch):
    monkeypatch.setenv("AFD_TFDS_DIR", str(prepared))
    assert load("small_set:1.2.3", 8, None)[2].train_examples == 30
    with pytest.raises(ValueError, match=r"`name`.*small_set:2"):
        load("small_set:2.0.0", 8, None)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small_set", {}),
        ("lonely_set", {"validation": 0.2}),
        ("small_set", {"image_size": (5, 4), "channels": 1}),
    ],
)
def test_records_decoded_on_demand_are_those_in_memory(prepared, name, options):
    options = {"augmentation": True, "padding": 2, **options}
    stored = load(name, 8, prepared, **options)
    decoded = load(name, 8, prepared, memory_limit=0, **options)
    assert stored[2].in_memory
    assert not decoded[2].in_memory
    for pair in zip(stored[:2], decoded[:2], strict=True):
        assert pair[0].cardinality() == pair[1].cardinality()
        for _ in range(2):
            for (x, y), (u, v) in zip(*pair, strict=True):
                np.testing.assert_array_equal(x, u)
                np.testing.assert_array_equal(y, v)


def test_statistics_of_a_set_on_demand_are_those_of_its_images(prepared):
    options = {"mean": None, "std": None}
    stored = load("small_set", 8, prepared, **options)[2]
    decoded = load("small_set", 8, prepared, memory_limit=0, **options)[2]
    assert (stored.mean, stored.std) == (decoded.mean, decoded.std)


def test_a_set_without_test_split_is_evaluated_on_validation_or_split(prepared):
    assert load("ragged_set", 3, prepared, image_size=4)[2].evaluated_split == (
        "validation"
    )
    info = load("lonely_set", 8, prepared)[2]
    assert info.evaluated_split == "test"
    assert (info.train_examples, info.test_examples) == (24, 6)
    with pytest.raises(ValueError, match=r"`test_split`.*'dev'.*\['train'\]"):
        load("lonely_set", 8, prepared, test_split="dev")


def test_images_of_differing_sizes_need_an_image_size(prepared):
    with pytest.raises(ValueError, match="`image_size`"):
        load("ragged_set", 3, prepared)
    assert load("ragged_set", 3, prepared, image_size=4)[2].image_shape == (4, 4, 1)
    shape = load("ragged_set", 3, prepared, image_size=4, channels=3)[2].image_shape
    assert shape == (4, 4, 3)


def test_labels_outside_of_the_classes_are_refused(prepared):
    with pytest.raises(ValueError, match=r"Invalid label.*test split.*label < 3.*-1"):
        load("unlabelled_set", 3, prepared)
    load("unlabelled_set", 3, prepared, validation=0.2)  # Test stays closed.
    _, test, _ = load("unlabelled_set", 3, prepared, memory_limit=0)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(test)
    line = data.reading_error(caught.value)
    assert line.startswith("Invalid label in the test split of unlabelled_set")


def test_digits_and_letters_are_not_mirrored(prepared):
    assert not load("mnist", 8, prepared, augmentation=True)[2].augmentation.flip
    assert load("small_set", 8, prepared, augmentation=True)[2].augmentation.flip
    assert load("mnist", 8, prepared, augmentation=True, flip=True)[2].augmentation.flip


@pytest.mark.parametrize("options", [{}, {"memory_limit": 0}])
def test_array_records_are_read_like_tfrecords(prepared, options):
    train, test, info = load("array_set", 8, prepared, **options)
    assert info.in_memory == (not options)
    assert len(all_images(train)) == 24
    first = np.rint(all_images(test)[:, 0, 0, 0]).astype(int)
    assert sorted(first) == list(range(7))
    labels = np.concatenate([y for _, y in test])
    np.testing.assert_array_equal(first % 3, labels)


def test_a_format_without_access_by_index_is_read_into_memory_only(prepared):
    assert load("parquet_set", 8, prepared)[2].test_examples == 7
    with pytest.raises(ValueError, match=r"`memory_limit`.*parquet"):
        load("parquet_set", 8, prepared, memory_limit=0)


def test_a_set_that_is_no_classification_set_is_refused(prepared):
    with pytest.raises(ValueError, match=r"`name`.*classification set.*plain_set"):
        load("plain_set", 8, prepared)


def test_nothing_is_downloaded_or_left_behind_without_being_allowed(tmp_path):
    with pytest.raises(ValueError, match="`name`") as caught:
        data.load("cifar10", 8, data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "where it was not found" in str(caught.value)
    assert "`download=True`" in str(caught.value)
    assert "--gin_param='load_data.download = True'" in str(caught.value)
    missing = tmp_path / "missing"
    with pytest.raises(ValueError, match="which does not exist") as caught:
        data.load("cifar10_corrupted/fog_1:1.0.0", 8, data_dir=missing)
    assert f"{missing}/cifar10_corrupted/fog_1/1.0.0/" in str(caught.value)
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifr10", "Did you mean 'cifar10'"),
        ("digit", "Did you mean 'digits'"),
        ("image_foldr", "Did you mean 'image_folder'"),
        ("no such/thing here", "Received"),
        ("größe", "Received"),
        ("-x", "Received"),
        ("kaggle:x", "Received"),
    ],
)
def test_an_unknown_name_gives_the_nearest_one(tmp_path, name, hint):
    with pytest.raises(ValueError, match=hint):
        data.load(name, 8, data_dir=tmp_path)


def test_a_folder_without_separator_in_its_name_is_pointed_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"did you mean '\./photos'"):
        data.load("photos", 8)


@pytest.fixture(scope="module")
def cifar100():
    root = os.environ.get("AFD_TFDS_DIR")
    if not root:
        pytest.skip("AFD_TFDS_DIR is not set")
    return data.load("cifar100", 10_000, data_dir=root)


def test_cifar100_has_its_own_statistics(cifar100):
    _, _, info = cifar100
    np.testing.assert_allclose(info.mean, (0.5071, 0.4865, 0.4409), atol=5e-5)
    np.testing.assert_allclose(info.std, (0.2673, 0.2564, 0.2762), atol=5e-5)
    assert (info.train_examples, info.test_examples) == (50_000, 10_000)
    assert info.augmentation == data.Augmentation(4, "reflect", True)
    assert info.class_names[:2] == ("apple", "aquarium_fish")


def test_cifar100_batches_mix_the_classes_and_are_standardised(cifar100):
    train, test, _ = cifar100
    images, labels = next(iter(train))
    assert len(np.unique(labels)) == 100
    assert np.bincount(labels).max() < 150
    np.testing.assert_allclose(np.mean(images, (0, 1, 2)), 0, atol=0.03)
    np.testing.assert_allclose(np.std(images, (0, 1, 2)), 1, atol=0.03)
    (_, every) = next(iter(test))
    assert np.bincount(every).tolist() == [100] * 100


def test_normalize_matches_the_published_constants_of_cifar():
    grey = tf.constant(np.full((1, 1, 1, 3), 128, np.uint8))
    result = normalize(grey, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    np.testing.assert_allclose(result[0, 0, 0], [-0.0192, 0.0603, 0.2211], atol=1e-4)
