"""TensorBoard's logs of a run."""

import contextlib
import time
import warnings
from pathlib import Path

import keras
import tensorflow as tf

from afd_tf.devices.failures import one_line
from afd_tf.files import replacing
from afd_tf.training.callbacks.metrics_file import learning_rates
from afd_tf.training.callbacks.nonfinite import spec_of

_EARLIER = "events.out.tfevents.0000000000.earlier.v2"


class TensorBoard(keras.callbacks.Callback):
    """Write scalars per epoch, grouped by what they measure, against the global step.

    Args:
        directory: path.
        steps_per_epoch: int.
        batch_size: int, for images/s.
        text: str, the configuration.
        step: int, steps of the epochs finished before; what an interrupted process
            wrote beyond them is removed: it is written again.
    """

    def __init__(self, directory, steps_per_epoch, batch_size, text, step=0):
        super().__init__()
        self._directory = Path(directory)
        self._steps_per_epoch = steps_per_epoch
        self._batch_size = batch_size
        self._text = text
        self._step = step
        self._writer = None

    def on_train_begin(self, logs=None):
        with self._writing():
            written_before = gather_events(self._directory, self._step)
            self._writer = tf.summary.create_file_writer(str(self._directory))
            if not written_before:
                # Indented, it is shown as it is written.
                quoted = "\n".join(f"    {line}" for line in self._text.splitlines())
                with self._writer.as_default(step=self._step):
                    tf.summary.text("configuration", quoted)

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.monotonic()
        self._steps_trained, self._trained_at = 0, None

    def on_train_batch_end(self, batch, logs=None):
        if logs:  # else a step that was done before the run was interrupted
            self._steps_trained += self.model.steps_per_execution

    def on_test_begin(self, logs=None):
        self._trained_at = self._trained_at or time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        scalars = {self._tag(key): value for key, value in (logs or {}).items()}
        for role, rate in learning_rates(self.model).items():
            scalars[f"learning_rate/{role}"] = rate
        images = min(self._steps_trained, self._steps_per_epoch) * self._batch_size
        if images:
            seconds = (self._trained_at or time.monotonic()) - self._started
            scalars["speed/images_per_second"] = images / seconds
        with self._writing():
            with self._writer.as_default(step=(epoch + 1) * self._steps_per_epoch):
                for tag, value in scalars.items():
                    tf.summary.scalar(tag, value)
            self._writer.flush()

    def on_train_end(self, logs=None):
        with self._writing():
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self):
        """Go on without TensorBoard if it cannot be written."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            warnings.warn(
                f"{self._directory} could not be written: {one_line(error)}. Training "
                "goes on without TensorBoard.",
                stacklevel=4,
            )
            # TensorFlow's writer is of no use after an error.
            self._writer = tf.summary.create_noop_writer()

    def _tag(self, key):
        """Return `kl/resnet20_validation` for `val_resnet20_kl`."""
        spec = spec_of(key, self.model.metric_specs)
        if spec is None:
            return f"{key}/all"
        suffix = "_validation" if key != spec.name else ""
        return f"{spec.quantity}/{spec.network or 'all'}{suffix}"


def gather_events(directory, step):
    """Gather what earlier processes wrote, up to a step, in one file.

    TensorBoard reads files in the order of their names, which hold the time of day.
    Gathered, events are in the order of steps, each once, whatever clocks did, and
    none is of a future that did not happen.

    Args:
        directory: path.
        step: int, last step to keep.

    Returns:
        bool, whether anything was kept.
    """
    files = sorted(directory.glob("events.out.tfevents.*"))
    records = [record for path in files for record in _records(path)]
    events = {record: tf.compat.v1.Event.FromString(record) for record in records}
    kept = sorted(
        (r for r, e in events.items() if e.HasField("summary") and e.step <= step),
        key=lambda record: events[record].step,
    )
    if kept:
        version = tf.compat.v1.Event(
            file_version="brain.Event:2", wall_time=events[kept[0]].wall_time
        )
        with (
            replacing(directory / _EARLIER) as temporary,
            tf.io.TFRecordWriter(str(temporary)) as writer,
        ):
            for record in [version.SerializeToString(), *kept]:
                writer.write(record)
    for path in files:
        if not kept or path.name != _EARLIER:
            path.unlink()
    return bool(kept)


def _records(path):
    """Yield the records of a file up to where the writer of it was stopped."""
    records = iter(tf.data.TFRecordDataset(str(path)))
    while True:
        try:
            yield next(records).numpy()
        except (StopIteration, tf.errors.DataLossError):
            return
