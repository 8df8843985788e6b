"""Splits: what is read of their files, and the first images of each class."""

import os

import numpy as np
import pytest

from afd_tf import data
from afd_tf.data.readers import ReaderOptions, open_reader
from afd_tf.data.splits import EncodedSplit, first_of_each_class


def test_rows_are_the_first_of_each_class_in_order():
    labels = np.array([2, 0, 0, 1, 2, 0, 1, 2, 1])
    rows = first_of_each_class(labels, 2, ["a", "b", "c"])
    assert rows.tolist() == [0, 1, 2, 3, 4, 6]


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 0]])
def test_a_class_with_fewer_is_named(labels):
    count = labels.count(1)
    with pytest.raises(ValueError, match=f"at most {count}, .*class 'yes'.*class=2"):
        first_of_each_class(np.array(labels), 2, ["no", "yes"])


@pytest.mark.parametrize("per_class", [0, -1, 1.5, True, "60"])
def test_what_is_no_number_of_images_is_refused(per_class):
    with pytest.raises(ValueError, match=r"`per_class`. Expected an int >= 1"):
        data.load("digits", 8, per_class=per_class)


def epoch(train):
    images, labels = zip(*train, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_training_sees_those_images_alone_and_the_test_set_is_whole():
    reader = open_reader(ReaderOptions("digits"))
    labels = reader.train.labels
    expected = np.concatenate([np.flatnonzero(labels == c)[:7] for c in range(10)])
    # Every image of an epoch, so that none can hide.
    train, test, info = data.load(
        "digits", 70, per_class=7, augmentation=False, mean=0.0, std=1.0
    )
    images, seen = epoch(train)
    assert np.bincount(seen).tolist() == [7] * 10

    def in_some_order(pixels):
        return sorted(np.round(255 * np.asarray(p, float)).tobytes() for p in pixels)

    wanted = reader.train.images[expected] / 255
    assert in_some_order(images) == in_some_order(wanted)
    assert (info.train_examples, info.steps_per_epoch) == (70, 1)
    assert info.test_examples == len(reader.open_test())
    assert sum(len(y) for _, y in test) == info.test_examples


def test_statistics_are_of_those_images():
    reader = open_reader(ReaderOptions("digits"))
    labels = reader.train.labels
    rows = np.concatenate([np.flatnonzero(labels == c)[:3] for c in range(10)])
    pixels = reader.train.images[rows].astype(np.float64) / 255
    _, _, info = data.load("digits", 30, per_class=3)
    assert info.mean[0] == pytest.approx(pixels.mean(), rel=1e-6)
    assert info.std[0] == pytest.approx(pixels.std(), rel=1e-6)


def test_a_validation_split_is_taken_of_them():
    train, held, info = data.load("digits", 8, per_class=10, validation=0.2)
    assert (info.train_examples, info.test_examples) == (80, 20)
    assert info.evaluated_split == "validation"
    labels = np.concatenate([y for _, y in held])
    assert np.bincount(labels).tolist() == [2] * 10
    assert len(train) == 10


def test_cifar100_has_sixty_of_each_of_a_hundred():
    root = os.environ.get("AFD_TFDS_DIR")
    if not root:
        pytest.skip("AFD_TFDS_DIR is not set")
    train, test, info = data.load("cifar100", 6000, data_dir=root, per_class=60)
    [(_, labels)] = list(train)
    assert np.bincount(labels).tolist() == [60] * 100
    assert (info.train_examples, info.test_examples) == (6000, 10_000)
    del test


class Pieces(EncodedSplit):
    """Six examples, decoded in two pieces."""

    where, count, image_shape, num_classes = "the x of y", 6, (2, 2, 1), 3

    def __init__(self, second=3, label=0, error=None):
        self._second, self._label, self._error = second, label, error

    def decode(self):
        yield np.full((3, 2, 2, 1), 7, np.uint8), np.zeros(3, np.int64)
        if self._error:
            raise self._error
        images = np.full((self._second, 2, 2, 1), 9, np.uint8)
        yield images, np.full(self._second, self._label)

    def on_demand(self):
        raise AssertionError("decoded on demand")

    def files_digest(self):
        return "digest of the files"


def test_pieces_are_put_together_up_to_the_limit():
    examples = Pieces(label=2).examples(memory_limit=6 * 4)
    assert examples.images[:, 0, 0, 0].tolist() == [7, 7, 7, 9, 9, 9]
    assert examples.labels.tolist() == [0, 0, 0, 2, 2, 2]
    for options in ({"memory_limit": 6 * 4 - 1}, {"memory_limit": 100, "parts": True}):
        with pytest.raises(AssertionError, match="on demand"):
            Pieces().examples(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": 3}, "Invalid label in the x of y.*Received: 3 at example 3"),
        ({"second": 2}, "Expected 6 examples. Received: 5"),
        ({"second": 4}, "Expected 6 examples. Received: more"),
        ({"error": ValueError("Corrupt image")}, "Corrupt image"),
    ],
)
def test_a_split_that_is_not_what_it_says_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Pieces(**options).examples(2**20)
