"""No iterator of ours has the thread that tunes it: who deletes one may wait for it.

But those that a strategy of several replicas makes, one for each: TensorFlow gives its
own no options.
"""

import numpy as np
import prepared_sets
import pytest
import small_runs
import tensorflow as tf
from tensorflow.python.data.ops import iterator_ops

from afd_tf import data
from afd_tf.data import parallelism


@pytest.fixture
def iterated(monkeypatch):
    """The data sets of which iterators are made, as they are made."""
    found = []
    create = iterator_ops.OwnedIterator._create_iterator

    def noted(self, dataset):
        found.append(dataset)
        return create(self, dataset)

    monkeypatch.setattr(iterator_ops.OwnedIterator, "_create_iterator", noted)
    return found


def are_untuned(datasets):
    return [dataset.options().autotune.enabled is False for dataset in datasets]


def test_untuned_keeps_other_options_and_elements():
    options = tf.data.Options()
    options.deterministic = False
    dataset = parallelism.untuned(tf.data.Dataset.range(3).with_options(options))
    assert dataset.options().deterministic is False
    assert are_untuned([dataset]) == [True]
    np.testing.assert_array_equal(list(dataset.as_numpy_iterator()), [0, 1, 2])


def test_a_run_reads_nothing_by_a_tuned_iterator(tmp_path, iterated):
    small_runs.train(tmp_path / "run", epochs=2)
    assert len(iterated) >= 4  # two of training, two of evaluation
    assert all(are_untuned(iterated))


@pytest.mark.parametrize("options", [{}, {"memory_limit": 0}])
def test_no_folder_is_read_by_a_tuned_iterator(tmp_path, iterated, options):
    folder = small_folder(tmp_path)
    train, test, _ = data.load(str(folder), 2, image_size=8, **options)
    for dataset in (train, test):
        for _ in dataset:
            pass
    assert len(iterated) >= 2
    assert all(are_untuned(iterated))


@pytest.mark.parametrize(
    ("file_format", "options"),
    [(None, {}), (None, {"memory_limit": 0}), ("array_record", {}), ("parquet", {})],
)
def test_no_prepared_set_is_read_by_a_tuned_iterator(
    tmp_path, iterated, file_format, options
):
    every = {split: prepared_sets.examples(6, (4, 4, 3)) for split in ("train", "test")}
    prepared_sets.prepare(
        tmp_path, "small_set", (4, 4, 3), file_format=file_format, **every
    )
    del iterated[:]  # what writing the set has read
    train, test, _ = data.load("small_set", 2, data_dir=str(tmp_path), **options)
    for dataset in (train, test):
        for _ in dataset:
            pass
    assert len(iterated) >= 3  # the two, and what was read before them
    assert all(are_untuned(iterated))


def test_shares_and_their_batches_are_untuned_as_well():
    train, test, _ = data.load("digits", 64)
    shares = [dataset.share_of(1, 2, 3) for dataset in (train, test)]
    assert all(are_untuned(shares))


def small_folder(root):
    """Return a folder of four images in each of two classes, for training and test."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in "ab":
            folder = root / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(0, 256, (9, 8, 3)).astype(np.uint8)
                tf.io.write_file(
                    str(folder / f"{number}.png"), tf.io.encode_png(pixels)
                )
    return root / "images"
