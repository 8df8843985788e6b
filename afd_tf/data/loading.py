"""`load`: from a name to training and evaluation pipelines and what they hold."""

import dataclasses
import math
import os

import numpy as np

from afd_tf.data import errors, pipelines
from afd_tf.data.arguments import (
    check_fraction,
    check_integer,
    height_and_width,
    invalid,
    number_range,
    shorter_side,
)
from afd_tf.data.augmentation import PAD_MODES, Augmentation, channel_statistics
from afd_tf.data.examples import InMemory, OnDisk
from afd_tf.data.info import DataInfo
from afd_tf.data.random_resized_crop import RandomResizedCrop
from afd_tf.data.readers import Request, open_source
from afd_tf.data.splits import first_of_each_class, stratified

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
    cache_dir=None,
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
            and of a JPEG no more than needed; `memory_limit` and `cache_dir` are for
            those evaluated.
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
        test_split: str, the source's own split to evaluate on instead of "test", for
            instance "validation".
        test_fraction: float in (0, 1), used where a source has no split of its own to
            evaluate on: this fraction of every class is the test split.
        split_seed: int, seed of the stratified splits. Apart from `seed`, so that
            runs with different seeds see the same split.
        memory_limit: int, bytes of decoded images of a split to hold in memory; images
            of a larger one are decoded each time they are used, or once with a
            `cache_dir`.
        cache_dir: str, folder to keep decoded images in. They are written there once
            (height * width * channels bytes each: 193 GB for ImageNet at 224x224),
            and runs after that decode nothing: what `memory_limit` allows is read into
            memory, a larger set is mapped. Batches are the same with and without.
            Files are told apart by folder, name, size and time of change. Nothing is
            ever removed. It pays where decoding is what training waits for, with few
            cores and a local SSD or memory for the decoded set. It is a loss where the
            files fit in memory and the decoded set, up to ten times their size, does
            not, and its disk is slow (a network's, a spinning one). The embedded
            digits need none.
        download: bool, whether tensorflow-datasets may download what is not prepared.

    Returns:
        Tuple (train, test, info). `train` is a tf.data.Dataset of (images float32
        (batch, height, width, channels), standardised; labels int32 (batch,)) with
        whole batches only, `info.steps_per_epoch` of them, and the attribute
        `position`, an `EpochPosition`. `test` is the same in fixed order, without
        augmentation, with every example once. `info` is a `DataInfo`. Neither is tuned
        by tf.data: what you `map` on them, give numbers in place of AUTOTUNE.

    Raises:
        ValueError: if an argument is out of range, the set is unknown, not prepared,
            damaged, or smaller than a batch.

    Example:
        >>> train, test, info = afd_tf.data.load("digits", 128)
        >>> info.image_shape, info.num_classes, info.steps_per_epoch
        ((16, 16, 1), 10, 11)
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("seed", seed, 0, 2**63)
    check_integer("split_seed", split_seed, 0, 2**32)
    check_integer("memory_limit", memory_limit, 0)
    check_fraction("validation", validation, zero=True)
    check_fraction("test_fraction", test_fraction)
    if channels is not None:
        check_integer("channels", channels, 1, 4)
        if channels == 2:
            raise invalid("channels", "None, 1 or 3", channels)
    for argument, value in (("augmentation", augmentation), ("download", download)):
        if not isinstance(value, bool | np.bool_):
            raise invalid(argument, "True or False", value)
    if not isinstance(flip, bool | np.bool_ | None):
        raise invalid("flip", "None, True or False", flip)
    if not isinstance(test_split, str | None):
        raise invalid("test_split", "None or the name of a split", test_split)
    parts = _parts(augmentation, crop, crop_scale, crop_ratio)
    source = open_source(
        Request(
            name=name,
            data_dir=data_dir,
            image_size=height_and_width(image_size),
            resize=shorter_side(resize, image_size),
            channels=channels,
            test_split=test_split,
            test_fraction=test_fraction,
            split_seed=split_seed,
            memory_limit=memory_limit,
            cache_dir=_cache_dir(cache_dir),
            download=bool(download),
            parts=parts is not None,
        )
    )
    if parts and getattr(source.train, "fetch_part", None) is None:
        raise invalid(
            "crop",
            f"'padded' for {source.name!r}, which has no whole images to cut from",
            crop,
        )
    train = source.train
    if per_class is not None:
        check_integer("per_class", per_class, 1)
        rows = first_of_each_class(train.labels, per_class, source.class_names)
        train = train.subset(rows)
    if validation:
        kept, held = stratified(
            train.labels, validation, split_seed, names=source.class_names
        )
        train, test = train.subset(kept), train.subset(held)
        evaluated_split = "validation"
    else:
        test = source.open_test()
        evaluated_split = source.evaluated_split
    if len(train) < batch_size:
        raise invalid(
            "batch_size",
            f"at most {len(train)}, the training examples of {source.name!r}",
            batch_size,
        )
    if test.image_shape != train.image_shape:
        raise ValueError(
            f"Invalid images in {source.name!r}. Expected those to evaluate to have "
            f"the shape of those to train on, {train.image_shape}. Received: "
            f"{test.image_shape}. Set `image_size`."
        )
    flip = source.flip if flip is None else bool(flip)
    if parts:
        settings = dataclasses.replace(parts, flip=flip)
    else:
        settings = _padded_crop(
            train.image_shape, augmentation, padding, pad_mode, flip
        )
    mean, std = _statistics(train, mean, std, source.name)
    info = DataInfo(
        name=source.name,
        source=source.description,
        num_classes=len(source.class_names),
        class_names=tuple(source.class_names),
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
        test_fraction=float(test_fraction),
    )
    return (
        pipelines.training(train, batch_size, seed, settings, mean, std),
        pipelines.evaluation(test, batch_size, mean, std),
        info,
    )


def _parts(augmentation, crop, scale, ratio):
    """Return the `RandomResizedCrop` that is asked for, or None."""
    if not isinstance(crop, str) or crop not in CROPS:
        raise invalid("crop", f"one of {CROPS}", crop)
    if crop == "padded" or not augmentation:
        return None
    return RandomResizedCrop(
        number_range("crop_scale", scale, 1.0),
        number_range("crop_ratio", ratio, math.inf),
    )


def _padded_crop(shape, augmentation, padding, pad_mode, flip):
    if not isinstance(pad_mode, str) or pad_mode not in PAD_MODES:
        raise invalid("pad_mode", f"one of {PAD_MODES}", pad_mode)
    side = min(shape[:2])
    if padding is None:
        padding = side // 8
    check_integer("padding", padding, 0)
    if padding >= side:
        raise invalid("padding", f"less than the shorter side, {side}", padding)
    if not augmentation:
        return None
    return Augmentation(padding, pad_mode, flip)


def _statistics(train, mean, std, name):
    channels = train.image_shape[-1]
    if mean is not None:
        mean = _per_channel("mean", mean, channels)
    if std is not None:
        std = _per_channel("std", std, channels)
    if mean is None or std is None:
        with errors.readable(f"an image of {name!r}"):
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
    if isinstance(train, OnDisk):
        for start in range(0, len(rows), 256):
            yield train.gather(rows[start : start + 256])
    else:
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


def _cache_dir(value):
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip():
        raise invalid("cache_dir", "None or the path of a folder", value)
    path = os.fspath(value)
    if "://" in path:
        raise invalid("cache_dir", "a folder of this machine, to be mapped", value)
    return os.path.abspath(os.path.expanduser(path))
