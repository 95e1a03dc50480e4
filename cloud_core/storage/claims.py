"""Claim offers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, select

from cloud_core.storage.connected import Connected
from cloud_core.storage.schema import claim_offer

p = bindparam
_c = claim_offer.c
_OFFER = select(_c.secret_hash, _c.expires_ms).where(_c.device_id == p("device_id"))
_DELETE = delete(claim_offer).where(_c.device_id == p("device_id"))
_TRIM = delete(claim_offer).where(_c.expires_ms < p("before_ms"))


def _put(upsert: Any) -> Any:  # Any: the insert of either dialect
    put = upsert(claim_offer).values({name: p(name) for name in ("device_id", "secret_hash", "expires_ms")})
    return put.on_conflict_do_update(
        index_elements=[_c.device_id],
        set_={"secret_hash": put.excluded.secret_hash, "expires_ms": put.excluded.expires_ms},
    )


class ReadsClaims(Connected):
    """`ReadClaims` of the interface."""

    def claim_offer(self, device_id: int) -> tuple[bytes, int] | None:
        row = self._row(self._once(_OFFER), device_id=device_id)
        return None if row is None else (bytes(row[0]), row[1])


class WritesClaims(ReadsClaims):
    """`WriteClaims` of the interface."""

    def put_claim_offer(self, device_id: int, *, secret_hash: bytes, expires_ms: int) -> None:
        self._write(self._once(_put), device_id=device_id, secret_hash=secret_hash, expires_ms=expires_ms)

    def delete_claim_offer(self, device_id: int) -> None:
        self._write(self._once(_DELETE), device_id=device_id)

    def trim_claim_offers(self, before_ms: int) -> None:
        self._write(self._once(_TRIM), before_ms=before_ms)
