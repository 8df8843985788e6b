"""Decoded images on disk: the same batches, written once, whole or not at all."""

import json
import os
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from prepared_sets import examples, prepare

from afd_tf import data

SHAPE = (5, 7, 3)  # 105 bytes an image: no whole number of words.


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    part = {"train": examples(30, SHAPE), "test": examples(7, SHAPE)}
    prepare(root, "small_set", SHAPE, **part)
    prepare(root, "parquet_set", SHAPE, file_format="parquet", **part)
    prepare(root, "lonely_set", SHAPE, train=examples(30, SHAPE))
    return root


@pytest.fixture
def photos(tmp_path):
    random = np.random.RandomState(0)
    for split, count in (("train", 9), ("test", 4)):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                image = random.randint(0, 256, (9 + index, 8, 3)).astype(np.uint8)
                Image.fromarray(image).save(folder / f"{index}.png")
    return tmp_path / "photos"


def load(name, folder=None, **options):
    options = {"padding": 2, "pad_mode": "zero", "seed": 3, **options}
    return data.load(str(name), 4, cache_dir=folder, **options)


def load_photos(photos, folder, **options):
    return load(photos, folder, **{"image_size": 8, "memory_limit": 0, **options})


def batches(dataset):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def assert_same(one, other):
    assert (one[2].mean, one[2].std) == (other[2].mean, other[2].std)
    for left, right in zip(one[:2], other[:2], strict=True):
        assert left.element_spec == right.element_spec
        assert left.cardinality() == right.cardinality()
        for _ in range(2):
            for (x, y), (u, v) in zip(left, right, strict=True):
                np.testing.assert_array_equal(x, u)
                np.testing.assert_array_equal(y, v)


def entries(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def entry_of(folder, what):
    (found,) = folder.glob(f"*{what}*")
    return found


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small_set", {}),
        ("small_set", {"validation": 0.2, "pad_mode": "reflect"}),
        ("small_set", {"image_size": (4, 6), "channels": 1, "augmentation": False}),
        ("lonely_set", {"validation": 0.2}),
    ],
)
def test_batches_are_the_same_with_and_without_the_cache(
    prepared, tmp_path, name, options
):
    options = {"data_dir": prepared, **options}
    for limit in (0, 2**30):
        plain = load(name, memory_limit=limit, **options)
        for _ in range(2):  # First written, then read.
            cached = load(name, tmp_path, memory_limit=limit, **options)
            assert cached[2].in_memory == bool(limit)
            assert_same(plain, cached)
            plain[0].position.assign(0)
    assert not list(tmp_path.glob("*.partial*"))
    assert not list(tmp_path.glob("*.lock"))


def test_photographs_are_the_same_with_and_without_the_cache(photos, tmp_path):
    options = {"image_size": 8, "memory_limit": 0, "flip": True}
    plain, cached = (
        load(photos, folder, **options) for folder in (None, tmp_path / "c")
    )
    plain[0].position.assign(2, 1)
    cached[0].position.assign(2, 1)
    assert_same(plain, cached)
    assert len(entries(tmp_path / "c")) == 2


def test_a_format_without_access_by_index_can_be_cached(prepared, tmp_path):
    plain = load("parquet_set", data_dir=prepared)
    cached = load("parquet_set", tmp_path, data_dir=prepared, memory_limit=0)
    assert not cached[2].in_memory
    assert_same(plain, cached)


def test_what_is_in_the_cache_is_not_decoded_again(photos, tmp_path):
    options = {"image_size": 8, "memory_limit": 0}
    folder = tmp_path / "cache"
    before = batches(load(photos, folder, **options)[1])
    path = photos / "test" / "cat" / "0.png"
    state = path.stat()
    path.write_bytes(b"?" * state.st_size)  # Undecodable, and looks the same.
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    for limit in (0, 2**30):
        again = batches(load(photos, folder, **{**options, "memory_limit": limit})[1])
        for (x, y), (u, v) in zip(before, again, strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)


def test_all_that_decides_the_pixels_is_part_of_the_key(photos, tmp_path):
    folder = tmp_path / "cache"
    load_photos(photos, folder)
    known = entries(folder)
    assert len(known) == 2
    for options in ({"image_size": 6}, {"channels": 1}, {"test_split": None}):
        load_photos(photos, folder, **options)
    assert len(entries(folder)) == 6
    path = photos / "train" / "dog" / "3.png"
    Image.fromarray(np.full((12, 8, 3), 77, np.uint8)).save(path)
    assert_same(load_photos(photos, None), load_photos(photos, folder))
    assert len(entries(folder)) == 7
    shutil.copytree(photos, tmp_path / "other" / "photos")
    load_photos(tmp_path / "other" / "photos", folder)
    assert len(entries(folder)) == 9
    assert set(known) <= set(entries(folder))


