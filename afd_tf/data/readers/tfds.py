"""Classification sets of tensorflow-datasets, by name, from their prepared files."""

import os

import numpy as np
import tensorflow as tf

from afd_tf.data.images import Fit, fit_tensor, part_tensor
from afd_tf.data.pipelines import IMAGES, READY, as_written, decoded, untuned
from afd_tf.data.readers.prepared import open_builder
from afd_tf.data.readers.reader import Reader, ReaderOptions
from afd_tf.data.readers.tfrecords import Records
from afd_tf.data.reading_errors import damaged, readable, reading_error
from afd_tf.data.splits import EncodedSplit, OnDemand, check_labels, sha256, stratified
from afd_tf.errors import InvalidValue, invalid

# A mirrored digit or letter is another one, or none.
_NO_FLIP = (
    "mnist",
    "emnist",
    "kmnist",
    "mnist_corrupted",
    "svhn_cropped",
    "omniglot",
    "binarized_mnist",
    "cmaterdb",
)
# Sets whose test split has no labels.
_EVALUATION_SPLITS = {
    "imagenet2012": "validation",
    "imagenet_resized": "validation",
    "downsampled_imagenet": "validation",
    "places365_small": "validation",
}
_VALIDATION = ("validation", "val", "dev")
# Records parsed by one operation: enough to make its cost small, and few enough for a
# small set to occupy every core.
_TOGETHER = 64
# Such operations at once, which read ahead of who is slower.
_AT_ONCE = min(IMAGES, 16)


def open_tfds(options: ReaderOptions) -> Reader:
    """Open a prepared set: `name`, `name/config`, `name:version`.

    It must have an image and a class label as its supervised keys. Nothing is
    downloaded unless `options.download` is true, and nothing is written.
    """
    builder = open_builder(options)
    image_key, label_key = _supervised_keys(builder, options.name)
    names = tuple(builder.info.features[label_key].names)
    fit = _fit(builder.info.features[image_key].shape, options)
    splits = builder.info.splits
    for split in ("train", options.test_split):
        if split is not None and split not in splits:
            raise invalid(
                "name" if split == "train" else "test_split",
                f"a set with the split {split!r}",
                received=f"{options.name!r} with {sorted(splits)}",
            )
    short = builder.info.name
    preferred = options.test_split or _EVALUATION_SPLITS.get(short, "test")
    evaluated = next((s for s in (preferred, "validation") if s in splits), None)

    def examples(split, parts=False):
        split = PreparedSplit(builder, split, image_key, label_key, fit)
        return split.examples(options.memory_limit, parts)

    train = examples("train", options.parts)
    if evaluated is None:
        whole, fraction, seed = train, options.test_fraction, options.split_seed
        kept, held_out = stratified(
            whole.labels, fraction, seed, "test_fraction", names
        )
        train = whole.subset(kept)

        def open_test():
            return whole.subset(held_out)

    else:

        def open_test():
            return examples(evaluated)

    config = builder.builder_config
    return Reader(
        name=short if config is None else f"{short}/{config.name}",
        description=f"tensorflow-datasets {builder.info.full_name}",
        class_names=names,
        train=train,
        open_test=open_test,
        evaluated_split="validation" if evaluated in _VALIDATION else "test",
        flip=short not in _NO_FLIP,
    )


def _fit(shape, options):
    size = options.image_size or shape[:2]
    if None in size:
        expected = f"(height, width) for {options.name!r}, whose images differ in size"
        raise invalid("image_size", expected, None)
    return Fit(tuple(size), options.channels or shape[2] or 3, options.resize)


def _supervised_keys(builder, name):
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys
    features = builder.info.features
    if (
        keys is None
        or len(keys) != 2
        or not all(isinstance(key, str) for key in keys)
        or not isinstance(features, tfds.features.FeaturesDict)
        or not features.keys() >= set(keys)
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
        or not features[keys[1]].num_classes
        or features[keys[0]].np_dtype != np.uint8
    ):
        raise invalid(
            "name",
            "a classification set: 8-bit images with one class label each",
            received=f"name={name!r} with supervised keys {keys}",
        )
    return keys


# Its images ---------------------------------------------------------------------------


