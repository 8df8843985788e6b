"""The same sequence on one device and split over two."""

import time

import numpy as np
import pytest
import tensorflow as tf

from afd_tf import data

pytestmark = pytest.mark.multi_device


@pytest.fixture
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def gathered(strategy, dataset):
    for images, labels in dataset:
        parts = [
            [part.numpy() for part in strategy.experimental_local_results(values)]
            for values in (images, labels)
        ]
        assert len(parts[0]) == 2
        yield tuple(np.concatenate(part) for part in parts)


def load(strategy=None):
    if strategy is None:
        return data.load("digits", 64, seed=4)
    with strategy.scope():
        return data.load("digits", 64, seed=4)


def test_two_replicas_get_the_halves_of_the_single_devices_batches(strategy):
    single, _, info = load()
    train, _, _ = load(strategy)
    distributed = strategy.experimental_distribute_dataset(train)
    for epoch in range(2):
        count = 0
        for (x, y), (u, v) in zip(single, gathered(strategy, distributed), strict=True):
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y, v)
            count += 1
        assert count == info.steps_per_epoch
        assert train.position.value() == (epoch + 1, 0)


def test_the_position_can_be_assigned_between_distributed_passes(strategy):
    single, _, info = load()
    train, _, _ = load(strategy)
    distributed = strategy.experimental_distribute_dataset(train)
    next(iter(distributed))  # The one that Keras pulls to build a model.
    for position in [(0, 0), (5, info.steps_per_epoch - 3)]:
        single.position.assign(*position)
        train.position.assign(*position)
        pairs = zip(single, gathered(strategy, distributed), strict=True)
        for (x, _), (u, _) in pairs:
            np.testing.assert_array_equal(x, u)


def test_a_distributed_iterator_that_is_never_pulled_from_changes_nothing(strategy):
    train, _, _ = load(strategy)
    iterator = iter(strategy.experimental_distribute_dataset(train))
    time.sleep(0.3)
    assert train.position.value() == (0, 0)
    next(iterator)
    assert train.position.value() == (1, 0)


def test_evaluation_counts_every_example_once_on_two_replicas(strategy):
    _, test, info = load(strategy)
    single = np.concatenate([x.numpy() for x, _ in load()[1]])
    distributed = strategy.experimental_distribute_dataset(test)
    images = np.concatenate([x for x, _ in gathered(strategy, distributed)])
    assert len(images) == info.test_examples
    np.testing.assert_array_equal(images, single)
