"""Damaged and malicious data: named in a line, and nothing of it is left or run."""

import json
import os
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from prepared_sets import examples, prepare
from privileges import without_privileges

from afd_tf import data
from afd_tf.data.readers.tfrecords import masked_crc32c
from afd_tf.errors import Mistake

MEMORY, DEMAND = {}, {"memory_limit": 0}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    shape = (6, 6, 3)
    prepare(root, "a_set", shape, train=examples(30, shape), test=examples(7, shape))
    return root


@pytest.fixture
def copied(prepared, tmp_path):
    """Return the folder of a version of the set, which a test may damage."""
    shutil.copytree(prepared / "a_set", tmp_path / "tfds" / "a_set")
    return tmp_path / "tfds" / "a_set" / "1.2.3"


def read(version, **options):
    """Load a set and use every image of it; return the complaint, one line."""
    return use("a_set", batch_size=8, data_dir=version.parents[1], **options)


def use(name, *, batch_size, **options):
    """Load data and use every image of it; return the complaint, one line."""
    try:
        train, test, _ = data.load(name, batch_size, augmentation=False, **options)
        for dataset in (train, test):
            for _ in dataset:
                pass
    except (Mistake, tf.errors.OpError) as error:
        line = data.reading_error(error) or str(error)
        assert "\n" not in line
        return line
    return None


def shard(version, split="train"):
    (path,) = version.glob(f"*{split}*tfrecord*")
    return path


# Prepared sets


@pytest.mark.parametrize("length", [0, 1, 5000])
def test_the_checksum_is_that_of_tensorflow(tmp_path, length):
    content = np.random.RandomState(length).bytes(length)
    path = tmp_path / "one.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(content)
    written = path.read_bytes()
    header, checksum = written[:8], written[8:12]
    assert masked_crc32c(header) == struct.unpack("<I", checksum)[0]
    assert masked_crc32c(content) == struct.unpack("<I", written[-4:])[0]
    if content:
        changed = bytes([content[0] ^ 1]) + content[1:]
        assert masked_crc32c(changed) != masked_crc32c(content)


@pytest.mark.parametrize(("options", "split"), [(MEMORY, "train"), (DEMAND, "test")])
@pytest.mark.parametrize("place", [3, 9, 40, -2, "lost", "short", "empty"])
def test_a_damaged_file_of_records_is_named(copied, options, split, place):
    path = shard(copied, split)
    content = bytearray(path.read_bytes())
    if place == "lost":
        path.unlink()
    elif place == "short":
        path.write_bytes(content[:-20])
    elif place == "empty":
        path.write_bytes(b"")
    else:
        content[place] ^= 4
        path.write_bytes(content)
    line = read(copied, **options)
    assert line.startswith("Damaged data")
    assert str(path) in line


def test_the_damaged_one_of_several_files_is_named(prepared, tmp_path):
    version = tmp_path / "tfds" / "a_set" / "1.2.3"
    shutil.copytree(prepared / "a_set" / "1.2.3", version)
    records = list(tf.data.TFRecordDataset(str(shard(version))).as_numpy_iterator())
    shard(version).unlink()
    for number in range(3):
        path = version / f"a_set-train.tfrecord-{number:05}-of-00003"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records[10 * number : 10 * number + 10]:
                writer.write(record)
    description = version / "dataset_info.json"
    info = json.loads(description.read_text())
    (train,) = (s for s in info["splits"] if s["name"] == "train")
    train["shardLengths"] = ["10", "10", "10"]
    description.write_text(json.dumps(info))
    assert read(version) is None
    content = bytearray(path.with_name(path.name.replace("2-of", "1-of")).read_bytes())
    content[-30] ^= 1
    path = path.with_name(path.name.replace("2-of", "1-of"))
    path.write_bytes(content)
    for options in (MEMORY, DEMAND):
        assert repr(str(path)) in read(version, **options)


@pytest.mark.parametrize("options", [MEMORY, DEMAND], ids=["memory", "demand"])
def test_whole_records_of_something_else_are_named(copied, options):
    path = shard(copied)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(30):
            writer.write(b"neither an example nor an image")
    for known in ({}, {"mean": 0.5, "std": 0.5}):
        line = read(copied, **options, **known)
        assert line.startswith("Damaged data")
        assert str(path) in line or "an image of" in line


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"splits": 3}', b"[" * 100_000],
)
def test_a_damaged_description_is_named(copied, name, content):
    (copied / name).write_bytes(content)
    line = read(copied)
    if line is None:  # tensorflow-datasets goes without
        pytest.skip("not needed")
    assert str(copied) in line or "a_set" in line
    assert len(line) < 600


