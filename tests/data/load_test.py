"""`load` with the embedded digits: pixels, splits, passes, arguments."""

import ast
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from afd_tf import data
from afd_tf.data.augmentation import epoch_crops, epoch_order
from afd_tf.data.readers.digits import double, open_digits
from afd_tf.data.readers.reader import READERS
from afd_tf.data.splits import stratified


def batches(dataset):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(x, u) and np.array_equal(y, v)
        for (x, y), (u, v) in zip(one, other, strict=True)
    )


def plain(batch_size=359, **options):
    return data.load("digits", batch_size, mean=0.0, std=1.0, **options)


def pixels(dataset):
    """Return all images of a `plain` data set as sorted bytes, augmentation off."""
    images = np.concatenate([x for x, _ in batches(dataset)])
    return sorted(np.rint(image * 255).astype(np.uint8).tobytes() for image in images)


def test_doubling_is_bilinear_with_repeated_edges():
    # Along a line a, b: a, (3a + b) / 4, (a + 3b) / 4, b; 16 becomes 255.
    line = double(np.array([[[0, 16]]]))
    assert line.tolist() == [[[0, 64, 191, 255]] * 2]
    checker = double(np.array([[[0, 16], [16, 0]]]))[0]
    assert checker[0].tolist() == [0, 64, 191, 255]
    assert checker[1].tolist() == [64, 96, 159, 191]
    image = load_digits().images[7]
    expected = tf.image.resize(image[..., None], (16, 16), "bilinear")[..., 0]
    got = double(image[np.newaxis])[0] / 255 * 16
    np.testing.assert_allclose(got, expected, atol=0.04)


def test_digits_describe_themselves():
    train, test, info = data.load("digits", 128)
    assert (info.name, info.num_classes, info.image_shape) == (
        "digits",
        10,
        (16, 16, 1),
    )
    assert info.class_names == tuple("0123456789")
    assert info.train_examples + info.test_examples == 1797
    assert info.evaluated_split == "test"
    assert info.steps_per_epoch == info.train_examples // 128
    assert info.augmentation == data.Augmentation(2, "reflect", False)
    assert int(train.cardinality()) == info.steps_per_epoch
    assert train.element_spec == (
        tf.TensorSpec((128, 16, 16, 1), tf.float32),
        tf.TensorSpec((128,), tf.int32),
    )
    assert test.element_spec[0].dtype == tf.float32
    with pytest.raises(AttributeError):
        info.seed = 1


def test_training_images_have_mean_0_and_std_1():
    train, _, info = data.load("digits", 1438, augmentation=False)
    assert info.steps_per_epoch == 1
    (images, _) = batches(train)[0]
    assert images.mean(dtype=np.float64) == pytest.approx(0, abs=1e-5)
    assert images.std(dtype=np.float64) == pytest.approx(1, abs=1e-5)


def test_mean_and_std_can_be_given_and_are_those_of_the_part_trained_on():
    _, _, info = data.load("digits", 8, mean=0.25, std=(0.5,))
    assert (info.mean, info.std) == ((0.25,), (0.5,))
    whole = data.load("digits", 8)[2]
    part = data.load("digits", 8, validation=0.5)[2]
    assert whole.mean != part.mean


def test_test_images_come_once_in_fixed_order_with_the_remainder_last():
    _, test, info = data.load("digits", 128)
    first = batches(test)
    assert [len(y) for _, y in first] == [128, 128, info.test_examples - 256]
    assert same(first, batches(test))
    assert same(first, batches(data.load("digits", 128, seed=3)[1]))
    assert len(set(pixels(plain(100)[1]))) > 350  # A few digits occur twice.


def test_train_and_test_are_a_stratified_partition_of_the_set():
    train, test, info = plain(1438, augmentation=False)
    assert info.steps_per_epoch == 1
    raw = load_digits()
    everything = sorted(image.tobytes() for image in double(raw.images))
    assert sorted(pixels(train) + pixels(test)) == everything
    labels = np.concatenate([y for _, y in batches(test)])
    wanted = np.bincount(raw.target) * 0.2
    assert abs(np.bincount(labels) - wanted).max() <= 1


def test_validation_is_held_out_of_train_and_leaves_the_test_split_closed():
    options = {"augmentation": False, "split_seed": 5}
    whole, test, _ = plain(1438, augmentation=False, split_seed=5)
    train, held, info = plain(1294, validation=0.1, **options)
    assert info.evaluated_split == "validation"
    assert (info.train_examples, info.test_examples) == (1294, 144)
    assert sorted(pixels(train) + pixels(held)) == pixels(whole)
    assert not set(pixels(held)) & set(pixels(test))
    share = np.bincount(np.concatenate([y for _, y in batches(held)]))
    assert share.min() >= 13
    assert share.max() <= 16