class PreparedSplit(EncodedSplit):
    """A split of a prepared set, read in order or by index.

    Args:
        builder: tfds.core.DatasetBuilder of a prepared set.
        name: str, the split.
        image_key: str, the feature that is the image.
        label_key: str, the feature that is the label.
        fit: `Fit` with a size, how images are brought to it.
    """

    def __init__(self, builder, name, image_key, label_key, fit):
        self._builder = builder
        self._name = name
        self._image_key = image_key
        self._label_key = label_key
        self._fit = fit
        self._features = builder.info.features
        self._split = builder.info.splits[name]
        self._format = builder.info.file_format.value
        self.where = f"the {name} split of {builder.info.full_name}"
        self.count = self._split.num_examples
        self.image_shape = fit.shape
        self.num_classes = self._features[label_key].num_classes

    def files_digest(self):
        paths = [os.fspath(path) for path in self._split.filepaths]
        return sha256(
            f"{self.where}\n",
            *(f"{os.path.basename(path)} {_size(path)}\n" for path in paths),
        )

    def decode(self):
        dataset = untuned(self._in_order().prefetch(READY))
        done = 0
        try:
            for images, labels in dataset.as_numpy_iterator():
                done += len(labels)
                if done > self.count:
                    self._check_counts()
                yield images, labels
        except tf.errors.OpError as error:
            raise self._damaged(error, done) from error
        if done < self.count:
            self._check_counts()

    def _check_counts(self):
        if self._format == "tfrecord":
            self._records()  # which names the file

    def _damaged(self, error, done):
        """Say which file it is that cannot be read, `done` examples being whole."""
        paths = [os.fspath(path) for path in self._split.filepaths]
        if self._format == "tfrecord":
            decode = tf.function(
                as_written(self._decode_records),
                input_signature=[tf.TensorSpec((None,), tf.string)],
            )
            before = np.searchsorted(
                np.cumsum(self._split.shard_lengths), done, "right"
            )
            for path in paths[before:]:
                try:
                    for records in tf.data.TFRecordDataset(path).batch(_TOGETHER):
                        decode(records)
                except tf.errors.OpError as its_own:
                    return damaged(repr(path), its_own)
        line = reading_error(error)
        where = f"{self.where} in {os.path.dirname(paths[0])!r}"
        return InvalidValue(line) if line else damaged(where, error)

    def _in_order(self):
        """Return a data set of batches, files one after the other."""
        import tensorflow_datasets as tfds

        if self._format == "tfrecord":
            records = tf.data.TFRecordDataset(self._split.filepaths)
            decode = as_written(self._decode_records)
            return records.batch(_TOGETHER).map(decode, _AT_ONCE)
        if self._format == "array_record":
            return decoded(self.on_demand()).batch(_TOGETHER)
        config = tfds.ReadConfig(
            interleave_cycle_length=1,
            try_autocache=False,
            num_parallel_calls_for_decode=IMAGES,
        )
        examples = self._builder.as_dataset(
            split=self._name, shuffle_files=False, read_config=config
        )
        return examples.map(
            lambda example: (
                fit_tensor(example[self._image_key], self._fit),
                example[self._label_key],
            ),
            IMAGES,
        ).batch(_TOGETHER)

    def _decode_records(self, records):
        """Decode serialized examples (some,), only the two features that are used."""
        keys = {self._image_key: tf.string, self._label_key: tf.int64}
        wanted = {key: tf.io.FixedLenFeature((), kind) for key, kind in keys.items()}
        parsed = tf.io.parse_example(records, wanted)
        images = tf.map_fn(
            lambda data: fit_tensor(self._decode_image(data), self._fit),
            parsed[self._image_key],
            fn_output_signature=tf.TensorSpec(self.image_shape, tf.uint8),
        )
        return images, parsed[self._label_key]

    def _decode_image(self, data):
        return self._features[self._image_key].decode_example(data)

    def on_demand(self):
        import tensorflow_datasets as tfds

        count, read, digest = self._records()
        encoded = {self._image_key: tfds.decode.SkipDecoding()}

        def features(row, decoders=None):
            data = tf.numpy_function(read, [row], tf.string, stateful=False)
            data = tf.ensure_shape(data, ())
            return self._features.deserialize_example(data, decoders=decoders)

        def example(row, decoders=None):
            values = features(row, decoders)
            label = values[self._label_key]
            inside = (label >= 0) & (label < self.num_classes)
            complaint = (
                f"Invalid label in {self.where}: expected 0 <= label < "
                f"{self.num_classes}"
            )
            check = tf.debugging.Assert(
                inside, [complaint, "received", label, "row", row]
            )
            with tf.control_dependencies([check]):
                return values[self._image_key], tf.cast(label, tf.int32)

        def fetch(row):
            image, label = example(row)
            return fit_tensor(image, self._fit), label

        def fetch_part(row, draw, key):
            def drawn(size):
                part = tf.numpy_function(
                    lambda *given: draw(*given), [*key, size], tf.int32, stateful=False
                )
                return tf.ensure_shape(part, (5,))

            data, label = example(row, encoded)
            return part_tensor(data, self._decode_image, self._fit, drawn), label

        def read_labels():
            labels = tf.data.Dataset.range(count).map(
                lambda row: features(row, encoded)[self._label_key], IMAGES
            )
            with readable(self.where):
                labels = np.fromiter(
                    untuned(labels).as_numpy_iterator(), np.int64, count
                )
            return check_labels(labels, self.num_classes, self.where)

        return OnDemand(
            count,
            self.image_shape,
            fetch,
            read_labels,
            sha256(self.files_digest(), digest),
            fetch_part,
        )

    def _records(self):
        """Return the number of records, a function from one to its bytes, a digest."""
        import tensorflow_datasets as tfds

        if self._format == "tfrecord":
            records = Records(self._split.filepaths)
            records.check_counts(self._split.shard_lengths)
            return len(records), records.read, records.digest
        if self._format == "array_record":
            records = self._builder.as_data_source(
                self._name, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
            return len(records), lambda number: records[int(number)], ""
        raise invalid(
            "memory_limit",
            f"at least the size of {self._builder.info.full_name} decoded: its format, "
            f"{self._format}, cannot be read by index",
            received="a lower one, or crop='random_resized'",
            hint="Prepare the set as tfrecord; or, with crop='padded', raise "
            "`memory_limit`.",
        )


def _size(path):
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise damaged(repr(path), error.strerror) from error
