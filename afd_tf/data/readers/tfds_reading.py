"""Read one split of a prepared tensorflow-datasets set: in order, or by index."""

import dataclasses
import os
from typing import Any

import numpy as np
import tensorflow as tf

from afd_tf.data import cache, errors
from afd_tf.data.examples import OnDemand, check_labels
from afd_tf.data.holding import Split
from afd_tf.data.parallelism import IMAGES, READY, untuned
from afd_tf.data.pipelines import as_written, decoded
from afd_tf.data.readers.images import Fit, fit_tensor, part_tensor
from afd_tf.data.readers.records import Records

# Records parsed by one operation: enough to make its cost small, and few enough for a
# small set to occupy every core.
_TOGETHER = 64
# Such operations at once, which read ahead of who is slower.
_AT_ONCE = min(IMAGES, 16)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How to read a split.

    Attributes:
        builder: tfds.core.DatasetBuilder of a prepared set.
        name: str, the split.
        image_key: str, the feature that is the image.
        label_key: str, the feature that is the label.
        fit: `Fit` with a size, how images are brought to it.
    """

    builder: Any
    name: str
    image_key: str
    label_key: str
    fit: Fit

    @property
    def shape(self):
        """Tuple (height, width, channels) of the images."""
        return self.fit.shape

    def split(self):
        """Return the `Split`, of which nothing is read yet."""
        return Split(
            where=self.where,
            count=self._split.num_examples,
            image_shape=self.shape,
            num_classes=self._features[self.label_key].num_classes,
            decode=self.decode,
            on_demand=self.on_demand,
            identity=self.identity,
        )

    @property
    def where(self):
        """Str, what this is, for messages."""
        return f"the {self.name} split of {self.builder.info.full_name}"

    def identity(self):
        """Return what decides the decoded images, see `Split`."""
        info = self.builder.info
        folder = self.builder.data_dir
        return {
            "source": str(folder),
            "set": info.full_name,
            "split": self.name,
            "files": cache.fingerprint(self._split.filepaths, folder),
            **self.fit.identity(),
            "decoder": f"tensorflow {tf.__version__}",
        }

    def decode(self):
        """Yield (images, labels) in order, see `Split`."""
        dataset = untuned(self._in_order().prefetch(READY))
        done = 0
        try:
            for images, labels in dataset.as_numpy_iterator():
                done += len(labels)
                if done > self._split.num_examples:
                    self._check_counts()
                yield images, labels
        except tf.errors.OpError as error:
            raise ValueError(self._damaged(error, done)) from error
        if done < self._split.num_examples:
            self._check_counts()

    def _check_counts(self):
        if self._is_tfrecord:
            self._records()  # which names the file

    def _damaged(self, error, done):
        """Say which file it is that cannot be read, `done` examples being whole."""
        paths = [os.fspath(path) for path in self._split.filepaths]
        if self._is_tfrecord:
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
                    return errors.damaged(repr(path), its_own)
        where = f"{self.where} in {os.path.dirname(paths[0])!r}"
        return errors.reading_error(error) or errors.damaged(where, error)

    def _in_order(self):
        """Return a data set of batches, files one after the other."""
        import tensorflow_datasets as tfds

        info = self.builder.info
        if self._is_tfrecord:
            records = tf.data.TFRecordDataset(self._split.filepaths)
            decode = as_written(self._decode_records)
            return records.batch(_TOGETHER).map(decode, _AT_ONCE)
        if info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
            return decoded(self.on_demand()).batch(_TOGETHER)
        config = tfds.ReadConfig(
            interleave_cycle_length=1,
            try_autocache=False,
            num_parallel_calls_for_decode=IMAGES,
        )
        examples = self.builder.as_dataset(
            split=self.name, shuffle_files=False, read_config=config
        )
        return examples.map(
            lambda example: (
                fit_tensor(example[self.image_key], self.fit),
                example[self.label_key],
            ),
            IMAGES,
        ).batch(_TOGETHER)

    def _decode_records(self, records):
        """Decode serialized examples (some,), only the two features that are used."""
        keys = {self.image_key: tf.string, self.label_key: tf.int64}
        wanted = {key: tf.io.FixedLenFeature((), kind) for key, kind in keys.items()}
        parsed = tf.io.parse_example(records, wanted)
        images = tf.map_fn(
            lambda data: fit_tensor(self._decode(data), self.fit),
            parsed[self.image_key],
            fn_output_signature=tf.TensorSpec(self.shape, tf.uint8),
        )
        return images, parsed[self.label_key]

    def on_demand(self):
        """Return the split as an `OnDemand`."""
        import tensorflow_datasets as tfds

        num_classes = self._features[self.label_key].num_classes
        count, read = self._records()
        encoded = {self.image_key: tfds.decode.SkipDecoding()}

        def record(row):
            data = tf.numpy_function(read, [row], tf.string, stateful=False)
            return tf.ensure_shape(data, ())

        def example(row, decoders=None):
            found = self._features.deserialize_example(record(row), decoders=decoders)
            label = found[self.label_key]
            inside = (label >= 0) & (label < num_classes)
            complaint = (
                f"Invalid label in {self.where}: expected 0 <= label < {num_classes}"
            )
            check = tf.debugging.Assert(
                inside, [complaint, "received", label, "row", row]
            )
            with tf.control_dependencies([check]):
                return found[self.image_key], tf.cast(label, tf.int32)

        def fetch(row):
            image, label = example(row)
            return fit_tensor(image, self.fit), label

        def fetch_part(row, draw, key):
            def drawn(size):
                return tf.ensure_shape(
                    tf.numpy_function(
                        lambda *given: draw(*given),
                        [*key, size],
                        tf.int32,
                        stateful=False,
                    ),
                    (5,),
                )

            data, label = example(row, encoded)
            return part_tensor(data, self._decode, self.fit, drawn), label

        def read_label(row):
            found = self._features.deserialize_example(record(row), decoders=encoded)
            return found[self.label_key]

        def read_labels():
            labels = tf.data.Dataset.range(count).map(read_label, IMAGES)
            with errors.readable(self.where):
                found = untuned(labels).as_numpy_iterator()
                labels = np.fromiter(found, np.int64, count)
            return check_labels(labels, num_classes, self.where)

        return OnDemand(count, self.shape, fetch, read_labels, fetch_part)

    def _records(self):
        """Return the number of records and a function from a number to its bytes."""
        import tensorflow_datasets as tfds

        info = self.builder.info
        if self._is_tfrecord:
            records = Records(self._split.filepaths)
            records.check_counts(self._split.shard_lengths)
            return len(records), records.read
        if info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
            source = self.builder.as_data_source(
                self.name, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
            return len(source), lambda number: source[int(number)]
        raise ValueError(
            "Invalid value for argument `memory_limit`. Expected at least the size of "
            f"{info.full_name} decoded: its format, {info.file_format.value}, cannot "
            "be read by index. Prepare it as tfrecord; or, with crop='padded', raise "
            "`memory_limit` or set `cache_dir`."
        )

    def _decode(self, data):
        return self._features[self.image_key].decode_example(data)

    @property
    def _split(self):
        return self.builder.info.splits[self.name]

    @property
    def _is_tfrecord(self):
        import tensorflow_datasets as tfds

        return self.builder.info.file_format == tfds.core.FileFormat.TFRECORD

    @property
    def _features(self):
        return self.builder.info.features