def test_a_lost_description_is_named(copied):
    (copied / "dataset_info.json").unlink()
    assert str(copied) in read(copied)


def test_a_wrong_number_of_examples_is_said(copied):
    path = copied / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        split["shardLengths"] = ["29" if split["name"] == "train" else "7"]
    path.write_text(json.dumps(info))
    for options in (MEMORY, DEMAND):
        line = read(copied, **options)
        assert line.startswith(f"Damaged data file {str(shard(copied))!r}")
        assert "it has 30 records, not 29" in line


TRAP = "trap_module.Feature"
IMAGE = "tensorflow_datasets.core.features.image_feature.Image"
LEGACY = {"type": TRAP, "content": {"shape": [6, 6, 3]}}


def with_trap(features, way):
    """Put a class of somebody else's into a description, where tfds would import it."""
    text = json.dumps(features)
    assert IMAGE in text
    name, other = way if isinstance(way, tuple) else ("", way)
    if name == "key":
        return text.replace("pythonClassName", other).replace(IMAGE, TRAP)
    if name == "class":
        return text.replace(other, TRAP)
    features["featuresDict"]["features"]["image"] = other
    return json.dumps(features)


@pytest.mark.parametrize(
    "way",
    [
        ("class", IMAGE),
        ("class", "tensorflow_datasets.core.features.features_dict.FeaturesDict"),
        ("key", "python_class_name"),
        LEGACY,
        {
            "pythonClassName": IMAGE.replace(
                "image_feature.Image", "sequence_feature.Sequence"
            ),
            "jsonFeature": {"json": json.dumps({"feature": LEGACY})},
        },
        {"pythonClassName": IMAGE.replace("image_feature", "no_such_module")},
    ],
    ids=["image", "dict", "spelling", "legacy", "text", "prefix"],
)
@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_a_description_cannot_have_code_imported(
    copied, tmp_path, monkeypatch, file, way
):
    mark = tmp_path / "executed"
    (tmp_path / "trap_module.py").write_text(f"open({str(mark)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    features = with_trap(json.loads((copied / "features.json").read_text()), way)
    if file == "dataset_info.json":
        description = json.loads((copied / file).read_text())
        features = json.dumps({**description, "features": json.loads(features)})
    (copied / file).write_text(features)
    line = read(copied)
    assert not mark.exists()
    assert repr(str(copied / file)) in line
    assert TRAP in line or "no_such_module" in line


def test_features_before_2021_are_read(copied):
    module = "tensorflow_datasets.core.features"
    image = {"shape": [6, 6, 3], "dtype": "uint8", "encoding_format": "png"}
    features = {
        "image": {"type": f"{module}.image_feature.Image", "content": image},
        "label": {
            "type": f"{module}.class_label_feature.ClassLabel",
            "content": {"num_classes": 3},
        },
    }
    whole = {"type": f"{module}.features_dict.FeaturesDict", "content": features}
    (copied / "features.json").write_text(json.dumps(whole))
    assert read(copied) is None


def test_an_absent_version_of_a_set_of_ones_own_is_said(prepared):
    line = use("a_set:9.9.9", data_dir=str(prepared), batch_size=4)
    assert "'a_set:1.2.3'" in line
    assert "Did you mean" not in line


@pytest.mark.parametrize("options", [MEMORY, DEMAND], ids=["memory", "demand"])
@pytest.mark.parametrize("resize", [256, None])
def test_an_image_that_resizing_would_blow_up_is_refused(tmp_path, options, resize):
    bomb = {"image": np.zeros((1, 60_000, 3), np.uint8), "label": 0}
    every = [*examples(3, (None, None, 3)), bomb]
    prepare(tmp_path, "bombs", (None, None, 3), train=every, test=every[:3])
    size = 40 if resize else 2000
    line = use(
        "bombs",
        batch_size=1,
        data_dir=str(tmp_path),
        image_size=size,
        resize=resize,
        mean=0.5,
        std=0.5,
        **options,
    )
    assert "expected at most 67108864 pixels when resized" in line


# Image folders


def paint(path, size=(6, 6), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for split in ("train", "test"):
        for name in "ab":
            for index in range(3):
                paint(root / split / name / f"{index}.png")
    return root


def use_folder(folder, **options):
    """Load a folder and use every image of it; return the complaint, one line."""
    return use(str(folder), batch_size=2, **{"image_size": 6, **options})


def png(width, height):
    """Return a small PNG that claims to be of this size."""

    def chunk(kind, content):
        body = kind + content
        checksum = struct.pack(">I", zlib.crc32(body))
        return struct.pack(">I", len(content)) + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a text",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\nshowpage\n",
        b"\xff\xd8\xff\xe0",
        tf.io.encode_jpeg(np.zeros((40, 40, 3), np.uint8)).numpy()[:300],
        b"GIF89a",
        png(6, 6),
        png(0, 6),
        png(10_000, 10_000),
        png(2**31 - 1, 2**31 - 1),
        png(1, 2**31 - 1),
    ],
)
@pytest.mark.parametrize("options", [MEMORY, DEMAND], ids=["memory", "demand"])
def test_what_is_no_image_is_named(folder, content, options):
    bad = folder / "train" / "a" / "bad.jpg"
    bad.write_bytes(content)
    line = use_folder(folder, **options)
    assert line.startswith(("Corrupt image", "Invalid image"))
    assert repr(str(bad)) in line


