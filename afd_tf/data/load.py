"""`load`: from a name to training and evaluation pipelines and what they hold."""

import dataclasses
import math
import numbers

import numpy as np

from afd_tf.data import pipelines
from afd_tf.data.augmentation import (
    PAD_MODES,
    Augmentation,
    RandomResizedCrop,
    channel_statistics,
)
from afd_tf.data.info import DataInfo
from afd_tf.data.readers import ReaderOptions, open_reader
from afd_tf.data.reading_errors import readable
from afd_tf.data.splits import InMemory, first_of_each_class, stratified
from afd_tf.errors import InvalidValue, boolean, choice, fraction, integer, invalid

CROPS = ("padded", "random_resized")
# A larger set than memory holds is measured on this many of its images.
_STATISTICS_EXAMPLES = 10_000


def load(
    name,
    batch_size,
    data_dir=None,
    validation=0.0,
    seed=0,
    *,
    per_class=None,
    image_size=None,
    resize=None,
    channels=None,
    augmentation=True,
    crop="padded",
    crop_scale=(0.08, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    padding=None,
    pad_mode="reflect",
    flip=None,
    mean=None,
    std=None,
    test_split=None,
    test_fraction=0.2,
    split_seed=0,
    memory_limit=2 * 2**30,
    download=False,
):
    """Load an image-classification data set by name.

    Order, crops and flips are functions of (seed, epoch, index of the image), so that
    training can stop and continue anywhere: `train.position.assign(epoch, step)` makes
    the next pass begin there. Otherwise every pass is the next epoch.

    Args:
        name: str, "digits" (embedded, 16x16x1), the name of a tensorflow-datasets
            classification set ("cifar100", "emnist/letters"), "image_folder" with
            `data_dir`, or the path of an image folder.
        batch_size: int, images per batch over all replicas.
        data_dir: str, folder of the prepared tensorflow-datasets, or the image folder.
            Default: the environment variable AFD_TFDS_DIR (AFD_IMAGE_FOLDER for a
            folder), then TFDS_DATA_DIR, then ~/tensorflow_datasets.
        validation: float in [0, 1), fraction of every class of the training split to
            hold out. If above 0 the second result is that part, and the test split is
            not read.
        seed: int >= 0, seed of order and augmentation.
        per_class: int >= 1, train on the first so many images of each class, in the
            set's own order, `validation` then taken of these; None for all. The test
            split stays whole.
        image_size: int or (height, width) in pixels. Images are resized so that they
            cover it, and their centre is kept. Needed where sizes differ.
        resize: int, pixels. Resize the shorter side of images to this before their
            centre is cut out, as ImageNet is evaluated: 256 for an `image_size` of 224.
        channels: 1 or 3, default the set's own (3 for a folder).
        augmentation: bool, whether to crop and flip at all.
        crop: "padded", a crop of `image_size` out of the padded image; or
            "random_resized", a part of random size and shape of the whole image (see
            `RandomResizedCrop`), resized to `image_size` (bilinear, antialiased). The
            images trained on are then decoded each time they are used, in parallel,
            and of a JPEG no more than needed; `memory_limit` is for those evaluated.
        crop_scale: (low, high), share of the image's area in a "random_resized" part.
        crop_ratio: (low, high), width over height of such a part.
        padding: int, pixels on each side, default an eighth of the shorter side (4 for
            32x32, 2 for digits).
        pad_mode: "reflect" or "zero".
        flip: bool, mirror half of the images; default True, but False for sets of
            digits and letters.
        mean: float or a float per channel, as a fraction of 255. Default: computed from
            the images trained on (from 10,000 of them, evenly spaced, where they are
            not held in memory).
        std: as `mean`, the standard deviation.
        test_split: str, the data set's own split to evaluate on instead of "test", for
            instance "validation".
        test_fraction: float in (0, 1), used where a data set has no split of its own to
            evaluate on: this fraction of every class is the test split.
        split_seed: int, seed of the stratified splits. Apart from `seed`, so that
            runs with different seeds see the same split.
        memory_limit: int, bytes of decoded images of a split to hold in memory; images
            of a larger one are decoded each time they are used.
        download: bool, whether tensorflow-datasets may download what is not prepared.

    Returns:
        Tuple (train, test, info). `train` is an `ImageDataset`, a tf.data.Dataset of
        (images float32 (batch, height, width, channels), standardised; labels int32
        (batch,)) with whole batches only, `info.steps_per_epoch` of them, and the
        attribute `position`, an `EpochPosition`. `test` is the same in fixed order,
        without augmentation, with every example once. `info` is a `DataInfo`. Neither
        is tuned by tf.data: what you `map` on them, give numbers in place of AUTOTUNE.

    Raises:
        InvalidValue: if an argument is out of range, the set is unknown, not prepared,
            damaged, or smaller than a batch.

    Example:
        >>> train, test, info = afd_tf.data.load("digits", 128)
        >>> info.image_shape, info.num_classes, info.steps_per_epoch
        ((16, 16, 1), 10, 11)
    """
    batch_size = integer("batch_size", batch_size, 1)
    seed = integer("seed", seed, 0, 2**63)
    split_seed = integer("split_seed", split_seed, 0, 2**32)
    validation = fraction("validation", validation)
    test_fraction = fraction("test_fraction", test_fraction, zero=False)
    if channels is not None and integer("channels", channels, 1, 4) == 2:
        raise invalid("channels", "None, 1 or 3", channels)
    boolean("augmentation", augmentation)
    if flip is not None:
        boolean("flip", flip)
    if not isinstance(test_split, str | None):
        raise invalid("test_split", "None or the name of a split", test_split)
    parts = _parts(augmentation, crop, crop_scale, crop_ratio)
    reader = open_reader(
        ReaderOptions(
            name=name,
            data_dir=data_dir,
            image_size=_height_and_width(image_size),
            resize=_shorter_side(resize, image_size),
            channels=channels,
            test_split=test_split,
            test_fraction=test_fraction,
            split_seed=split_seed,
            memory_limit=integer("memory_limit", memory_limit, 0),
            download=boolean("download", download),
            parts=parts is not None,
        )
    )
    train = reader.train
    if parts and getattr(train, "fetch_part", None) is None:
        raise invalid(
            "crop",
            f"'padded' for {reader.name!r}, which has no whole images to cut from",
            crop,
        )
    if per_class is not None:
        count = integer("per_class", per_class, 1)
        rows = first_of_each_class(train.labels, count, reader.class_names)
        train = train.subset(rows)
    if validation:
        kept, held_out = stratified(
            train.labels, validation, split_seed, names=reader.class_names
        )
        train, test = train.subset(kept), train.subset(held_out)
        evaluated_split = "validation"
    else:
        test = reader.open_test()
        evaluated_split = reader.evaluated_split
    if len(train) < batch_size:
        raise invalid(
            "batch_size",
            f"at most {len(train)}, the training examples of {reader.name!r}",
            batch_size,
        )
    if test.image_shape != train.image_shape:
        raise InvalidValue(
            f"Invalid images in {reader.name!r}. Expected those to evaluate to have "
            f"the shape of those to train on, {train.image_shape}. Received: "
            f"{test.image_shape}. Set `image_size`."
        )
    flip = reader.flip if flip is None else flip
    if parts:
        settings = dataclasses.replace(parts, flip=flip)
    else:
        settings = _padded_crop(
            train.image_shape, augmentation, padding, pad_mode, flip
        )
    mean, std = _statistics(train, mean, std, reader.name)
    info = DataInfo(
        name=reader.name,
        description=reader.description,
        num_classes=len(reader.class_names),
        class_names=tuple(reader.class_names),
        image_shape=train.image_shape,
        train_examples=len(train),
        test_examples=len(test),
        evaluated_split=evaluated_split,
        batch_size=batch_size,
        steps_per_epoch=len(train) // batch_size,
        mean=mean,
        std=std,
        augmentation=settings,
        seed=seed,
        split_seed=split_seed,
        in_memory=isinstance(train, InMemory),
        resize=resize,
        test_split=test_split,
        test_fraction=test_fraction,
        digests={"train": train.digest(), "evaluation": test.digest()},
    )
    return (
        pipelines.training(train, batch_size, seed, settings, mean, std),
        pipelines.evaluation(test, batch_size, mean, std),
        info,
    )


def _parts(augmentation, crop, scale, ratio):
    """Return the `RandomResizedCrop` that is asked for, or None."""
    if choice("crop", crop, CROPS) == "padded" or not augmentation:
        return None
    return RandomResizedCrop(
        _interval("crop_scale", scale, 1.0), _interval("crop_ratio", ratio, math.inf)
    )


def _interval(argument, value, highest):
    """Return (low, high) as floats, 0 < low <= high <= highest."""
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 < low <= high <= highest or math.isinf(high):
        most = "" if math.isinf(highest) else f" <= {highest:g}"
        raise invalid(argument, f"(low, high) with 0 < low <= high{most}", value)
    return low, high


def _shorter_side(value, image_size):
    """Return the length to resize the shorter side to, or None."""
    if value is None:
        return None
    integer("resize", value, 1)
    size = _height_and_width(image_size)
    if size is None or value < max(size):
        raise invalid(
            "resize",
            "None, or an int of at least the longer side of `image_size`, "
            f"which is {size}",
            value,
        )
    return int(value)


def _height_and_width(value):
    """Return (height, width), or None."""
    if value is None:
        return None
    size = (value, value) if isinstance(value, numbers.Integral) else value
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise invalid("image_size", "an int or (height, width)", value)
    height, width = (integer("image_size", side, 1) for side in size)
    return height, width


def _padded_crop(shape, augmentation, padding, pad_mode, flip):
    choice("pad_mode", pad_mode, PAD_MODES)
    side = min(shape[:2])
    padding = integer("padding", side // 8 if padding is None else padding, 0)
    if padding >= side:
        raise invalid("padding", f"less than the shorter side, {side}", padding)
    return Augmentation(padding, pad_mode, flip) if augmentation else None


def _statistics(train, mean, std, name):
    channels = train.image_shape[-1]
    if mean is not None:
        mean = _per_channel("mean", mean, channels)
    if std is not None:
        std = _per_channel("std", std, channels)
    if mean is None or std is None:
        with readable(f"an image of {name!r}"):
            computed = channel_statistics(_images_to_measure(train))
        mean, std = mean or computed[0], std or computed[1]
    if min(std) <= 0:
        raise invalid("std", "positive numbers", std)
    return mean, std


def _images_to_measure(train, together=4096):
    """Yield the images that mean and deviation are computed from, in parts."""
    if isinstance(train, InMemory):
        for start in range(0, len(train), together):
            yield train.images[start : start + together]
        return
    rows = np.linspace(0, len(train) - 1, min(len(train), _STATISTICS_EXAMPLES))
    rows = rows.astype(np.int64)
    for images, _ in pipelines.decoded(train.subset(rows)).batch(256):
        yield images.numpy()


def _per_channel(argument, value, channels):
    try:
        values = np.broadcast_to(np.asarray(value, np.float64), (channels,)).tolist()
    except (TypeError, ValueError):
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise invalid(argument, f"a number or {channels} numbers", value)
    return tuple(values)
