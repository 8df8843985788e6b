"""The data of a run: its digests, and what is refused when a run goes on."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from prepared_sets import examples, prepare

from afd_tf import data
from afd_tf.errors import InvalidValue
from afd_tf.runs.data_record import data_digest, read_data, record_data
from afd_tf.runs.run_directory import RunDirectory


@pytest.fixture
def photos(tmp_path):
    random = np.random.RandomState(0)
    for split, count in (("train", 5), ("test", 3)):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.randint(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{label}{number}.png")
    return tmp_path / "photos"


def described(folder, **options):
    options = {"mean": 0.5, "std": 0.25, **options}
    return data.load(str(folder), 2, **options)[2]


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.dataset.parent.mkdir(parents=True)
    return run


def test_a_run_goes_on_with_the_data_it_began_with(photos, run):
    record_data(run, described(photos))
    recorded = read_data(run)
    assert recorded["digests"] == described(photos).digests
    assert set(recorded["digests"]) == {"train", "evaluation"}
    # Another place, other times, and other seeds are the same data.
    shutil.copytree(photos, photos.with_name("moved"), copy_function=shutil.copy)
    record_data(run, described(photos.with_name("moved"), seed=3))
    assert read_data(run) == recorded


def swap(photos):
    cat, dog = photos / "train" / "cat" / "cat0.png", photos / "train" / "dog"
    shutil.move(cat, dog)
    shutil.move(dog / "dog0.png", cat.parent)


def replace(photos):
    path = photos / "test" / "dog" / "dog1.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)


def rename(photos):
    os.rename(photos / "test" / "dog" / "dog2.png", photos / "test" / "dog" / "x.png")


@pytest.mark.parametrize("options", [{}, {"image_size": 8, "memory_limit": 0}])
@pytest.mark.parametrize(
    ("change", "split"),
    [(swap, "train"), (replace, "evaluation"), (rename, "evaluation")],
)
def test_images_that_were_moved_or_replaced_are_refused(
    photos, run, change, split, options
):
    record_data(run, described(photos, **options))
    change(photos)
    message = rf"`data_dir`.*Received: other {split} images or labels\.$"
    with pytest.raises(InvalidValue, match=message):
        record_data(run, described(photos, **options))


def test_everything_that_changed_is_named(photos, run):
    record_data(run, described(photos))
    shutil.copytree(photos / "train" / "dog", photos / "train" / "eel")
    message = r"num_classes, class_names, train_examples, train images or labels\.$"
    with pytest.raises(InvalidValue, match=message):
        record_data(run, described(photos))


def test_held_out_images_have_their_digest_without_the_test_split(photos):
    shutil.rmtree(photos / "test" / "cat")
    (photos / "test" / "dog" / "dog0.png").write_bytes(b"no image")
    one, other, whole = (
        described(photos, validation=fraction).digests for fraction in (0.2, 0.4, 0.2)
    )
    assert one == whole
    assert not set(one.values()) & set(other.values())


def test_files_and_labels_of_a_prepared_set_are_told_apart(tmp_path):
    shape = (4, 4, 3)
    digests = []
    for place, name, label in (
        ("a", "one_set", 0),
        ("b", "one_set", 0),
        ("c", "one_set", 1),
        ("d", "other_set", 0),
    ):
        parts = {"train": examples(6, shape, lambda index, label=label: label)}
        parts["test"] = examples(3, shape)
        prepare(tmp_path / place, name, shape, **parts)
        digests.append(
            [
                data.load(name, 2, data_dir=tmp_path / place, **options)[2].digests
                for options in ({}, {"memory_limit": 0, "mean": 0.5, "std": 0.5})
            ]
        )
    same, again, relabelled, other = digests
    assert same == again
    # The files have the same names and sizes, so that labels alone differ.
    for one, two in zip(same, relabelled, strict=True):
        assert one["train"] != two["train"]
        assert one["evaluation"] == two["evaluation"]
    for one, two in zip(same, other, strict=True):
        assert not set(one.values()) & set(two.values())


def test_digits_have_digests_of_their_pixels_and_labels():
    plain, part, coloured = (
        data.load("digits", 8, **options)[2].digests
        for options in ({}, {"per_class": 9}, {"channels": 3})
    )
    assert plain == data.load("digits", 64, seed=5)[2].digests
    assert part["train"] != plain["train"]
    assert part["evaluation"] == plain["evaluation"]
    assert not set(coloured.values()) & set(plain.values())


def test_the_digest_that_records_are_compared_by_stays_what_it_is():
    digest = data_digest(data.load("digits", 64)[2])
    assert digest == "d5f4e0438f425cf982f74751b7b84f106f253a2db400fc0fb84dfa4c69242271"


@pytest.mark.parametrize(
    "change", [{"digests": None}, {"digests": {"train": "a"}}, {"resize": "20"}]
)
def test_a_record_without_digests_is_damaged(photos, run, change):
    record_data(run, described(photos))
    record = json.loads(run.dataset.read_text())
    run.dataset.write_text(json.dumps({**record, **change}))
    with pytest.raises(ValueError, match=r"dataset\.json"):
        read_data(run)
