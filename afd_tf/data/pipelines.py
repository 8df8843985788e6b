"""`tf.data` pipelines: training passes at a position, and evaluation in fixed order."""

import tensorflow as tf

from afd_tf.data.augmentation import crop_flip, epoch_crops, epoch_order, normalize
from afd_tf.data.examples import InMemory
from afd_tf.data.position import EpochPosition


def training(examples, batch_size, seed, augmentation, mean, std):
    """Build the training data set: every pass over it is one epoch.

    Order, crops and flips of an epoch depend on (seed, epoch, index) alone: neither the
    batch size, nor the number of replicas, nor earlier epochs change an image.

    Args:
        examples: `InMemory` or `OnDemand`.
        batch_size: int, at most `len(examples)`.
        seed: int.
        augmentation: `Augmentation` or None.
        mean: tuple of floats, fractions of 255.
        std: tuple of floats, fractions of 255.

    Returns:
        tf.data.Dataset of (images float32 (batch, height, width, channels), labels
        int32 (batch,)) whose cardinality is the steps of a whole epoch, and which has
        an `EpochPosition` as its attribute `position`.
    """
    steps = len(examples) // batch_size
    position = EpochPosition(steps)
    in_memory = isinstance(examples, InMemory)

    def one_pass(_):
        epoch, step = position.advance()
        order = epoch_order(len(examples), seed, epoch)[: steps * batch_size]
        order = order[step * batch_size :]
        if augmentation:
            crops = epoch_crops(len(examples), seed, epoch, augmentation)
            crops = tf.gather(crops, order)
        else:
            crops = tf.zeros((tf.size(order), 3), tf.int32)
        if in_memory:
            order = tf.reshape(order, (-1, batch_size))
            crops = tf.reshape(crops, (-1, batch_size, 3))
        return tf.data.Dataset.from_tensor_slices((order, crops))

    plan = tf.data.Dataset.range(1).flat_map(one_pass)
    if in_memory:
        plan = _of_at_most(plan, steps)
        render = _render_stored(examples, augmentation, mean, std)
    else:
        plan = _of_at_most(plan, steps * batch_size)
        fetch = _fetcher(examples)
        plan = plan.map(
            lambda index, crops: (*fetch(index), crops),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).batch(batch_size, drop_remainder=True)
        render = _render_decoded(augmentation, mean, std)
    dataset = plan.map(render, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.prefetch(tf.data.AUTOTUNE).with_options(_options())
    dataset.position = position  # pyright: ignore[reportAttributeAccessIssue]
    return dataset


def _render_stored(examples, augmentation, mean, std):
    """Return a function from indices and crops to a batch of stored images."""
    shape = examples.image_shape
    pixels, labels = _tensors(examples)
    whole = tf.reshape(pixels, (-1, *shape))

    def render(index, crops):
        if augmentation:
            images = crop_flip(pixels, index, crops, shape, augmentation)
        else:
            images = tf.gather(whole, index)
        return normalize(images, mean, std), tf.gather(labels, index)

    return render


def _render_decoded(augmentation, mean, std):
    """Return a function from decoded images, labels and crops to a batch."""

    def render(images, labels, crops):
        if augmentation:
            size, *shape = images.shape
            pixels = tf.reshape(images, (-1, shape[-1]))
            images = crop_flip(pixels, tf.range(size), crops, shape, augmentation)
        return normalize(images, mean, std), labels

    return render


def evaluation(examples, batch_size, mean, std):
    """Build the evaluation data set: fixed order, every example once.

    Args:
        examples: `InMemory` or `OnDemand`.
        batch_size: int.
        mean: tuple of floats, fractions of 255.
        std: tuple of floats, fractions of 255.

    Returns:
        tf.data.Dataset of (images float32 (batch, height, width, channels), labels
        int32 (batch,)); the last batch holds the remainder.
    """
    if isinstance(examples, InMemory):
        stored = _render_stored(examples, None, mean, std)
        dataset = tf.data.Dataset.range(len(examples)).batch(batch_size)
        dataset = dataset.map(
            lambda index: stored(index, None), num_parallel_calls=tf.data.AUTOTUNE
        )
    else:
        dataset = (
            decoded(examples)
            .batch(batch_size)
            .map(
                lambda images, labels: (normalize(images, mean, std), labels),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        )
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(_options())


def decoded(examples):
    """Decode the images of an `OnDemand` in their order, one by one.

    Returns:
        tf.data.Dataset of (image uint8 (height, width, channels), label int32).
    """
    indices = tf.data.Dataset.range(len(examples))
    return indices.map(_fetcher(examples), num_parallel_calls=tf.data.AUTOTUNE)


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


def _tensors(examples):
    """Return pixels (examples * height * width, channels) and labels as tensors."""
    with tf.device("/CPU:0"):
        pixels = examples.images.reshape(-1, examples.image_shape[-1])
        return tf.constant(pixels), tf.constant(examples.labels)


def _fetcher(examples):
    if examples.rows is None:
        return examples.fetch
    with tf.device("/CPU:0"):
        rows = tf.constant(examples.rows)
    return lambda index: examples.fetch(tf.gather(rows, index))


def _options():
    options = tf.data.Options()
    options.deterministic = True
    # Read ahead only once a pass is pulled from: that is when it reads the position.
    options.experimental_warm_start = False
    # Workers take their part of each global batch, never files of their own.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return options