def test_validation_never_opens_the_test_split():
    def opened(options):
        def refuse():
            raise AssertionError("the test split was read")

        return dataclasses.replace(open_digits(options), open_test=refuse)

    data.register_reader("guarded", opened)
    try:
        data.load("guarded", 8, validation=0.1)
        with pytest.raises(AssertionError, match="was read"):
            data.load("guarded", 8)
    finally:
        del READERS["guarded"]


def test_runs_with_different_seeds_share_their_splits():
    one, other = (plain(10, seed=seed, validation=0.2)[1] for seed in (0, 1))
    assert pixels(one) == pixels(other)
    assert pixels(one) != pixels(plain(10, validation=0.2, split_seed=1)[1])


def test_same_seed_same_bits_and_another_seed_other_bits():
    one, again, other = (
        batches(data.load("digits", 64, seed=seed)[0]) for seed in (7, 7, 8)
    )
    assert same(one, again)
    assert not same(one, other)


def test_each_pass_is_the_next_epoch_and_any_epoch_can_be_had_directly():
    train, _, info = data.load("digits", 128)
    epochs = [batches(train) for _ in range(4)]
    assert train.position.value() == (4, 0)
    assert not same(epochs[0], epochs[1])
    fresh, _, _ = data.load("digits", 128)
    for epoch in (3, 0, 2):
        fresh.position.assign(epoch)
        assert same(batches(fresh), epochs[epoch])
        assert fresh.position.value() == (epoch + 1, 0)
    assert info.position(3 * info.steps_per_epoch + 2) == (3, 2)


def test_resuming_at_a_step_continues_the_uninterrupted_sequence():
    train, _, info = data.load("digits", 64)
    straight = [batch for _ in range(3) for batch in batches(train)]
    for step in (1, 30, 2 * info.steps_per_epoch - 1, 2 * info.steps_per_epoch):
        resumed, _, _ = data.load("digits", 64)
        resumed.position.assign(*info.position(step))
        tail = []
        while len(tail) < len(straight) - step:
            tail += batches(resumed)
        assert same(tail, straight[step:])


def test_an_iterator_that_is_never_pulled_from_changes_nothing():
    train, _, _ = data.load("digits", 512)
    early = iter(train)
    first = batches(train)
    assert train.position.value() == (1, 0)
    train.position.assign(0)
    images, _ = next(early)  # Reads the position now, not when it was made.
    np.testing.assert_array_equal(images, first[0][0])


def test_keras_fit_sees_one_epoch_after_the_other():
    train, _, info = data.load("digits", 256)
    straight = [y for _ in range(2) for _, y in batches(train)]
    train.position.assign(0)
    seen = []

    class Recorder(keras.Model):
        def train_step(self, batch):
            tf.py_function(lambda y: seen.append(y.numpy()), [batch[1]], [])
            return {"seen": tf.constant(0.0)}

        def call(self, inputs):
            return inputs

    model = Recorder()
    model.compile()
    model.fit(train, epochs=2, shuffle=False, verbose=0)
    assert len(seen) == 2 * info.steps_per_epoch
    for one, other in zip(seen, straight, strict=True):
        np.testing.assert_array_equal(one, other)
    assert train.position.value() == (2, 0)


def test_every_image_is_used_once_per_epoch():
    train, _, info = data.load("digits", 7, augmentation=False, mean=0.0, std=1.0)
    assert info.steps_per_epoch * 7 <= info.train_examples
    whole, _, _ = plain(1438, augmentation=False)
    used, every = pixels(train), pixels(whole)
    assert len(used) == info.steps_per_epoch * 7
    assert not set(used) - set(every)
    assert len(set(every)) - len(set(used)) < 7


def test_the_batch_size_changes_neither_order_nor_augmentation():
    one = batches(data.load("digits", 1)[0])
    seven = batches(data.load("digits", 7)[0])
    images = np.concatenate([x for x, _ in one])
    for start, (x, _) in enumerate(seven):
        np.testing.assert_array_equal(x, images[7 * start : 7 * start + 7])


