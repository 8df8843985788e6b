"""The run directory, which holds all of one run and nothing else.

```
config.gin            the configuration as parsed, written before training
operative_config.gin  every parameter in use, defaults included
metrics.csv           a row per epoch
checkpoints/          the complete state at the last few steps saved; what data,
                      networks and frozen source are; which commits of the
                      code computed it; the lock
logs/                 TensorBoard
export/               exported networks
analysis/             what afd-analyse found
results.json          written once, when the run is finished
```
"""

import contextlib
import os
import tempfile
from pathlib import Path

from afd_tf.errors import InvalidValue, invalid
from afd_tf.files import (
    TEMPORARY,
    held,
    read_json,
    read_text,
    remove,
    remove_temporaries,
    write_text,
)
from afd_tf.runs import configuration

# The layout of `results.json`; one of another number is not read.
SCHEMA = 2
_ACCURACY = {"accuracy": float}
_NONE = type(None)
_RESULTS = {
    "method": str,
    "parts": {
        "kl": bool,
        "maps": bool,
        "feature_update": bool,
        "discriminators": bool,
        "source": (bool, _NONE),
        "branches": (int, _NONE),
        "objective": (str, _NONE),
    },
    "dataset": str,
    "seed": int,
    "epoch": int,
    "step": int,
    "networks": {str: {"accuracy": float, "loss": float, "parameters": int}},
    "mean": _ACCURACY,
    "ensemble": _ACCURACY,
    "replicas": int,
    "data_sha256": str,
    "weights_sha256": str,
    "commit": (str, _NONE),
    "versions": {str: str},
}

# Where a run computes, how large it may be, where its data lies and how often it is
# saved may change between two starts.
LOCATION = (
    "train.data_dir",
    "train.strategy",
    "train.workers",
    "train.task",
    "train.max_layers",
    "train.worker_timeout",
    "train.tensorboard",
    "train.keep",
    "train.checkpoint_steps",
    "train.checkpoint_minutes",
)


