"""Random access to the records of TFRecord files."""

import os
import struct

import numpy as np

# A record is its length (uint64), a checksum of it (uint32), the data, a checksum.
_HEADER = struct.Struct("<QI")
_FOOTER = 4


class Records:
    """Records of TFRecord files by number, in the order of the files.

    Only the lengths are read at first, to know where each record begins.

    Args:
        paths: list of str.

    Raises:
        ValueError: naming the file, if it ends within a record.
    """

    def __init__(self, paths):
        self.paths = [os.fspath(path) for path in paths]
        files, starts, lengths = [], [], []
        for number, path in enumerate(self.paths):
            for start, length in _scan(path):
                files.append(number)
                starts.append(start)
                lengths.append(length)
        self._files = np.asarray(files, np.int32)
        self._starts = np.asarray(starts, np.int64)
        self._lengths = np.asarray(lengths, np.int64)

    def __len__(self):
        return len(self._files)

    def read(self, number):
        """Return record `number` as bytes; safe in any thread."""
        path = self.paths[self._files[number]]
        length = int(self._lengths[number])
        with open(path, "rb") as file:
            file.seek(int(self._starts[number]))
            data = file.read(length)
        if len(data) != length:
            raise _truncated(path)
        return data


def _scan(path):
    size = os.path.getsize(path)
    start = 0
    with open(path, "rb") as file:
        while start < size:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise _truncated(path)
            length, _ = _HEADER.unpack(header)
            begin = start + _HEADER.size
            start = begin + length + _FOOTER
            if start > size:
                raise _truncated(path)
            yield begin, length
            file.seek(start)


def _truncated(path):
    return ValueError(
        f"Damaged data file {path!r}: it ends within a record. Prepare the set again."
    )
