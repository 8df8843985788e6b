"""Decoded images on disk: written once, whole or not at all, then memory-mapped.

An entry is a folder of the cache with `images.npy`, `labels.npy`, `checksums.npy` and
`entry.json`, which says what the images are and guards the two small files.
"""

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import zlib

import numpy as np

from afd_tf.data.examples import OnDisk, checksums
from afd_tf.files import made_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Part of every identity: raise it when the files or the decoding change.
_VERSION = 1
_MARK = "afd_tf decoded images"


def decoded_once(split, folder):
    """Return the images of a split from the cache; decode and write them if need be.

    Processes that need the same entry wait for the one that writes it. Other sets,
    sizes, channels, files or decoders are other entries; none is ever removed.

    Args:
        split: `Split`.
        folder: str, the cache; made if it does not exist.

    Returns:
        `OnDisk`.

    Raises:
        ValueError: if the entry is damaged or foreign, or cannot be written.
    """
    identity = {"mark": _MARK, "version": _VERSION, **split.identity()}
    canonical = json.dumps(identity, sort_keys=True)
    identity = json.loads(canonical)  # As it is read back: no tuples.
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    name = re.sub(r"\W+", "-", split.where, flags=re.ASCII).strip("-")[:80]
    entry = os.path.join(folder, f"{name}-{digest[:16]}")
    if not os.path.lexists(entry):
        try:
            _write(split, identity, entry)
        # Reading errors of the source are ValueErrors already.
        except OSError as error:
            raise _unwritable(folder, error) from error
    return _open(split, identity, entry)


def fingerprint(paths, root):
    """Digest the names, sizes and modification times of files.

    Args:
        paths: iterable of str, in order.
        root: str, the folder that names are relative to.

    Returns:
        str. Other content of the same size and time goes unnoticed.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            state = os.stat(path)
        except OSError as error:
            raise ValueError(
                f"Damaged data: {os.fspath(path)!r} cannot be read ({error.strerror})."
            ) from error
        name = os.fsencode(os.path.relpath(path, root))
        digest.update(
            b"%d %b %d %d\n" % (len(name), name, state.st_size, state.st_mtime_ns)
        )
    return digest.hexdigest()


# Writing ------------------------------------------------------------------------------


def _write(split, identity, entry):
    folder = os.path.dirname(entry)
    with made_folder(folder), _alone(f"{entry}.lock") as alone:
        if os.path.lexists(entry):
            return  # Another process was faster.
        if alone:
            # Left behind by a process that was killed.
            for found in os.listdir(folder):
                if found.startswith(f"{os.path.basename(entry)}.partial-"):
                    shutil.rmtree(os.path.join(folder, found), ignore_errors=True)
        _check_space(split, folder)
        partial = f"{entry}.partial-{secrets.token_hex(4)}"
        os.mkdir(partial)
        try:
            _fill(split, identity, partial)
            _publish(partial, entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _alone(path):
    """Hold a lock file; gives whether locks work here (not on every file system)."""
    while True:
        with open(path, "ab") as file:
            alone = _lock(file, path)
            # Who held it before has deleted it: others lock a new one by now.
            if alone and not _is_at(file, path):
                continue
            try:
                yield alone
            finally:
                with contextlib.suppress(OSError):
                    os.remove(path)
            return


def _lock(file, path):
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log("Waiting for another process, which holds %s", path)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _is_at(file, path):
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _check_space(split, folder):
    needed = split.count * (math.prod(split.image_shape) + 12)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{split.where} takes {needed / 2**30:.1f} GiB decoded, and "
            f"{free / 2**30:.1f} GiB are free",
        )


def _fill(split, identity, partial):
    size = split.count * math.prod(split.image_shape) / 2**30
    folder = os.path.dirname(partial)
    _log("Decoding %s into %s, once (%.1f GiB).", split.where, folder, size)
    sums, labels = [], []
    shape = (split.count, *split.image_shape)
    with open(os.path.join(partial, "images.npy"), "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for images, their in split.batches():
            file.write(images.tobytes())
            sums.append(checksums(images))
            labels.append(their)
        _to_disk(file)
    guarded = {
        "labels.npy": np.concatenate(labels).astype("<i4"),
        "checksums.npy": np.concatenate(sums).astype("<u8"),
    }
    for name, array in guarded.items():
        with open(os.path.join(partial, name), "wb") as file:
            np.save(file, array)
            _to_disk(file)
    described = {"identity": identity, "crc32": _crc32(*guarded.values())}
    with open(os.path.join(partial, "entry.json"), "w", encoding="utf-8") as file:
        json.dump(described, file, indent=1)
        _to_disk(file)


def _publish(partial, entry):
    try:
        os.rename(partial, entry)
    except OSError:
        # Where locks do not work, another process may have been faster.
        if not os.path.isdir(entry):
            raise


def _to_disk(file):
    file.flush()
    os.fsync(file.fileno())


def _crc32(labels, sums):
    return zlib.crc32(sums.tobytes(), zlib.crc32(labels.tobytes()))


def _log(message, *values):
    logging.getLogger("afd_tf").warning(message, *values)


def _unwritable(folder, error):
    return ValueError(
        "Invalid value for argument `cache_dir`. Expected a folder that can be written "
        f"and has enough space. Received: cache_dir={folder!r} "
        f"({error.strerror or error}). Nothing was left there. Free some space, name "
        "another folder, or None to decode images each time they are used."
    )


# Reading ------------------------------------------------------------------------------


def _open(split, identity, entry):
    path = os.path.join(entry, "images.npy")
    try:
        with open(os.path.join(entry, "entry.json"), encoding="utf-8") as file:
            described = json.load(file)
        found = described["identity"]
        labels = np.load(os.path.join(entry, "labels.npy"), allow_pickle=False)
        sums = np.load(os.path.join(entry, "checksums.npy"), allow_pickle=False)
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        whole = (
            described["crc32"] == _crc32(labels, sums)
            and mapped.shape == (split.count, *split.image_shape)
            and mapped.dtype == np.uint8
            and labels.shape == sums.shape == (split.count,)
            and os.path.getsize(path) == mapped.offset + mapped.nbytes
        )
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise _damaged(entry, f"{type(error).__name__}: {error}") from error
    if found != identity:
        raise _damaged(entry, "it holds other images")
    if not whole:
        raise _damaged(entry, "its files do not belong together")
    return OnDisk(mapped.view(np.ndarray), sums, labels.astype(np.int32), path)


def _damaged(entry, reason):
    return ValueError(
        f"Damaged cache entry {entry!r}. Expected what this package wrote there. "
        f"Received: {reason}. Delete this folder, and it will be written again."
    )
