"""`tf.data` pipelines: training passes at a position, and evaluation in fixed order."""

import functools
import os

import tensorflow as tf

from afd_tf.data.augmentation import (
    RandomResizedCrop,
    crop_flip,
    draw_part,
    epoch_crops,
    epoch_order,
    normalize,
)
from afd_tf.data.dataset import EpochPosition, ImageDataset
from afd_tf.data.splits import OnDemand

# Calls at once of a function of one image: the cores that this process may use.
IMAGES = (
    len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count() or 1
)
# Calls at once of a function of a batch, each of which takes memory for a batch.
BATCHES = min(IMAGES, 4)
# Batches that lie ready.
READY = 2

# Nothing here branches on a tensor; to convert such functions takes a second.
as_written = tf.autograph.experimental.do_not_convert


def untuned(dataset):
    """Return the data set without the thread that tunes it (AUTOTUNE).

    That thread sleeps ever longer between two looks. Deleting an iterator, as `fit`
    does after every epoch, waits for it, up to as long as the epoch was. It runs unless
    it is forbidden, whatever numbers of parallel calls are given.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def training(examples, batch_size, seed, augmentation, mean, std):
    """Build the training data set: every pass over it is one epoch.

    Order, crops and flips of an epoch depend on (seed, epoch, index) alone: neither the
    batch size, nor the number of replicas, nor earlier epochs change an image.

    Args:
        examples: `InMemory` or `OnDemand`.
        batch_size: int, at most `len(examples)`.
        seed: int.
        augmentation: `Augmentation`, `RandomResizedCrop` (of an `OnDemand` with
            `fetch_part`) or None.
        mean: tuple of floats, fractions of 255.
        std: tuple of floats, fractions of 255.

    Returns:
        `ImageDataset` of (images float32 (batch, height, width, channels), labels int32
        (batch,)) with a position, whose cardinality is the steps of a whole epoch.
    """
    count, steps = len(examples), len(examples) // batch_size
    position = EpochPosition(steps)
    parts = isinstance(augmentation, RandomResizedCrop)

    @as_written
    def render(images, labels, crops):
        if augmentation and not parts:
            images = crop_flip(images, crops, augmentation)
        return normalize(images, mean, std), labels

    if isinstance(examples, OnDemand):
        by_batch = False
        fetch = (
            _part_fetcher(examples, seed, augmentation) if parts else _fetcher(examples)
        )

        def batches(plan, rows):
            one = as_written(lambda index, crops: (*fetch(index, crops), crops))
            plan = _of_at_most(plan, steps * rows)
            plan = plan.map(one, IMAGES).batch(rows, drop_remainder=True)
            return plan.map(render, BATCHES)

    else:
        by_batch = True
        read = _batch_reader(examples)

        def batches(plan, rows):
            step = as_written(lambda indices, crops: render(*read(indices), crops))
            return _of_at_most(plan, steps).map(step, BATCHES)

    def build(replicas):
        sizes = replicas.sizes(batch_size)
        start, rows = replicas.start(batch_size), sum(sizes)

        @as_written
        def one_pass(_):
            epoch, step = position.advance()
            order = epoch_order(count, seed, epoch)[: steps * batch_size]
            order = tf.reshape(order[step * batch_size :], (-1, batch_size))
            order = tf.reshape(order[:, start : start + rows], (-1,))
            if parts:
                crops = tf.fill(tf.shape(order), epoch)
            elif augmentation:
                crops = epoch_crops(count, seed, epoch, augmentation)
                crops = tf.gather(crops, order)
            else:
                crops = tf.zeros((tf.size(order), 3), tf.int32)
            if by_batch:
                order = tf.reshape(order, (-1, rows))
                crops = tf.reshape(crops, (-1, rows, 3))
            return tf.data.Dataset.from_tensor_slices((order, crops))

        dataset = batches(tf.data.Dataset.range(1).flat_map(one_pass), rows)
        return _ready(dataset.rebatch(sizes) if len(sizes) > 1 else dataset)

    return ImageDataset(build, position)


def evaluation(examples, batch_size, mean, std):
    """Build the evaluation data set: fixed order, every example once.

    Args:
        examples: `InMemory` or `OnDemand`.
        batch_size: int.
        mean: tuple of floats, fractions of 255.
        std: tuple of floats, fractions of 255.

    Returns:
        `ImageDataset` of (images float32 (batch, height, width, channels), labels int32
        (batch,)); the last batch holds the remainder.
    """
    count = len(examples)

    @as_written
    def render(images, labels):
        return normalize(images, mean, std), labels

    if isinstance(examples, OnDemand):

        def rendered(rows, batched):
            own = examples if len(rows) == count else examples.subset(rows)
            return batched(decoded(own)).map(render, BATCHES)

    else:
        read = _batch_reader(examples)

        def rendered(rows, batched):
            step = as_written(lambda indices: render(*read(indices)))
            return batched(tf.data.Dataset.from_tensor_slices(rows)).map(step, BATCHES)

    def build(replicas):
        rows, sizes = replicas.of_batches(count, batch_size)

        def batched(dataset):
            # The last batch is smaller by itself; what else differs is listed.
            if len(set(sizes[:-1])) <= 1 and sizes[-1:] <= sizes[:1]:
                return dataset.batch(max([1, *sizes]))
            return dataset.batch(1).rebatch(sizes)

        return _ready(rendered(rows, batched))

    return ImageDataset(build)


def decoded(examples):
    """Decode the images of an `OnDemand` in their order, one by one.

    Returns:
        tf.data.Dataset of (image uint8 (height, width, channels), label int32).
    """
    indices = tf.data.Dataset.range(len(examples))
    return untuned(indices.map(_fetcher(examples), IMAGES))


def _of_at_most(dataset, count):
    """Give a data set of unknown length the static length `count`.

    `assert_cardinality` would fail on a pass that begins in the middle of an epoch.
    Interleaving with an endless data set that is never chosen makes the length
    infinite on paper, so that `take` makes it `count`, while the pass still ends when
    `dataset` does.
    """
    never = tf.data.Dataset.from_tensors(
        tf.nest.map_structure(
            lambda spec: tf.zeros(
                [size or 0 for size in spec.shape.as_list()], spec.dtype
            ),
            dataset.element_spec,
        )
    ).repeat()
    always_first = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64)).repeat()
    return tf.data.Dataset.choose_from_datasets(
        [dataset, never], always_first, stop_on_empty_dataset=True
    ).take(count)


def _batch_reader(examples):
    """Return a function from indices (batch,) to uint8 images and int32 labels."""
    with tf.device("/CPU:0"):
        # Not `examples` in the function: its arrays would stay in memory as well.
        images, labels = tf.constant(examples.images), tf.constant(examples.labels)
    return lambda indices: (tf.gather(images, indices), tf.gather(labels, indices))


def _fetcher(examples):
    """Return a function from an index, and crops for later, to image and label."""
    row_of = _row_reader(examples)
    return as_written(lambda index, *_: examples.fetch(row_of(index)))


def _part_fetcher(examples, seed, augmentation):
    """Return a function from index and epoch to a part of the image and the label."""
    draw = functools.partial(draw_part, augmentation, seed)
    row_of = _row_reader(examples)

    @as_written
    def fetch(index, epoch):
        return examples.fetch_part(row_of(index), draw, (epoch, index))

    return fetch


def _row_reader(examples):
    """Return a function from an index to the row of `fetch`."""
    if examples.rows is None:
        return lambda index: index
    with tf.device("/CPU:0"):
        rows = tf.constant(examples.rows)
    return lambda index: tf.gather(rows, index)


def _ready(dataset):
    options = tf.data.Options()
    options.deterministic = True
    # Read ahead only once a pass is pulled from: that is when it reads the position.
    options.experimental_warm_start = False
    # Workers take their part of each global batch, never files of their own.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return untuned(dataset.prefetch(READY).with_options(options))