class RunDirectory:
    """Paths and state of one run.

    Args:
        path: str or path; need not exist.
    """

    def __init__(self, path):
        self.path = Path(path).expanduser()
        self.config = self.path / "config.gin"
        self.operative_config = self.path / "operative_config.gin"
        self.metrics = self.path / "metrics.csv"
        self.checkpoints = self.path / "checkpoints"
        self.dataset = self.checkpoints / "dataset.json"
        self.networks = self.checkpoints / "networks.json"
        self.source = self.checkpoints / "source.json"
        self.commits = self.checkpoints / "commits.json"
        self.lock = self.checkpoints / "lock"
        # There once the first checkpoint is: without any, some are missing.
        self.saved = self.checkpoints / "saved"
        self.logs = self.path / "logs"
        self.export = self.path / "export"
        self.results = self.path / "results.json"
        # What training writes beside checkpoints, removed if nothing was saved; the
        # configuration last, by which the same command knows the rest.
        self._written = (self.operative_config, self.metrics, self.logs, self.config)

    def check(self, config):
        """Check that this directory can hold the run of a configuration.

        Args:
            config: str, the run's configuration in gin syntax.

        Raises:
            InvalidValue: if the directory holds another configuration (the differing
                settings are listed) or files of something else, is not writable, or
                another process trains in it.
        """
        try:
            self._check(config)
            with self._locked(create=False):
                pass
        except OSError as error:
            raise self._error("a directory that can be written", str(error)) from error

    def _check(self, config):
        if self.path.exists() and not self.path.is_dir():
            raise self._error("a directory", "is a file")
        self._check_links()
        if not self.config.exists():
            strangers = self._strangers()
            if strangers:
                raise self._error(
                    "a new, empty or earlier run's directory",
                    f"holds {strangers[0]!r} and no config.gin",
                )
        else:
            differences = configuration.differences(
                self.read_config(), config, ignore=LOCATION
            )
            if differences:
                raise self._error(
                    "a directory of its own for each configuration",
                    f"has another configuration: {_first(differences)}",
                )
        self._check_writable()

    @contextlib.contextmanager
    def _locked(self, create=True):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held(self.lock, create))
            except BlockingIOError as error:
                raise self._error(
                    "a directory in which no other process trains",
                    f"{error} trains in at the moment",
                ) from error
            yield

    def _strangers(self):
        if not self.path.exists():
            return []
        names = {path.name for path in self.path.iterdir()}
        # What a start leaves that was killed before its first file was whole.
        if self.checkpoints.is_dir():
            inside = {path.name for path in self.checkpoints.iterdir()}
            if not _without_temporaries(inside - {self.lock.name}):
                names.discard(self.checkpoints.name)
        return _without_temporaries(names)

    def _check_links(self):
        """Refuse links by which files elsewhere would be read or written."""
        own = self.path.resolve()
        for folder, folders, files in os.walk(self.path):
            for path in (Path(folder, name) for name in (*folders, *files)):
                if (
                    path.is_symlink()
                    and own not in Path(os.path.realpath(path)).parents
                ):
                    raise self._error(
                        "a directory without links that lead out of it",
                        f"has {str(path)!r}, a link to {os.readlink(path)!r}",
                        hint="Put what it leads to in its place, or choose another "
                        "--workdir.",
                    )

    def _check_writable(self):
        # The nearest folder that exists, so that a refusal leaves nothing behind.
        folder = self.path.absolute()
        while not folder.exists():
            folder = folder.parent
        try:
            with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY):
                pass
        except OSError as error:
            raise self._error(
                "a directory that can be written",
                f"would be in {folder} ({error.strerror})",
            ) from error

    def _error(self, expected, received, hint="Choose another --workdir."):
        received = f"workdir={str(self.path)!r}, which {received}"
        return invalid("workdir", expected, received=received, hint=hint)

    def require(self):
        """Check that this is the directory of a run that was started.

        Raises:
            InvalidValue: if it has no config.gin, or links that lead out of it.
        """
        if not self.config.is_file():
            expected = "the directory of a run, with a config.gin"
            raise invalid("workdir", expected, str(self.path))
        self._check_links()

    def has_state(self):
        """Return whether anything was ever saved here to go on from."""
        return self.saved.exists() or any(self.checkpoints.glob("epoch-*"))

    def is_new(self, record):
        """Return whether a record of the run's beginning is still to be written.

        Args:
            record: path of one of its files.

        Raises:
            InvalidValue: if it is missing although the run has begun: it would tell
                whether what was trained on is still the same.
        """
        if not record.exists() and self.has_state():
            raise self._error(
                "a run with all of its records",
                f"has checkpoints and no {record.name}",
                hint=f"Put back {str(record)!r}, or choose another --workdir.",
            )
        return not record.exists()

    @contextlib.contextmanager
    def started(self, config):
        """Make the directory, with `config.gin` as its first file.

        If training fails before anything was saved, what was written is removed again:
        there is nothing to go on from.

        Args:
            config: str, gin text.

        Raises:
            InvalidValue: if it cannot be written, or another process trains in it.
        """
        absent = [p for p in (self.path, *self.path.parents) if not p.exists()]
        with contextlib.ExitStack() as stack:
            with self.writing():
                self.checkpoints.mkdir(parents=True, exist_ok=True)
                stack.enter_context(self._locked())
                remove_temporaries(self.path, self.checkpoints, self.logs)
            try:
                with self.writing():
                    if not self.config.exists():
                        write_text(self.config, config)
                yield
            except BaseException:
                if not self.has_state():
                    self._discard(absent)
                raise

    @contextlib.contextmanager
    def writing(self, hint="Choose another --workdir."):
        """Say in words that a file of the run cannot be written.

        Args:
            hint: str, what to do.

        Raises:
            InvalidValue: in place of OSError.
        """
        try:
            yield
        except OSError as error:
            raise self._error(
                "a directory that can be written", str(error), hint
            ) from error

    def _discard(self, absent):
        for path in (self.checkpoints, *self._written):
            remove(path)
        for folder in absent:
            # Stays if somebody else has put something there.
            with contextlib.suppress(OSError):
                folder.rmdir()

    def identity(self):
        """Return the digest of the configuration that its checkpoints hold, or None."""
        if not self.config.is_file():
            return None
        return configuration.digest(self.read_config(), LOCATION)

    def read_config(self):
        """Return the run's configuration as text.

        Raises:
            InvalidValue: if there is none, or it is damaged.
        """
        return read_text(self.config, "configuration")

    def read_results(self):
        """Return the finished run's results.

        Raises:
            InvalidValue: if there are none, or they are damaged or of another layout.
        """
        schema = read_json(self.results, {"schema": int}, "results")["schema"]
        if schema != SCHEMA:
            raise InvalidValue(
                f"Results {str(self.results)!r} have schema {schema}, and this version "
                f"reads schema {SCHEMA}: read them with the version that wrote them."
            )
        return read_json(self.results, _RESULTS, "results")

    def read_record(self, path, shape):
        """Return what a run writes down when it begins.

        Args:
            path: path of one of its files, in JSON.
            shape: what is expected in it, see `afd_tf.files.read_json`.

        Raises:
            InvalidValue: if there is none, or it is damaged.
        """
        if not path.is_file():
            received = f"workdir={str(self.path)!r}, without {path.name}"
            raise invalid("workdir", "a run that has begun", received=received)
        return read_json(path, shape, "record")


def _without_temporaries(names):
    return sorted(name for name in names if not name.startswith(TEMPORARY))


def _first(differences, count=8):
    texts = [text if len(text) <= 200 else f"{text[:200]}..." for text in differences]
    more = f"; and {len(texts) - count} more" if len(texts) > count else ""
    return "; ".join(texts[:count]) + more
