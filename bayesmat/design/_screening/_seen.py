"""Which molecules were met before: a table of hashes that outgrows neither memory nor, in time, a disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..._types import BayesmatError

_IN_MEMORY = 1 << 24
"""Slots that are kept in memory (256 MiB); a larger table is a file that the system pages in and out."""
_CHECK = np.uint64(24)


def hashes(smiles: Iterable[str | None]) -> np.ndarray:
    """`(n, 2)` uint64: 128 bits of each canonical SMILES; zeros for None."""
    none = bytes(16)
    joined = b"".join(
        none if text is None else hashlib.blake2b(text.encode(), digest_size=16).digest() for text in smiles
    )
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


class Seen:
    """The first row of each molecule, by hash; rows are numbered from 1.

    16 bytes a slot: 64 bits of the hash, and 24 more beside the row's number of 40 bits. Among 10^9 molecules two
    different ones are taken for one with probability 2·10^-9.

    Args:
        folder: for a table too large for memory; the file there has no name and vanishes with the process.
        slots: to begin with, a power of two.

    Raises:
        BayesmatError: when it grows, if the disk has no room for it.
    """

    def __init__(self, folder: Path | None = None, slots: int = 1 << 14):
        self._folder = folder
        self._count = 0
        self._key, self._value = self._empty(slots)

    def __len__(self) -> int:
        return self._count

    def add(self, found: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The first row of each of m molecules, `(m,)` int64: its own number for one that is new.

        Args:
            found: `(m, 2)` their `hashes`.
            rows: `(m,)` their numbers, ascending and above all before.
        """
        if not len(found):
            return np.zeros(0, np.int64)
        unique, index, inverse = np.unique(found, axis=0, return_index=True, return_inverse=True)
        if self._count + len(unique) > 0.6 * len(self._key):
            self._grow(self._count + len(unique))
        packed = (rows[index].astype(np.uint64) << _CHECK) | (unique[:, 1] >> np.uint64(40))
        first = _insert(self._key, self._value, unique[:, 0], packed)
        self._count += int((first == packed).sum())
        return (first >> _CHECK).astype(np.int64)[inverse.ravel()]

    def _empty(self, slots: int) -> tuple[np.ndarray, np.ndarray]:
        if slots <= _IN_MEMORY:
            return np.zeros(slots, np.uint64), np.zeros(slots, np.uint64)
        arrays = []
        for _ in range(2):
            try:
                with tempfile.TemporaryFile(dir=self._folder) as file:
                    file.truncate(8 * slots)  # read as zeros
                    if hasattr(os, "posix_fallocate"):  # a disk that is full when a hole is written to ends the process
                        os.posix_fallocate(file.fileno(), 0, 8 * slots)
                    arrays.append(np.memmap(file, np.uint64, "r+", shape=(slots,)))
            except OSError as error:
                where = self._folder or tempfile.gettempdir()
                raise BayesmatError(
                    f"{where}: no room for {16 * slots:,} bytes of what was met so far ({error.strerror})"
                ) from error
        return arrays[0], arrays[1]

    def _grow(self, wanted: int) -> None:
        slots = len(self._key)
        while wanted > 0.5 * slots:
            slots *= 2
        old_key, old_value = self._key, self._value
        self._key, self._value = self._empty(slots)
        step = 1 << 20
        for start in range(0, len(old_key), step):
            value = np.asarray(old_value[start : start + step])
            used = value != 0
            _insert(self._key, self._value, np.asarray(old_key[start : start + step])[used], value[used])


def _insert(key: np.ndarray, value: np.ndarray, keys: np.ndarray, packed: np.ndarray) -> np.ndarray:
    """Linear probing for many different entries at once; gives what stands in the table for each."""
    mask = np.uint64(len(key) - 1)
    check = np.uint64((1 << 24) - 1)
    slot = keys & mask
    result = np.zeros(len(keys), np.uint64)
    left = np.arange(len(keys))
    while len(left):
        here = slot[left]
        empty = value[here] == 0
        value[here[empty]] = packed[left[empty]]  # of several for one slot the last stays
        key[here[empty]] = keys[left[empty]]
        stored = value[here]
        same = (key[here] == keys[left]) & ((stored & check) == (packed[left] & check))
        result[left[same]] = stored[same]
        left = left[~same]
        slot[left] = (slot[left] + np.uint64(1)) & mask
    return result
