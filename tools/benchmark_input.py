"""Measure the input pipeline: images per second, case by case, in one run.

    python tools/benchmark_input.py --data_dir=DATA

Without prepared data (`--data_dir`, or the environment variable AFD_TFDS_DIR) random
images of CIFAR-100's shape take its place; the pixels' values do not change the speed.
Cases take turns, so that whatever else the machine does meets all of them alike; the
figure of a case is the median of its passes.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks import flags
from benchmarks.alternation import shuffled

BATCH_SIZE = 128
# What keeps a fast GPU from waiting, images per second on two cores.
TARGET = 80_000
# The case that stands for the pipeline as it is by default.
REFLECT = "pipeline, reflect"
_SHAPE = (32, 32, 3)
_EXAMPLES = 50_000


def measure(data_dir=None, passes=9, batch_size=BATCH_SIZE):
    """Measure every case on CIFAR-100, or on random images of its shape.

    Args:
        data_dir: str, folder of the prepared tensorflow-datasets; without it, random
            images.
        passes: int >= 1, epochs per case, after one that is not counted.
        batch_size: int, images per batch.

    Returns:
        dict of case to images per second, the median of the passes.
    """
    data_sets = _cases(_load(data_dir), batch_size)
    rates = {name: [] for name in data_sets}
    for data_set in data_sets.values():  # the pass that is not counted
        _rate(data_set)
    for names in shuffled(list(data_sets), passes):
        for name in names:
            rates[name].append(_rate(data_sets[name]))
    return {name: statistics.median(values) for name, values in rates.items()}


def _load(data_dir):
    """Return the training images and labels, decoded."""
    import numpy as np

    from afd_tf.data.readers import ReaderOptions, open_reader
    from afd_tf.data.splits import InMemory

    if data_dir:
        return open_reader(ReaderOptions("cifar100", data_dir=data_dir)).train
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (_EXAMPLES, *_SHAPE), np.uint8)
    return InMemory(images, np.zeros(_EXAMPLES, np.int32))


def _cases(examples, batch_size):
    """Return dict of name to data set, each step of the pipeline added to the last."""
    import tensorflow as tf

    from afd_tf.data import Augmentation, pipelines
    from afd_tf.data.augmentation import crop_flip, epoch_crops, epoch_order, normalize
    from afd_tf.data.pipelines import BATCHES, READY, untuned

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    reflect, zero = (Augmentation(4, mode, True) for mode in ("reflect", "zero"))
    steps = len(examples) // batch_size
    order = epoch_order(len(examples), 0, 0)[: steps * batch_size]
    crops = tf.gather(epoch_crops(len(examples), 0, 0, reflect), order)
    plan = tf.data.Dataset.from_tensor_slices(
        (tf.reshape(order, (steps, -1)), tf.reshape(crops, (steps, -1, 3)))
    )
    images = tf.constant(examples.images)

    def gathered(index, _):
        return tf.gather(images, index)

    def cropped(index, crops):
        return crop_flip(gathered(index, crops), crops, reflect)

    def normalised(index, crops):
        return normalize(cropped(index, crops), mean, std)

    def stage(function):
        mapped = plan.map(pipelines.as_written(function), BATCHES)
        return untuned(mapped.prefetch(READY))

    def whole(augmentation):
        return pipelines.training(examples, batch_size, 0, augmentation, mean, std)

    return {
        "gather": stage(gathered),
        "+ crop, flip": stage(cropped),
        "+ normalise": stage(normalised),
        REFLECT: whole(reflect),
        "pipeline, zero": whole(zero),
    }


def _rate(data_set):
    """Return the images per second of one pass."""
    images = 0
    begun = time.perf_counter()
    for batch in data_set:
        images += (batch[0] if isinstance(batch, tuple) else batch).shape[0]
    return images / (time.perf_counter() - begun)


def table(rates):
    """Return the cases as lines of text."""
    width = max(map(len, rates))
    lines = [f"{'case':{width}}  images/s"]
    lines += ["-" * len(lines[0])]
    lines += [f"{name:{width}}  {rate:8,.0f}" for name, rate in rates.items()]
    return "\n".join(lines)


def machine():
    """Return what the figures depend on: dict that JSON can hold."""
    from afd_tf.data import pipelines

    return {
        "processor": _processor(),
        "cpus": pipelines.IMAGES,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {
            name: importlib.metadata.version(name)
            for name in ("afd_tf", "tensorflow", "keras", "torch")
            if importlib.util.find_spec(name)
        },
        "threads": {
            name: value
            for name, value in os.environ.items()
            if name.endswith("_THREADS")
        },
    }


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main(arguments=None):
    """Measure, print the table, write the JSON file; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Measure the input pipeline in images per second."
    )
    flags.add_common(parser)
    parser.add_argument(
        "--passes", type=flags.positive, default=9, help="epochs of a case; default: 9"
    )
    parser.add_argument(
        "--batch_size",
        type=flags.positive,
        default=BATCH_SIZE,
        help=f"default: {BATCH_SIZE}",
    )
    options = parser.parse_args(arguments)
    before = machine()
    rates = measure(options.data_dir, options.passes, options.batch_size)
    print(table(rates))
    ratio = rates[REFLECT] / TARGET
    print(f"\n{REFLECT}: {ratio:.2f} times {TARGET:,} images/s")
    if options.json:
        figures = {
            "images_per_second": rates,
            "ratios": {
                "input_images_per_second": rates[REFLECT],
                "input_over_80000": ratio,
            },
            "machine": before,
            "data": "cifar100" if options.data_dir else "random images",
            "batch_size": options.batch_size,
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
