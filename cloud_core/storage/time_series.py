"""Histories read or removed as a whole; samples one by one are written by `SqlTx`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, select

from cloud_core.storage.connected import Connected
from cloud_core.storage.documents import decode_document, encode_document, encode_value
from cloud_core.storage.interface import TimeSeriesQuery
from cloud_core.storage.schema import BUCKET_MS, latest, telemetry, telemetry_bucket, ts_key
from shared.messages import Value

p = bindparam
LEAST_PIECE, LARGEST_PIECE = 100, 10_000  # documents that are read at once
_key = select(ts_key.c.id).where(ts_key.c.name == p("name"))
_buckets = (
    select(telemetry_bucket.c.bucket)
    .where(telemetry_bucket.c.bucket >= p("first"), telemetry_bucket.c.bucket <= p("last"))
    .order_by(telemetry_bucket.c.bucket)
)
_one = (telemetry.c.bucket == p("b_bucket"), telemetry.c.device_id == p("b_device_id"))
_documents = (
    select(telemetry.c.ts, telemetry.c.document)
    .where(*_one, telemetry.c.ts >= p("start"), telemetry.c.ts < p("end"))
    .order_by(telemetry.c.ts)
)
_some_documents = _documents.limit(p("at_most"))
_newest_documents = _some_documents.order_by(None).order_by(telemetry.c.ts.desc())
_at = (*_one, telemetry.c.ts == p("b_ts"))
_delete = delete(telemetry).where(*_at)
_update = telemetry.update().where(*_at).values(document=p("document"))
_delete_latest = delete(latest).where(latest.c.device_id == p("b_device_id"), latest.c.key_id == p("b_key_id"))


def _put_latest(upsert: Any) -> Any:
    put = upsert(latest).values({name: p(name) for name in ("device_id", "key_id", "ts", "value")})
    return put.on_conflict_do_update(
        index_elements=[latest.c.device_id, latest.c.key_id],
        set_={"ts": put.excluded.ts, "value": put.excluded.value},
    )


class ReadsTimeSeries(Connected):
    """`ReadTimeSeries` of the interface."""

    def samples(
        self, device_id: int, keys: Sequence[str], start_ms: int, end_ms: int, *, at_most: int
    ) -> tuple[list[tuple[int, dict[str, Value]]], int | None]:
        names, found, left = self._numbers_of(keys), list[tuple[int, dict[str, Value]]](), at_most
        for bucket in self._buckets_between(start_ms, end_ms) if names else ():
            place = {"b_bucket": bucket, "b_device_id": device_id}
            rows = self._rows(self._once(_some_documents), **place, start=start_ms, end=end_ms, at_most=left)
            for ts, document in rows:
                values = {names[one]: value for one, value in decode_document(document).items() if one in names}
                if values:
                    found.append((ts, values))
            left -= len(rows)
            if left <= 0:
                return found, int(rows[-1][0]) + 1
        return found, None

    def history(self, device_id: int, query: TimeSeriesQuery) -> dict[str, list[tuple[int, Value]]]:
        names = self._numbers_of(query.keys)
        found: dict[str, list[tuple[int, Value]]] = {}
        buckets = self._buckets_between(query.start_ms, query.end_ms) if names else []
        for bucket in reversed(buckets) if query.descending else buckets:
            for ts, document in self._one_by_one(bucket, device_id, query):
                for number, value in decode_document(document).items():
                    points = found.setdefault(names[number], []) if number in names else None
                    if points is not None and len(points) < query.limit:
                        points.append((ts, value))
                if len(found) == len(names) and all(len(points) >= query.limit for points in found.values()):
                    return found
        return found

    def _one_by_one(self, bucket: int, device_id: int, query: TimeSeriesQuery) -> Iterator[tuple[int, bytes]]:
        """A bucket's documents in the order of the query, read in growing pieces: who asks may have enough soon."""
        start_ms, end_ms, at_most = query.start_ms, query.end_ms, min(max(query.limit, LEAST_PIECE), LARGEST_PIECE)
        statement = self._once(_newest_documents if query.descending else _some_documents)
        while True:
            rows = self._rows(
                statement, b_bucket=bucket, b_device_id=device_id, start=start_ms, end=end_ms, at_most=at_most
            )
            yield from rows
            if len(rows) < at_most:
                return
            if query.descending:
                end_ms = rows[-1][0]
            else:
                start_ms = rows[-1][0] + 1
            at_most = min(2 * at_most, LARGEST_PIECE)

    def _numbers_of(self, keys: Sequence[str]) -> dict[int, str]:
        return {row[0]: key for key in keys if (row := self._row(self._once(_key), name=key))}

    def _buckets_between(self, start_ms: int, end_ms: int) -> list[int]:
        first, last = start_ms // BUCKET_MS, end_ms // BUCKET_MS
        return [row[0] for row in self._rows(self._once(_buckets), first=first, last=last)]


class WritesTimeSeries(ReadsTimeSeries):
    """`WriteTimeSeries` of the interface."""

    def _flush_samples(self) -> None:
        raise NotImplementedError  # `SqlTx` writes what this transaction has gathered

    def delete_samples(
        self, device_id: int, keys: Sequence[str], start_ms: int, end_ms: int, *, at_most: int
    ) -> int | None:
        self._flush_samples()  # what came before in this very commit goes too
        names, left = self._numbers_of(keys), at_most
        for bucket in self._buckets_between(start_ms, end_ms) if names else ():
            place = {"b_bucket": bucket, "b_device_id": device_id}
            rows = self._rows(self._once(_some_documents), **place, start=start_ms, end=end_ms, at_most=left)
            for ts, document in rows:
                values = decode_document(document)
                kept = {one: value for one, value in values.items() if one not in names}
                if not kept:
                    self._write(self._once(_delete), **place, b_ts=ts)
                elif len(kept) < len(values):
                    self._write(self._once(_update), **place, b_ts=ts, document=encode_document(kept))
            left -= len(rows)
            if left <= 0:
                return int(rows[-1][0]) + 1
        return None

    def delete_latest_of(self, device_id: int, key: str) -> None:
        self._flush_samples()
        for number in self._numbers_of([key]):
            self._write(self._once(_delete_latest), b_device_id=device_id, b_key_id=number)

    def rewrite_latest(self, device_id: int, key: str, ts_ms: int, value: Value) -> None:
        self._flush_samples()
        for number in self._numbers_of([key]):
            self._write(
                self._once(_put_latest), device_id=device_id, key_id=number, ts=ts_ms, value=encode_value(value)
            )
