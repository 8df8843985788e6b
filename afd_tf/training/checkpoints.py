"""Checkpoints: the state of a run at a step, in folders of which the last few are kept.

A checkpoint is a folder with two files of TensorFlow's own format, in which every value
and every block of the index has a checksum. It is written beside, flushed to the disk
and renamed: a checkpoint that is listed is whole, unless it was damaged since. Its
position and configuration are in it, too.
"""

import contextlib
import dataclasses
import errno
import json
import re
import warnings
from pathlib import Path

import tensorflow as tf

from afd_tf.devices.failures import one_line
from afd_tf.errors import InvalidValue, invalid
from afd_tf.files import TEMPORARY, mismatch, remove, replacing, with_room, write_text

_NAME = re.compile(r"epoch-(\d+)-step-(\d+)")
_FILES = "state"
_RECORD, _IDENTITY = "record", "identity"
_SHAPE = {"position": [int], "configuration": (str, type(None))}


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
        path: path of its folder.
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
        configuration: str, digest of the run's configuration, which is written into
            checkpoints and compared when they are read; or None.
    """

    def __init__(self, directory, keep=3, configuration=None):
        self.directory = Path(directory)
        self._keep = keep
        self._configuration = configuration
        self._saved = self.directory / "saved"
        self._damaged = set()

    def positions(self):
        """Return the positions of all checkpoints, oldest first."""
        names = [_NAME.fullmatch(path.name) for path in self.directory.glob("epoch-*")]
        positions = [
            (name[0], Position(int(name[1]), int(name[2]))) for name in names if name
        ]
        return sorted(p for name, p in positions if self.path(p).name == name)

    def path(self, position):
        """Return the folder of a checkpoint."""
        name = f"epoch-{position.epoch:04d}-step-{position.step:06d}"
        return self.directory / name

    def save(self, position, values, record):
        """Write a checkpoint, then delete what is older than the last few.

        What is newer is deleted too: it is of a future that did not happen, or damaged.
        On a full disk older ones make room, all but the newest.

        Args:
            position: Position.
            values: dict from name to array.
            record: dict that JSON can hold, kept beside the values.

        Raises:
            OSError: if it cannot be written; the newest before is as it was.
        """
        identity = {
            "position": dataclasses.astuple(position),
            "configuration": self._configuration,
        }
        texts = {_RECORD: json.dumps(record), _IDENTITY: json.dumps(identity)}
        with_room(lambda: self._write(position, {**values, **texts}), self.free)
        if not self._saved.exists():
            with contextlib.suppress(OSError):  # a full disk; the next one is the same
                write_text(
                    self._saved, "Checkpoints were saved here: never begin anew.\n"
                )
        positions = self.positions()
        kept = [p for p in positions if p <= position][-self._keep :]
        for other in positions:
            if other not in kept:
                self._delete(other)

    def _write(self, position, entries):
        try:
            with replacing(self.path(position)) as temporary, tf.device("/CPU:0"):
                temporary.mkdir()
                tf.raw_ops.SaveV2(
                    prefix=str(temporary / _FILES),
                    tensor_names=list(entries),
                    shape_and_slices=[""] * len(entries),
                    tensors=[tf.constant(value) for value in entries.values()],
                )
        except tf.errors.OpError as error:
            # Without the name of a temporary file that is gone.
            failure = OSError(one_line(error).rpartition("; ")[2])
            if isinstance(error, tf.errors.ResourceExhaustedError):
                failure.errno = errno.ENOSPC
            raise failure from error

    def free(self):
        """Delete a damaged checkpoint or the oldest one, but never the newest.

        Returns:
            bool, whether there was one.
        """
        positions = self.positions()
        whole = [p for p in positions if p not in self._damaged]
        dispensable = [p for p in positions if p in self._damaged] + whole[:-1]
        if dispensable:
            self._delete(dispensable[0])
        return bool(dispensable)

    def _delete(self, position):
        path = self.path(position)
        # Renamed first: what is listed is whole, also for those who read meanwhile.
        temporary = path.with_name(f"{TEMPORARY}{path.name}")
        remove(temporary)
        with contextlib.suppress(FileNotFoundError):
            path.rename(temporary)
        remove(temporary)

    def newest(self, only=""):
        """Read the newest checkpoint that is whole; warn of those that are not.

        Args:
            only: str, beginning of the names of the values to read.

        Returns:
            Checkpoint, or None if none was saved.

        Raises:
            InvalidValue: if there are some and each is damaged; if some were saved and
                none is left; if one is of another position or configuration.
        """
        while positions := [p for p in self.positions() if p not in self._damaged]:
            position = positions[-1]
            try:
                return self._read(position, only)
            except InvalidValue:
                raise
            except Exception as error:
                # TensorFlow's readers raise whatever the damage leads to.
                if not self.path(position).exists():
                    continue  # deleted by a training that has saved a newer one
                self._damaged.add(position)
                warnings.warn(
                    f"Checkpoint {self.path(position)} is damaged and is passed over "
                    f"({one_line(error)}).",
                    stacklevel=2,
                )
        if not self._damaged and not self._saved.exists():
            return None
        count = len(self._damaged)
        why = (
            f"all {count} are damaged" if count else "there were some, and none is left"
        )
        raise InvalidValue(
            f"No checkpoint in {self.directory} can be loaded: {why}. Restore one "
            "from a copy, or delete the run's directory to begin anew. Nothing was "
            "changed."
        )

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
        reader = tf.train.load_checkpoint(str(path / _FILES))
        identity = json.loads(reader.get_tensor(_IDENTITY))
        record = json.loads(reader.get_tensor(_RECORD))
        if wrong := mismatch([identity, record], [dict]) or mismatch(identity, _SHAPE):
            raise TypeError(wrong)
        self._check_identity(path, position, identity)
        names = reader.get_variable_to_shape_map().keys() - {_RECORD, _IDENTITY}
        values = {n: reader.get_tensor(n) for n in names if n.startswith(only)}
        return Checkpoint(position, values, record, path)

    def _check_identity(self, path, position, identity):
        own = Position(*identity["position"])
        if own != position:
            raise InvalidValue(
                f"Checkpoint {path} is one of {own}, not of {position}: its name was "
                f"changed. Call it {self.path(own).name!r} again. Nothing was changed."
            )
        if self._configuration not in (None, identity["configuration"]):
            raise InvalidValue(
                f"Checkpoint {path} is of a run of another configuration, or "
                "config.gin was edited since. Restore the one or the other. Nothing "
                "was changed."
            )


def of_run(run):
    """Return the checkpoints of a run, to read them.

    Args:
        run: RunDirectory.
    """
    return Checkpoints(run.checkpoints, configuration=run.identity())


def no_checkpoint(workdir):
    """Return the error of a run of which nothing was saved."""
    received = f"workdir={str(workdir)!r}, without one"
    return invalid("workdir", "a run with at least one checkpoint", received=received)
