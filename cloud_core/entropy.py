"""Random bytes from the system, drawn a block at a time: one system call for dozens of tokens instead of one each."""

from __future__ import annotations

import os
import threading

_BLOCK_BYTES = 1_024


class _Pool(threading.local):
    """Per thread, so that two threads can never be given the same bytes."""

    block = b""
    used = 0


_pool = _Pool()


def random_bytes(count: int) -> bytes:
    """`count` bytes fit for keys and tokens; each byte is handed out once."""
    pool = _pool
    start, end = pool.used, pool.used + count
    if end > len(pool.block):
        pool.block = os.urandom(max(_BLOCK_BYTES, count))
        start, end = 0, count
    pool.used = end
    return pool.block[start:end]


def random_bits(count: int) -> int:
    """An integer of `count` random bits."""
    size = (count + 7) // 8
    return int.from_bytes(random_bytes(size), "little") >> size * 8 - count
