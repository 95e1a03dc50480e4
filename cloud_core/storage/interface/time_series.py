"""Histories read or removed as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shared.messages import Value


class ReadTimeSeries(Protocol):
    def samples(
        self, device_id: int, keys: Sequence[str], start_ms: int, end_ms: int, *, at_most: int
    ) -> tuple[list[tuple[int, dict[str, Value]]], int | None]:
        """(ts, values of these keys) by time, `start_ms` ≤ ts < `end_ms`.

        Stops after `at_most` times, whatever they have, and returns from where to go on; None when that is all.
        """


class WriteTimeSeries(ReadTimeSeries, Protocol):
    def delete_samples(
        self, device_id: int, keys: Sequence[str], start_ms: int, end_ms: int, *, at_most: int
    ) -> int | None:
        """Removes these keys from the history, `start_ms` ≤ ts < `end_ms`; the latest values stay.

        Stops after `at_most` times and returns from where to go on; None when all is done.
        """

    def delete_latest_of(self, device_id: int, key: str) -> None:
        """Forgets the latest value of a key."""

    def rewrite_latest(self, device_id: int, key: str, ts_ms: int, value: Value) -> None:
        """Puts an older value in place of the latest one."""