def test_an_epoch_is_what_its_order_and_table_of_crops_say():
    settings = data.Augmentation(3, "zero", True)
    options = {"seed": 11, "padding": 3, "pad_mode": "zero", "flip": True}
    train, _, info = plain(100, **options)
    assert info.augmentation == settings
    kept, _ = stratified(load_digits().target, 0.2, 0)
    images = double(load_digits().images[kept])
    train.position.assign(6)
    order = epoch_order(1438, 11, 6).numpy()
    crops = epoch_crops(1438, 11, 6, settings).numpy()
    for batch, (got, labels) in enumerate(batches(train)):
        rows = order[100 * batch : 100 * batch + 100]
        np.testing.assert_array_equal(labels, load_digits().target[kept][rows])
        for image, row in zip(got[..., 0], rows, strict=True):
            top, left, flip = crops[row]
            expected = np.pad(images[row], 3)[top : top + 16, left : left + 16]
            expected = expected[:, ::-1] if flip else expected
            np.testing.assert_allclose(image * 255, expected, atol=1e-3)


def test_images_are_augmented_one_by_one():
    settings = {"mean": 0.0, "std": 1.0}
    train, _, _ = data.load("digits", 1438, **settings)
    plain_train, _, _ = data.load("digits", 1438, augmentation=False, **settings)
    (augmented, labels), (original, same_labels) = (
        batches(train)[0],
        batches(plain_train)[0],
    )
    np.testing.assert_array_equal(labels, same_labels)
    found = set()
    for got, image in zip(augmented[..., 0], original[..., 0], strict=True):
        padded = np.pad(image, 2, mode="reflect")
        found.add(
            next(
                (top, left)
                for top in range(5)
                for left in range(5)
                if np.array_equal(got, padded[top : top + 16, left : left + 16])
            )
        )
    assert len(found) == 25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size`.*an int >= 1"),
        ({"batch_size": 2.0}, "`batch_size`"),
        ({"batch_size": True}, "`batch_size`"),
        ({"batch_size": 1439}, "`batch_size`.*at most 1438.*1439"),
        ({"batch_size": 1438, "validation": 0.1}, "`batch_size`.*at most 1294"),
        ({"seed": -1}, "`seed`"),
        ({"seed": None}, "`seed`"),
        ({"split_seed": 2**32}, "`split_seed`"),
        ({"validation": 1.0}, "`validation`"),
        ({"validation": -0.1}, "`validation`"),
        ({"validation": float("nan")}, "`validation`"),
        ({"validation": 1e-9}, "`validation`.*at least one"),
        ({"test_fraction": 0.0}, "`test_fraction`"),
        ({"padding": 16}, "`padding`.*less than the shorter side, 16"),
        ({"padding": -1}, "`padding`"),
        ({"pad_mode": "edge"}, "`pad_mode`.*reflect"),
        ({"mean": (0.1, 0.2)}, "`mean`"),
        ({"mean": "white"}, "`mean`"),
        ({"std": 0}, "`std`.*positive"),
        ({"channels": 2}, "`channels`"),
        ({"image_size": 32}, "`image_size`.*16 for digits"),
        ({"image_size": (16,)}, "`image_size`"),
        ({"memory_limit": -1}, "`memory_limit`"),
        ({"test_split": "train"}, "`test_split`"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        data.load("digits", **{"batch_size": 8, **options})


@pytest.mark.parametrize("name", ["", "   ", None, 3])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="`name`"):
        data.load(name, 8)


@pytest.mark.parametrize(("epoch", "step"), [(-1, 0), (0, -1), (0, 11)])
def test_a_position_outside_of_the_run_is_refused(epoch, step):
    train, _, _ = data.load("digits", 128)
    with pytest.raises(ValueError, match="`epoch`" if epoch < 0 else "`step`"):
        train.position.assign(epoch, step)


def test_three_channels_on_request():
    _, test, info = plain(channels=3)
    assert info.image_shape == (16, 16, 3)
    images = batches(test)[0][0]
    np.testing.assert_array_equal(images[..., 0], images[..., 2])


@pytest.mark.slow
def test_importing_data_adds_little_to_tensorflow_and_keras():
    program = (
        "import sys, tensorflow, keras; before = set(sys.modules); "
        "import afd_tf, afd_tf.data; "
        "print(sorted({n.split('.')[0] for n in set(sys.modules) - before}"
        " - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    added = set(ast.literal_eval(done.stdout)) - {"keras", "tensorflow"}
    # Of what the package requires, only the checksum, a small extension.
    assert added == {"afd_tf", "google_crc32c"}
