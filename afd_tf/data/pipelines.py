"""`tf.data` pipelines: training passes at a position, and evaluation in fixed order."""

import functools

import tensorflow as tf

from afd_tf.data.augmentation import crop_flip, epoch_crops, epoch_order, normalize
from afd_tf.data.examples import InMemory, OnDemand
from afd_tf.data.parallelism import BATCHES, IMAGES, READY, untuned
from afd_tf.data.position import EpochPosition
from afd_tf.data.random_resized_crop import RandomResizedCrop, draw_part
from afd_tf.data.share import Share

# Nothing here branches on a tensor; to convert such functions takes a second.
as_written = tf.autograph.experimental.do_not_convert


def training(examples, batch_size, seed, augmentation, mean, std):
    """Build the training data set: every pass over it is one epoch.

    Order, crops and flips of an epoch depend on (seed, epoch, index) alone: neither the
    batch size, nor the number of replicas, nor earlier epochs change an image.

    Args:
        examples: `InMemory`, `OnDisk` or `OnDemand`.
        batch_size: int, at most `len(examples)`.
        seed: int.
        augmentation: `Augmentation`, `RandomResizedCrop` (of an `OnDemand` with
            `fetch_part`) or None.
        mean: tuple of floats, fractions of 255.
        std: tuple of floats, fractions of 255.

    Returns:
        tf.data.Dataset of (images float32 (batch, height, width, channels), labels
        int32 (batch,)) whose cardinality is the steps of a whole epoch, and which has
        an `EpochPosition` as its attribute `position`, and as its attribute `share_of`
        the function from the arguments of a `Share` to the data set of its rows alone,
        with a batch for each of its replicas, which begins where `position` says.
    """
    position = EpochPosition(len(examples) // batch_size)
    read = None if isinstance(examples, OnDemand) else _batch_reader(examples)
    dataset = _with_shares(
        functools.partial(
            _training,
            *(examples, read, batch_size, seed, augmentation, mean, std, position),
        )
    )
    dataset.position = position
    return dataset


def _with_shares(make):
    """Make the data set of all rows, which can be asked for one of fewer."""
    dataset = make(Share())
    dataset.share_of = lambda *share: make(Share(*share))
    return dataset


def _training(
    examples, read, batch_size, seed, augmentation, mean, std, position, share
):
    count = len(examples)
    steps = count // batch_size
    sizes = share.sizes(batch_size)
    start, rows = share.start(batch_size), sum(sizes)
    one_by_one = read is None
    parts = isinstance(augmentation, RandomResizedCrop)

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
        if not one_by_one:
            order = tf.reshape(order, (-1, rows))
            crops = tf.reshape(crops, (-1, rows, 3))
        return tf.data.Dataset.from_tensor_slices((order, crops))

    @as_written
    def render(images, labels, crops):
        if augmentation and not parts:
            images = crop_flip(images, crops, augmentation)
        return normalize(images, mean, std), labels

    plan = tf.data.Dataset.range(1).flat_map(one_pass)
    if one_by_one:
        if parts:
            fetch = _part_fetcher(examples, seed, augmentation)
        else:
            fetch = _fetcher(examples)
        plan = _of_at_most(plan, steps * rows)
        one = as_written(lambda index, crops: (*fetch(index, crops), crops))
        dataset = plan.map(one, IMAGES)
        dataset = dataset.batch(rows, drop_remainder=True).map(render, BATCHES)
    else:
        plan = _of_at_most(plan, steps)

        @as_written
        def step(indices, crops):
            return render(*read(indices), crops)

        dataset = plan.map(step, BATCHES)
    if len(sizes) > 1:
        dataset = dataset.rebatch(sizes)
    return _ready(dataset)


def evaluation(examples, batch_size, mean, std):
    """Build the evaluation data set: fixed order, every example once.

    Args:
        examples: `InMemory`, `OnDisk` or `OnDemand`.
        batch_size: int.
        mean: tuple of floats, fractions of 255.
        std: tuple of floats, fractions of 255.

    Returns:
        tf.data.Dataset of (images float32 (batch, height, width, channels), labels
        int32 (batch,)); the last batch holds the remainder. Its attribute `share_of`
        is the function from the arguments of a `Share` to the data set of its rows.
    """
    read = None if isinstance(examples, OnDemand) else _batch_reader(examples)
    return _with_shares(
        functools.partial(_evaluation, examples, read, batch_size, mean, std)
    )


def _evaluation(examples, read, batch_size, mean, std, share):
    rows, sizes = share.of_batches(len(examples), batch_size)

    @as_written
    def render(images, labels):
        return normalize(images, mean, std), labels

    def batches(dataset):
        # The last batch is smaller by itself; what else differs is listed.
        if len(set(sizes[:-1])) <= 1 and sizes[-1:] <= sizes[:1]:
            return dataset.batch(max([1, *sizes]))
        return dataset.batch(1).rebatch(sizes)

    if read is None:
        own = examples if len(rows) == len(examples) else examples.subset(rows)
        dataset = batches(decoded(own)).map(render, BATCHES)
    else:
        dataset = batches(tf.data.Dataset.from_tensor_slices(rows))
        whole = as_written(lambda indices: render(*read(indices)))
        dataset = dataset.map(whole, BATCHES)
    return _ready(dataset)


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
        labels = tf.constant(examples.labels)
        if isinstance(examples, InMemory):
            # Not `examples` in the function: its arrays would stay in memory as well.
            images = tf.constant(examples.images)
            return lambda indices: (
                tf.gather(images, indices),
                tf.gather(labels, indices),
            )

    def read(indices):
        images = tf.numpy_function(examples.gather, [indices], tf.uint8, stateful=False)
        shape = (indices.shape[0], *examples.image_shape)
        return tf.ensure_shape(images, shape), tf.gather(labels, indices)

    return read


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
    """Return a function from an index to the row of the examples' source."""
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
