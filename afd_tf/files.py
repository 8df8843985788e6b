"""Files: reading with limits, writing as a whole, one lock."""

import contextlib
import errno
import json
import os
import shutil
import socket
import stat
import tempfile
import warnings
from pathlib import Path

from afd_tf.errors import InvalidValue

try:
    import fcntl
except ImportError:  # not on this system: nobody is kept out
    fcntl = None

# How names of what is unfinished begin.
TEMPORARY = ".tmp-"
# No file that people or this package write for people is larger.
_MAX_BYTES = 2**24
_MAX_NUMBER = 2**63


@contextlib.contextmanager
def made_folder(path):
    """Make a folder and those above it; after a failure remove those that were made.

    Args:
        path: str or path.
    """
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # somebody else has put something there
            for folder in missing:
                folder.rmdir()
        raise


def read_text(path, what="file"):
    """Read a text file, whole or not at all.

    Args:
        path: str or path.
        what: str, what it is, for the message.

    Returns:
        str, without a byte-order mark, lines ending in a line feed.

    Raises:
        InvalidValue: naming the file, if it is missing, no regular file (a device or a
            pipe may never end), larger than 16 MiB, or not UTF-8.
    """
    try:
        state = Path(path).stat()
        if not stat.S_ISREG(state.st_mode):
            raise _unreadable(path, what, "it is no regular file")
        with open(path, "rb") as file:
            # One more than allowed: it may have grown since.
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise _unreadable(path, what, f"it has more than {_MAX_BYTES} bytes")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(path, what, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
        raise _unreadable(path, what, reason) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path, shape, what="file"):
    """Read a JSON file and check that it has what will be used of it.

    Args:
        path: str or path.
        shape: what is expected: a type or a tuple of types; `[shape]` for a list of
            any length; a dict of key to shape, where more keys are allowed, and the
            key `str` stands for every key. An int is a float too, a bool is no number,
            nor are NaN and what is beyond 2**63.
        what: str, what it is, for the message.

    Returns:
        The value.

    Raises:
        InvalidValue: naming the file and what is wrong in it.
    """
    text = read_text(path, what)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, what, f"it is no JSON ({error})") from error
    wrong = mismatch(value, shape)
    if wrong:
        raise _unreadable(path, what, wrong)
    return value


def mismatch(value, shape, place=""):
    """Say what is wrong with a value of JSON, or return None; see `read_json`."""
    if isinstance(shape, dict) and isinstance(value, dict):
        if str in shape:
            parts = [(key, part, shape[str]) for key, part in value.items()]
        else:
            for key in shape:
                if key not in value:
                    return f"{_in(place)}{key!r} is missing"
            parts = [(key, value[key], part) for key, part in shape.items()]
    elif isinstance(shape, list) and isinstance(value, list):
        parts = [(index, part, shape[0]) for index, part in enumerate(value)]
    elif isinstance(shape, type | tuple) and _is_a(value, shape):
        return None
    else:
        return f"{place or 'it'} is {_shown(value)}, not {_name(shape)}"
    wrong = (mismatch(part, its, f"{place}[{key!r}]") for key, part, its in parts)
    return next(filter(None, wrong), None)


def _is_a(value, types):
    types = types if isinstance(types, tuple) else (types,)
    if isinstance(value, bool):
        return bool in types
    if isinstance(value, int | float) and not abs(value) < _MAX_NUMBER:  # NaN too
        return False
    return isinstance(value, (*types, int) if float in types else types)


def _in(place):
    return f"in {place} " if place else ""


def _name(shape):
    if isinstance(shape, tuple):
        return " or ".join(map(_name, shape))
    kind = shape if isinstance(shape, type) else type(shape)
    names = {dict: "an object", list: "a list", str: "a text", type(None): "null"}
    return names.get(kind, f"of type {kind.__name__}")


def _shown(value):
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _unreadable(path, what, reason):
    return InvalidValue(f"Damaged {what} {str(path)!r}: {reason}.")


@contextlib.contextmanager
def replacing(path):
    """Write a file or a folder as a whole or not at all: beside it, then renamed.

    What is unfinished is in a folder of its own, whose name begins with `TEMPORARY`.
    After a failure nothing is left of it; after a kill see `remove_temporaries`.

    Args:
        path: path; a folder there is replaced, too.

    Yields:
        path of the same name to write to; nothing is there.
    """
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    try:
        temporary = folder / path.name
        yield temporary
        inside = temporary.iterdir() if temporary.is_dir() else ()
        for written in (*inside, temporary):
            _flush(written)
        if temporary.is_dir() and path.exists():
            path.rename(folder / f"{path.name}.before")
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        remove(folder)


def remove(path):
    """Remove a file, a link or a folder with all in it, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_temporaries(*folders):
    """Remove what killed processes left unfinished, while no living one writes there.

    Args:
        *folders: paths; need not exist.
    """
    for folder in folders:
        for path in folder.glob(f"{TEMPORARY}*"):
            remove(path)


def with_room(write, free):
    """Write, and make room as often as the disk is full.

    Args:
        write: callable.
        free: callable that deletes something and returns whether there was something.

    Raises:
        OSError: if it cannot be written for another reason, or nothing is left to free.
    """
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not free():
                raise


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path, text):
    """Write a text file as a whole or not at all."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path, value):
    """Write JSON for people and programs, as a whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def held(path, create=True):
    """Hold a lock file.

    The operating system keeps the lock and drops it with the process, however that
    ends: a file that a killed process left behind locks nothing.

    Args:
        path: path of the file; it stays.
        create: bool, whether to make it and to write down who holds it; if not and
            there is none, nothing is held.

    Raises:
        BlockingIOError: if another holds it; the message tells who.
        OSError: if it cannot be opened; a link is not followed.
    """
    if fcntl is None or not (create or os.path.lexists(path)):
        yield
        return
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    with open(os.open(path, flags, 0o666), "a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = (
                file.read(200).decode(errors="replace").strip() or "another process"
            )
            raise BlockingIOError(holder) from error
        except OSError as error:
            warnings.warn(
                f"{path} cannot be locked ({error.strerror}): see to it yourself that "
                "no other process trains in this directory.",
                stacklevel=3,
            )
        if create:
            with contextlib.suppress(OSError):  # a full disk; it is for the message
                file.truncate(0)
                holder = f"process {os.getpid()} on {socket.gethostname()}\n"
                file.write(holder.encode())
        yield
