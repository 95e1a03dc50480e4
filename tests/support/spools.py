"""A real spool without a reactor: the answers are taken from a queue by the test's own thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_gateway.model import Content, Lane, Record, Refusal
from edge_gateway.settings import Store
from edge_gateway.storage.spool import SqlSpool
from tests.support.stores import InlineReactor

BODY = b'{"temperature":21.5}'


def a_record(number: int, device: str = "d", *, body: bytes = BODY, **other: Any) -> Record:
    fields: dict[str, Any] = {
        "content": Content.TELEMETRY, "lane": Lane.LIVE, "ts_ms": number, "boot": 1, "elapsed_ms": number,
    }  # fmt: skip
    return Record(number=number, device=device, body=body, **(fields | other))


class SpoolUnderTest:
    """`SqlSpool` with blocking conveniences; `now_s` is its clock."""

    def __init__(self, path: Path, machine_start: str = "one", *, is_opened: bool = True, **settings: Any) -> None:
        self.path = path
        self.now_s = 100.0
        self.reactor = InlineReactor()
        start = path.with_name("boot_id")
        start.write_text(machine_start)
        self.spool = SqlSpool(
            path=path, settings=Store(**({"commit_ms": 0, "keep_free": 0} | settings)), reactor=self.reactor,
            monotonic=lambda: self.now_s, machine_start=start,
        )  # fmt: skip
        self.dropped: list[tuple[list[int], dict[str, int]]] = []
        self.spool.on_dropped(lambda numbers, devices: self.dropped.append((numbers, devices)))
        if is_opened:
            self.spool.open()

    def wait(self, start: Callable[[Callable[[Any], None]], None]) -> Any:
        answers: list[Any] = []
        start(answers.append)
        self.reactor.run_until(lambda: answers)
        return answers[0]

    def append(self, *records: Record) -> Refusal | None:
        answer: Refusal | None = self.wait(lambda done: self.spool.append(records, done))
        return answer

    def history(self, after: int = 0, limit_records: int = 100_000, limit_bytes: int = 1 << 30) -> list[Record]:
        read: list[Record] = self.wait(lambda done: self.spool.read_history(after, limit_records, limit_bytes, done))
        return read

    def forget(self, numbers: Sequence[int]) -> None:
        """And waits until it is done."""
        self.spool.forget(numbers)
        self.history(limit_records=1)

    def close(self) -> None:
        self.spool.close()

    def again(self, **settings: Any) -> SpoolUnderTest:
        self.close()
        return SpoolUnderTest(self.path, **settings)

    def abandon(self) -> None:
        """Copies what a crash would have left on disk; the copy takes this one's place."""
        kept = {
            suffix: self.path.with_name(self.path.name + suffix).read_bytes()
            for suffix in ("", "-wal")
            if self.path.with_name(self.path.name + suffix).exists()
        }
        self.close()
        for suffix, content in kept.items():
            self.path.with_name(self.path.name + suffix).write_bytes(content)
