"""Random access to the records of TFRecord files."""

import hashlib
import os
import struct

import google_crc32c
import numpy as np

from afd_tf.errors import InvalidValue

# A record is its length (uint64), a checksum of it (uint32), the data, a checksum.
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


class Records:
    """Records of TFRecord files by number, in the order of the files.

    Only the lengths are read at first, to know where each record begins.

    Args:
        paths: list of str.

    Attributes:
        digest: str, SHA-256 of the lengths and checksums of all records, which change
            with what is in them.

    Raises:
        InvalidValue: naming the file, if it cannot be read, ends within a record, or a
            length is not that of its checksum.
    """

    def __init__(self, paths):
        self.paths = [os.fspath(path) for path in paths]
        files, starts, lengths = [], [], []
        digest = hashlib.sha256()
        for number, path in enumerate(self.paths):
            for start, length, checks in _scan(path):
                digest.update(checks)
                files.append(number)
                starts.append(start)
                lengths.append(length)
        self.digest = digest.hexdigest()
        self._files = np.asarray(files, np.int32)
        self._counts = np.bincount(self._files, minlength=len(self.paths))
        self._starts = np.asarray(starts, np.int64)
        self._lengths = np.asarray(lengths, np.int64)

    def __len__(self):
        return len(self._files)

    def check_counts(self, expected):
        """Check how many records each file has.

        Args:
            expected: list of int, one per file.

        Raises:
            InvalidValue: naming the first file that has more or fewer.
        """
        for path, count, wanted in zip(self.paths, self._counts, expected, strict=True):
            if count != wanted:
                raise _damaged(path, f"it has {count} records, not {wanted}")

    def read(self, number):
        """Return record `number` as bytes; safe in any thread.

        Raises:
            InvalidValue: naming the file, if the record is not that of its checksum.
        """
        path = self.paths[self._files[number]]
        length = int(self._lengths[number])
        try:
            with open(path, "rb") as file:
                file.seek(int(self._starts[number]))
                read = file.read(length + _FOOTER.size)
        except OSError as error:
            raise _damaged(path, error.strerror) from error
        data, footer = read[:length], read[length:]
        if len(footer) < _FOOTER.size:
            raise _damaged(path, "it ends within a record")
        if masked_crc32c(data) != _FOOTER.unpack(footer)[0]:
            raise _damaged(path, f"record {number} is not what was written")
        return data


def masked_crc32c(data):
    """Return the checksum that TFRecord files hold of `data`.

    Args:
        data: bytes.

    Returns:
        int in [0, 2**32): CRC-32C, rotated and offset as the format has it.
    """
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _scan(path):
    try:
        size = os.path.getsize(path)
        start = 0
        with open(path, "rb") as file:
            while start < size:
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    raise _damaged(path, "it ends within a record")
                length, checksum = _HEADER.unpack(header)
                if masked_crc32c(header[:8]) != checksum:
                    raise _damaged(path, f"no record begins at byte {start}")
                begin = start + _HEADER.size
                start = begin + length + _FOOTER.size
                if start > size:
                    raise _damaged(path, "it ends within a record")
                file.seek(begin + length)
                yield begin, length, header + file.read(_FOOTER.size)
    except OSError as error:
        raise _damaged(path, error.strerror) from error


def _damaged(path, reason):
    return InvalidValue(f"Damaged data file {path!r}: {reason}. Prepare the set again.")
