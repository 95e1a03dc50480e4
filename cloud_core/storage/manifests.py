"""Manifests of imports: who has them, and the devices that stand in them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, or_, select

from cloud_core.model import Device
from cloud_core.storage.connected import Connected
from cloud_core.storage.interface.manifests import WITH_DEVICE, BatchDevice, ManifestClaim
from cloud_core.storage.schema import batch_manifest, batch_row, credentials, device
from cloud_core.storage.statements import device_rows
from shared.credentials import Credentials

p = bindparam
_m, _r = batch_manifest.c, batch_row.c
_NAMES = tuple(column.name for column in batch_manifest.columns)
_CLAIM = select(*(_m[name] for name in _NAMES)).where(_m.batch_id == p("batch_id"))
_DELETE = delete(batch_manifest).where(_m.batch_id == p("batch_id"))
_DEVICES = (
    device_rows.join(batch_row, _r.device_uuid == device.c.uuid)
    .add_columns(_r.number)
    .where(
        _r.batch_id == p("batch_id"),
        _r.number > p("after"),
        _r.number <= p("up_to"),
        or_(*(_r.status == f"{status}" for status in WITH_DEVICE)),
    )
    .order_by(_r.number)
    .limit(p("limit"))
)
_WITH_CREDENTIALS = _DEVICES.outerjoin(credentials, credentials.c.device_id == device.c.id).add_columns(
    credentials.c.sealed
)


def _put(upsert: Any) -> Any:
    made = upsert(batch_manifest).values({name: p(name) for name in _NAMES})
    return made.on_conflict_do_update(
        index_elements=["batch_id"], set_={name: made.excluded[name] for name in _NAMES if name != "batch_id"}
    )


class ReadsManifests(Connected):
    """`ReadManifests` of the interface."""

    def manifest_claim(self, batch_id: int) -> ManifestClaim | None:
        row = self._row(self._once(_CLAIM), batch_id=batch_id)
        if row is None:
            return None
        members = dict(zip(_NAMES, row, strict=True))
        return ManifestClaim(**(members | {"ticket": bytes(members["ticket"])}))

    def batch_devices(
        self, batch_id: int, *, after: int, up_to: int, limit: int, with_credentials: bool = False
    ) -> list[BatchDevice]:
        clause = _WITH_CREDENTIALS if with_credentials else _DEVICES
        rows = self._rows(self._once(clause), batch_id=batch_id, after=after, up_to=up_to, limit=limit)
        count = len(device_rows.selected_columns)
        return [
            BatchDevice(
                row[count], self._found_device(row),
                self._unsealed(bytes(row[count + 1])) if with_credentials and row[count + 1] is not None else None,
            )
            for row in rows
        ]  # fmt: skip

    def _found_device(self, row: Any) -> Device:
        raise NotImplementedError

    def _unsealed(self, sealed: bytes) -> Credentials:
        raise NotImplementedError


class WritesManifests(ReadsManifests):
    """`WriteManifests` of the interface."""

    def put_manifest_claim(self, claim: ManifestClaim) -> None:
        self._write(self._once(_put), **{name: getattr(claim, name) for name in _NAMES})

    def delete_manifest_claim(self, batch_id: int) -> None:
        self._write(self._once(_DELETE), batch_id=batch_id)