@pytest.mark.parametrize("kind", ["ICO", "JPEG2000", "PPM", "TGA"])
def test_only_the_kinds_that_are_named_are_decoded(folder, kind):
    paint(folder / "train" / "a" / "bad.png", format=kind)
    assert "none of JPEG, PNG" in use_folder(folder)


def test_an_image_at_the_limit_is_read_and_one_beyond_is_not(folder, monkeypatch):
    from afd_tf.data import images

    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    paint(folder / "train" / "a" / "x.png", (10, 10))
    assert use_folder(folder) is None
    paint(folder / "train" / "a" / "x.png", (101, 1))
    assert "Expected at most 100 pixels. Received: 101" in use_folder(folder)


def test_an_image_that_resizing_would_blow_up_is_named(folder):
    path = folder / "test" / "b" / "1.png"
    path.write_bytes(png(1, 60_000))
    line = use_folder(folder, resize=256)
    assert f"Invalid image {str(path)!r}. Expected at most 67108864 pixels, " in line
    assert "resized to 256. Received: 3932160000" in line


def test_of_an_animation_the_first_image_counts(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            first, second = (Image.new("L", (6, 6), level) for level in (40, 200))
            path = tmp_path / split / name / "x.gif"
            path.parent.mkdir(parents=True)
            first.save(path, save_all=True, append_images=[second])
    options = {"mean": 0.0, "std": 1 / 255, "augmentation": False}
    _, test, _ = data.load(str(tmp_path), 1, **options)
    for images, _ in test:
        np.testing.assert_allclose(images, 40, atol=1e-3)


@pytest.mark.parametrize("place", ["train/a/x.png", "train/x", "test"])
@pytest.mark.parametrize("target", ["itself", "nothing"])
def test_links_to_nothing_or_to_themselves_are_named(folder, place, target):
    link = folder / place
    if link.exists():
        shutil.rmtree(link)
    link.symlink_to(link.name if target == "itself" else "nothing")
    line = use_folder(folder)
    assert line.startswith(f"Invalid link {str(link)!r}")


def test_a_link_to_a_folder_above_ends(folder):
    (folder / "train" / "a" / "up").symlink_to("..")
    assert "the folder 'up'" in use_folder(folder)


def test_pipes_are_left_out(folder):
    os.mkfifo(folder / "train" / "a" / "pipe.jpg")
    assert use_folder(folder) is None


def test_a_file_that_vanishes_or_changes_after_listing_is_named(folder):
    train, _, _ = data.load(
        str(folder), 6, image_size=6, memory_limit=0, mean=0.5, std=0.5
    )
    victim = folder / "train" / "b" / "2.png"
    for damage in (lambda: victim.write_bytes(b"changed"), victim.unlink):
        damage()
        with pytest.raises(tf.errors.OpError) as caught:
            list(train)
        assert repr(str(victim)) in data.reading_error(caught.value)
    assert data.reading_error(KeyError("elsewhere")) is None


@pytest.mark.parametrize("closed", ["train/a/1.png", "train/b", "train"])
def test_what_cannot_be_read_is_named(closed):
    # Not in tmp_path, whose parents are closed to others.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        root = Path(place) / "photos"
        for name in "ab":
            for index in range(5):
                paint(root / "train" / name / f"{index}.png")
        assert use_folder(root) is None  # also so that all is imported
        os.chmod(root / closed, 0)
        with without_privileges():
            line = use_folder(root)
        os.chmod(root / closed, 0o755)
    assert str(root / closed) in line
    assert "ermission denied" in line
