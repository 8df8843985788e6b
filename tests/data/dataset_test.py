"""The data set as tf.data and Keras take it, and the rows of replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from afd_tf import data
from afd_tf.data import pipelines
from afd_tf.data.augmentation import Augmentation
from afd_tf.data.dataset import ReplicaRows
from afd_tf.data.splits import InMemory, OnDemand

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
        files="",
    ),
}
# Processes and replicas of each; of 6 replicas and 7 rows the last have none.
SPLITS = [("in memory", 3, 1), ("in memory", 2, 2), ("on demand", 2, 3)]


def training(form):
    settings = (3, Augmentation(1, "zero", True), (0.0,), (1.0,))
    return pipelines.training(FORMS[form], 7, *settings)


def evaluation(form):
    return pipelines.evaluation(FORMS[form], 7, (0.0,), (1.0,))


def parts_of(dataset, processes, local):
    replicas = processes * local
    return [dataset.for_replicas(p * local, local, replicas) for p in range(processes)]


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


@pytest.mark.parametrize(("form", "processes", "local"), SPLITS)
def test_rows_of_training_make_the_batches_of_one_process(form, processes, local):
    whole = training(form)
    other = training(form)
    parts = parts_of(other, processes, local)
    for position in [(0, 0), (4, 1)]:
        whole.position.assign(*position)
        steps = 0
        gathered = []
        for part in parts:
            other.position.assign(*position)
            gathered.append(list(part))
        steps = assert_same_batches(whole, together(gathered, local, processes * local))
        assert steps == 3 - position[1]


@pytest.mark.parametrize(
    ("form", "processes", "local"),
    [*SPLITS, ("on demand", 5, 1), ("in memory", 3, 4)],
)
def test_rows_of_an_evaluation_are_every_example_once(form, processes, local):
    whole = evaluation(form)
    parts = parts_of(whole, processes, local)
    assert assert_same_batches(whole, together(parts, local, processes * local)) == 4


def test_a_process_decodes_its_own_images_only():
    seen = []

    def fetch(row):
        tf.py_function(lambda r: seen.append(int(r)), [row], [])
        return tf.gather(IMAGES, row), tf.gather(LABELS, row)

    examples = OnDemand(COUNT, (4, 4, 1), fetch, lambda: LABELS, files="")
    train = pipelines.training(examples, 6, 0, None, (0.0,), (1.0,))
    own = [y for _, labels in train.for_replicas(1, 1, 3) for y in labels.numpy()]
    assert len(own) == 3 * 2
    assert sorted(seen) == sorted(own)


def test_a_batch_is_cut_as_tensorflow_cuts_it():
    sizes = [ReplicaRows(i, 1, 3).sizes(7)[0] for i in range(3)]
    assert sizes == [3, 3, 1]
    assert ReplicaRows(2, 2, 4).sizes(3) == [1, 0]
    assert [ReplicaRows(i, 1, 3).start(7) for i in range(3)] == [0, 3, 6]
    rows, counts = ReplicaRows(1, 1, 2).of_batches(7, 3)
    assert rows.tolist() == [2, 5]
    assert counts == [1, 1]


# As a tf.data.Dataset -----------------------------------------------------------------


@pytest.fixture
def loaded():
    train, test, info = data.load("digits", 64)
    return train, test, info


def test_it_is_a_dataset_with_a_length_and_a_position(loaded):
    train, test, info = loaded
    for dataset in (train, test):
        assert isinstance(dataset, tf.data.Dataset)
        assert isinstance(dataset, data.ImageDataset)
    assert len(train) == int(train.cardinality()) == info.steps_per_epoch
    assert isinstance(train.position, data.EpochPosition)
    assert test.position is None


def test_map_take_and_unbatch_give_its_batches(loaded):
    train, test, _ = loaded
    batches = list(test)
    assert_same_batches(test.map(lambda x, y: (x, y)), batches)
    assert_same_batches(test.take(2), batches[:2])
    assert_same_batches(test.unbatch().batch(64), batches)
    first = list(train.take(3))
    assert train.position.value() == (1, 0)
    train.position.assign(0)
    assert_same_batches(train.map(lambda x, y: (x, y)).take(3), first)


def test_keras_trains_on_it_from_its_position_and_evaluates_it(loaded):
    train, test, info = loaded
    model = keras.Sequential(
        [keras.layers.Input(info.image_shape), keras.layers.Flatten()]
    )
    model.add(keras.layers.Dense(info.num_classes))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    train.position.assign(3)
    model.fit(train, shuffle=False, verbose=0)
    assert train.position.value() == (4, 0)
    kernel, bias = model.get_weights()
    images, labels = (np.concatenate(values) for values in zip(*test, strict=True))
    logits = images.reshape(len(images), -1) @ kernel + bias
    accuracy = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]
    assert accuracy == pytest.approx(np.mean(logits.argmax(1) == labels))


@pytest.mark.parametrize("options", [{}, {"image_size": 8, "memory_limit": 0}])
def test_nothing_of_it_is_tuned_while_it_runs(tmp_path, options):
    name = "digits"
    if options:
        name = str(tmp_path)
        for number in range(8):
            path = tmp_path / "ab"[number % 2] / f"{number}.png"
            pixels = np.full((9, 8, 3), number, np.uint8)
            tf.io.write_file(str(path), tf.io.encode_png(pixels))
    train, test, _ = data.load(name, 2, test_fraction=0.5, **options)
    every = [train, test, train.for_replicas(1, 2, 3), test.for_replicas(0, 1, 2)]
    assert [d.options().autotune.enabled for d in every] == [False] * 4
    assert [d.options().deterministic for d in every] == [True] * 4


def test_untuned_keeps_other_options_and_elements():
    options = tf.data.Options()
    options.deterministic = False
    dataset = pipelines.untuned(tf.data.Dataset.range(3).with_options(options))
    assert dataset.options().deterministic is False
    assert dataset.options().autotune.enabled is False
    assert list(dataset.as_numpy_iterator()) == [0, 1, 2]
