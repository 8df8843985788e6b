"""Processes that each make their own rows make the batches of one process together."""

import numpy as np
import pytest
import tensorflow as tf

from afd_tf.data import pipelines
from afd_tf.data.augmentation import Augmentation
from afd_tf.data.examples import InMemory, OnDemand
from afd_tf.data.share import Share

COUNT = 23
_RNG = np.random.default_rng(0)
IMAGES = _RNG.integers(0, 256, (COUNT, 4, 4, 1)).astype(np.uint8)
LABELS = np.arange(COUNT, dtype=np.int32)
FORMS = {
    "in memory": InMemory(IMAGES, LABELS),
    "on demand": OnDemand(
        COUNT,
        (4, 4, 1),
        lambda row: (tf.gather(IMAGES, row), tf.gather(LABELS, row)),
        lambda: LABELS,
    ),
}
SPLITS = [(1, 1), (2, 1), (3, 1), (2, 2), (2, 3)]  # processes, replicas of each


def training(form):
    settings = (3, Augmentation(1, "zero", True), (0.0,), (1.0,))
    return pipelines.training(FORMS[form], 7, *settings)


def evaluation(form):
    return pipelines.evaluation(FORMS[form], 7, (0.0,), (1.0,))


def shares(dataset, processes, local):
    replicas = processes * local
    return [dataset.share_of(p * local, local, replicas) for p in range(processes)]


def together(parts, local, replicas):
    """Put the batches of replicas together, step by step."""
    batches = [[(x.numpy(), y.numpy()) for x, y in part] for part in parts]
    steps = -(-max(map(len, batches)) // local)
    for step in range(steps):
        pieces = [b for own in batches for b in own[step * local : (step + 1) * local]]
        assert len(pieces) <= replicas
        yield [np.concatenate(values) for values in zip(*pieces)]


def assert_same_batches(dataset, others):
    count = 0
    for (x, y), (u, v) in zip(dataset, others, strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)
        count += 1
    return count


@pytest.mark.parametrize(("processes", "local"), SPLITS)
@pytest.mark.parametrize("form", FORMS)
def test_shares_of_training_make_the_batches_of_one_process(form, processes, local):
    whole = training(form)
    other = training(form)
    parts = shares(other, processes, local)
    for position in [(0, 0), (4, 1)]:
        whole.position.assign(*position)
        steps = 0
        gathered = []
        for part in parts:
            other.position.assign(*position)
            gathered.append(list(part))
        steps = assert_same_batches(whole, together(gathered, local, processes * local))
        assert steps == 3 - position[1]


@pytest.mark.parametrize(("processes", "local"), [*SPLITS, (5, 1), (3, 4)])
@pytest.mark.parametrize("form", FORMS)
def test_shares_of_an_evaluation_hold_every_example_once(form, processes, local):
    whole = evaluation(form)
    parts = shares(whole, processes, local)
    assert assert_same_batches(whole, together(parts, local, processes * local)) == 4


def test_a_process_decodes_its_own_images_only():
    seen = []

    def fetch(row):
        tf.py_function(lambda r: seen.append(int(r)), [row], [])
        return tf.gather(IMAGES, row), tf.gather(LABELS, row)

    examples = OnDemand(COUNT, (4, 4, 1), fetch, lambda: LABELS)
    train = pipelines.training(examples, 6, 0, None, (0.0,), (1.0,))
    own = [y for _, labels in train.share_of(1, 1, 3) for y in labels.numpy()]
    assert len(own) == 3 * 2
    assert sorted(seen) == sorted(own)


def test_a_share_is_cut_as_tensorflow_cuts_a_batch():
    sizes = [Share(i, 1, 3).sizes(7)[0] for i in range(3)]
    assert sizes == [3, 3, 1]
    assert Share(2, 2, 4).sizes(3) == [1, 0]
    assert [Share(i, 1, 3).start(7) for i in range(3)] == [0, 3, 6]
    rows, counts = Share(1, 1, 2).of_batches(7, 3)
    assert rows.tolist() == [2, 5]
    assert counts == [1, 1]
