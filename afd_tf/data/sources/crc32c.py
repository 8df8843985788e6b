"""The checksum of TFRecord files: CRC-32C (Castagnoli), in NumPy."""

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # bits reversed
_BLOCK = 256
_BYTES = np.arange(_BLOCK)


def masked_crc32c(data):
    """Return the checksum that TFRecord files hold of `data`.

    The checksum is linear in the bits: that of a block is the exclusive or of a table's
    entry for each byte at its place, and two neighbours combine by advancing the first
    over the length of the second. So all blocks are computed at once, then all pairs.

    Args:
        data: bytes.

    Returns:
        int in [0, 2**32).
    """
    crc = _of_few(data) if len(data) < _BLOCK else _of_many(data)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _of_few(data):
    table = _one_byte_as_ints()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def _of_many(data):
    # Zeros in front change nothing, so that every block is whole.
    padding = -len(data) % _BLOCK
    padded = np.zeros(padding + len(data), np.uint8)
    padded[padding:] = np.frombuffer(data, np.uint8)
    padded[padding : padding + 4] ^= 0xFF  # to begin with 0xFFFFFFFF
    entries = _by_place()[_BYTES, padded.reshape(-1, _BLOCK)]
    sums = np.bitwise_xor.reduce(entries, axis=1)
    level = 0
    while len(sums) > 1:
        if len(sums) % 2:
            sums = np.concatenate([np.zeros(1, np.uint32), sums])
        sums = _apply(_advance(level), sums[0::2]) ^ sums[1::2]
        level += 1
    return int(sums[0])


@functools.cache
def _one_byte():
    """Return the checksum of each byte alone, uint32 (256,)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), 0)
    return table.astype(np.uint32)


@functools.cache
def _one_byte_as_ints():
    return _one_byte().tolist()


@functools.cache
def _by_place():
    """Return what a byte adds to its block's checksum, uint32 (place, byte)."""
    table = np.empty((_BLOCK, 256), np.uint32)
    table[-1] = _one_byte()
    for place in range(_BLOCK - 2, -1, -1):
        after = table[place + 1]
        table[place] = _one_byte()[after & 0xFF] ^ (after >> 8)
    return table


@functools.cache
def _advance(level):
    """Return the map of a checksum over `_BLOCK * 2**level` zeros, uint32 (4, 256)."""
    if level:
        half = _advance(level - 1)
        return _apply(half, half)
    places = (np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8)[:, None]).astype(
        np.uint32
    )
    for _ in range(_BLOCK):
        places = _one_byte()[places & 0xFF] ^ (places >> 8)
    return places


def _apply(table, sums):
    parts = [table[i][(sums >> (8 * i)) & 0xFF] for i in range(4)]
    return parts[0] ^ parts[1] ^ parts[2] ^ parts[3]