def test_an_entry_says_what_it_holds(prepared, tmp_path):
    load("small_set", tmp_path, data_dir=prepared)
    entry = entry_of(tmp_path, "train-split-of-small_set")
    identity = json.loads((entry / "entry.json").read_text())["identity"]
    assert identity["set"] == "small_set/1.2.3"
    assert identity["split"] == "train"
    assert identity["shape"] == list(SHAPE)
    images = np.load(entry / "images.npy")
    first = images[:, 0, 0, 0]
    assert sorted(first) == list(range(30))
    np.testing.assert_array_equal(np.load(entry / "labels.npy"), first % 3)


def truncate(entry):
    path = entry / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])


def extend(entry):
    with open(entry / "images.npy", "ab") as file:
        file.write(b"\0")


def relabel(entry):
    labels = np.load(entry / "labels.npy")
    np.save(entry / "labels.npy", labels[::-1])


def empty(entry):
    (entry / "labels.npy").write_bytes(b"")


def replace(entry):
    shutil.rmtree(entry)
    entry.write_text("somebody's notes")


def exchange(entry):
    """Put the entry of other images, a whole one, in this one's place."""
    (other,) = set(entry.parent.glob("*18-images*")) - {entry}
    shutil.rmtree(entry)
    other.rename(entry)


@pytest.mark.parametrize(
    "damage", [truncate, extend, relabel, empty, replace, exchange]
)
def test_a_damaged_or_foreign_entry_is_named(photos, tmp_path, damage):
    folder = tmp_path / "cache"
    load_photos(photos, folder)
    entry = entry_of(folder, "18-images")
    os.utime(photos / "train" / "cat" / "0.png", ns=(0, 0))
    load_photos(photos, folder)
    (entry,) = set(folder.glob("*18-images*")) - {entry}
    damage(entry)
    with pytest.raises(ValueError, match=r"Damaged cache entry.*Delete") as caught:
        load_photos(photos, folder)
    assert str(entry) in str(caught.value)
    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    load_photos(photos, folder)


def test_a_changed_image_is_named_when_it_is_used(photos, tmp_path):
    folder = tmp_path / "cache"
    load_photos(photos, folder)
    path = entry_of(folder, "18-images") / "images.npy"
    content = bytearray(path.read_bytes())
    content[-8 * 8 * 3 * 2 - 5] ^= 1  # A bit of image 15 of 0 to 17.
    path.write_bytes(content)
    train, test, _ = load_photos(photos, folder, mean=0.5, std=0.5)
    batches(test)
    with pytest.raises(tf.errors.OpError) as caught:
        batches(train)
    line = data.reading_error(caught.value)
    assert line.startswith(f"Damaged cache file '{path}': image 15 ")
    with pytest.raises(ValueError, match=r"Damaged cache file.*image 15 "):
        load_photos(photos, folder, memory_limit=2**30)


def test_a_disk_that_is_full_is_an_error_and_leaves_nothing(photos, tmp_path):
    folder = tmp_path / "cache"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system's own refusal: no file may grow beyond this.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
    try:
        with pytest.raises(ValueError, match=r"`cache_dir`.*File too large") as caught:
            load_photos(photos, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(folder) in str(caught.value)
    assert not folder.exists()
    load_photos(photos, folder)
    assert len(entries(folder)) == 2


def test_a_folder_that_cannot_be_written_is_refused(photos, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/cache"):
        with pytest.raises(ValueError, match=r"`cache_dir`.*can be written") as caught:
            load_photos(photos, folder)
        assert str(folder) in str(caught.value)
    for value in (3, "", " ", "gs://bucket/cache"):
        with pytest.raises(ValueError, match="`cache_dir`"):
            load_photos(photos, value)


def test_an_existing_entry_needs_no_permission_to_write(photos, tmp_path):
    folder = tmp_path / "cache"
    before = load_photos(photos, folder)
    listing = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o555)
    assert_same(before, load_photos(photos, folder))
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o755)
    assert listing == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
