"""Durations and sizes with their units."""

from __future__ import annotations


def parse_duration(text: str | int | float) -> float:
    """Seconds: "800 ms", "5 s", "1 min", "1 h", "30 d", "1 h 30 min", or a number of seconds.

    Raises: ValueError whose text says the units.
    """
    raise NotImplementedError


def parse_size(text: str | int) -> int:
    """Bytes: "64 KiB", "2 GiB", "1 MB" (10^6), or a number of bytes. Raises: ValueError whose text says the units."""
    raise NotImplementedError
