"""Checkpoints: the state of a run at a step, in files of which the last few are kept.

A checkpoint is two files of TensorFlow's own format, `<name>.data-00000-of-00001` and
`<name>.index`, in which every value and every block of the index has a checksum. Both
are written beside it, flushed to the disk and renamed, the index last: a checkpoint
that is listed is whole, unless the disk has damaged it since.
"""

import dataclasses
import json
import re
import warnings
from pathlib import Path

import tensorflow as tf

from afd_tf.devices.failures import one_line
from afd_tf.errors import InvalidValue, invalid
from afd_tf.files import replacing

_NAME = re.compile(r"epoch-(\d+)-step-(\d+)\.index")
_DATA = ".data-00000-of-00001"
_RECORD = "record"


@dataclasses.dataclass(frozen=True, order=True)
class Position:
    """How far a run is; clocks play no part in what is newer.

    Attributes:
        epoch: int, epochs finished, evaluation included.
        step: int, steps done in the epoch after these; all of them while the epoch's
            evaluation is to come.
    """

    epoch: int
    step: int = 0

    def __str__(self):
        steps = f" and {self.step} step{'s' if self.step > 1 else ''}"
        return f"epoch {self.epoch}{steps if self.step else ''}"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read.

    Attributes:
        position: Position.
        values: dict from name to array.
        record: dict, what else was saved with them.
        path: path without suffix.
    """

    position: Position
    values: dict
    record: dict
    path: Path

    def load(self, write):
        """Set what it holds.

        Args:
            write: callable from its values, such as `State.write`.

        Raises:
            InvalidValue: if it does not fit.
        """
        try:
            write(self.values)
        except InvalidValue as error:
            raise InvalidValue(
                f"Checkpoint {self.path} cannot be loaded: it is of networks other "
                f"than those configured, {error}. Nothing was reset."
            ) from error


class Checkpoints:
    """The checkpoints in a directory.

    Args:
        directory: path.
        keep: int >= 1, how many to keep.
    """

    def __init__(self, directory, keep=3):
        self.directory = Path(directory)
        self._keep = keep

    def positions(self):
        """Return the positions of all checkpoints, oldest first."""
        names = [_NAME.fullmatch(path.name) for path in self.directory.glob("*.index")]
        return sorted(Position(int(n[1]), int(n[2])) for n in names if n)

    def path(self, position):
        """Return where a checkpoint is, without suffix."""
        name = f"epoch-{position.epoch:04d}-step-{position.step:06d}"
        return self.directory / name

    def save(self, position, values, record):
        """Write a checkpoint, then delete what is older than the last few.

        What is newer is deleted too: it is of a future that did not happen, or damaged.

        Args:
            position: Position.
            values: dict from name to array.
            record: dict that JSON can hold, kept beside the values.

        Raises:
            OSError: if it cannot be written; those before are as they were.
        """
        path = self.path(position)
        entries = {**values, _RECORD: json.dumps(record)}
        data, index = (Path(f"{path}{suffix}") for suffix in (_DATA, ".index"))
        try:
            with replacing(data, index) as (_, temporary), tf.device("/CPU:0"):
                tf.raw_ops.SaveV2(
                    prefix=str(temporary.with_suffix("")),
                    tensor_names=list(entries),
                    shape_and_slices=[""] * len(entries),
                    tensors=[tf.constant(value) for value in entries.values()],
                )
        except tf.errors.OpError as error:
            # Without the name of a temporary file that is gone.
            raise OSError(one_line(error).rpartition("; ")[2]) from error
        self._delete_others(position)

    def _delete_others(self, newest):
        positions = self.positions()
        kept = [p for p in positions if p <= newest][-self._keep :]
        for position in positions:
            if position not in kept:
                _delete(self.path(position))

    def newest(self, only=""):
        """Read the newest checkpoint that is whole; warn of those that are not.

        Args:
            only: str, beginning of the names of the values to read.

        Returns:
            Checkpoint, or None if there is none.

        Raises:
            InvalidValue: if there are some and each is damaged.
        """
        positions = self.positions()
        for position in reversed(positions):
            try:
                return self._read(position, only)
            except Exception as error:
                # TensorFlow's readers raise whatever the damage leads to.
                warnings.warn(
                    f"Checkpoint {self.path(position)} is damaged and is passed over "
                    f"({one_line(error)}).",
                    stacklevel=2,
                )
        if positions:
            raise InvalidValue(
                f"No checkpoint in {self.directory} can be loaded: all "
                f"{len(positions)} are damaged. Restore one from a copy, or delete the "
                "run's directory to begin anew. Nothing was changed."
            )
        return None

    def at(self, position):
        """Read a checkpoint that another worker has found to be whole.

        Raises:
            InvalidValue: if it is not here.
        """
        try:
            return self._read(position)
        except Exception as error:
            raise InvalidValue(
                f"Checkpoint {self.path(position)}, from which the chief goes on, "
                f"cannot be read by this worker ({one_line(error)}). Put `workdir` on "
                "a file system that all workers share."
            ) from error

    def _read(self, position, only=""):
        path = self.path(position)
        reader = tf.train.load_checkpoint(str(path))
        names = reader.get_variable_to_shape_map().keys() - {_RECORD}
        values = {n: reader.get_tensor(n) for n in names if n.startswith(only)}
        record = json.loads(reader.get_tensor(_RECORD))
        return Checkpoint(position, values, record, path)


def no_checkpoint(workdir):
    """Return the error of a run of which nothing was saved."""
    received = f"workdir={str(workdir)!r}, without one"
    return invalid("workdir", "a run with at least one checkpoint", received=received)


def _delete(path):
    # The index first, without which there is no checkpoint.
    for suffix in (".index", _DATA):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
