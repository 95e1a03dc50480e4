"""Firmware and software packages: what is known of them, their bytes in blocks, and whom they are for."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, case, delete, exists, func, insert, or_, select, update

from cloud_core.model import Package, Page
from cloud_core.storage.connected import Connected
from cloud_core.storage.interface.packages import BLOCK_BYTES, Rollout
from cloud_core.storage.schema import (
    device,
    device_profile,
    package,
    package_assignment,
    package_block,
    package_rollout,
)
from shared.messages import PackageKind

p = bindparam
_c, _a, _b, _r = package.c, package_assignment.c, package_block.c, package_rollout.c
_rows = select(
    _c.id, _c.uuid, _c.tenant_id, _c.profile_id, device_profile.c.uuid, _c.kind, _c.title, _c.version, _c.tag, _c.url,
    _c.file_name, _c.content_type, _c.checksum_algorithm, _c.checksum, _c.size_bytes, _c.has_data, _c.document,
    _c.created_ms,
).join(device_profile, _c.profile_id == device_profile.c.id)  # fmt: skip
_SORT = {
    "createdTime": _c.created_ms, "title": _c.title, "version": _c.version, "type": _c.kind, "tag": _c.tag,
    "url": _c.url, "fileName": _c.file_name, "dataSize": _c.size_bytes, "checksum": _c.checksum,
}  # fmt: skip
_STORED = (
    "title", "version", "tag", "url", "file_name", "content_type", "checksum_algorithm", "checksum", "size_bytes",
    "has_data", "document",
)  # fmt: skip

_BY_UUID = _rows.where(_c.tenant_id == p("tenant_id"), _c.uuid == p("uuid"))
_BY_ID = _rows.where(_c.id == p("id"))
_BY_NAME = _rows.where(_c.tenant_id == p("tenant_id"), _c.title == p("title"), _c.version == p("version"))
_INSERT = (
    insert(package)
    .values({name: p(name) for name in ("uuid", "tenant_id", "profile_id", "kind", "created_ms", *_STORED)})
    .returning(_c.id)
)
_UPDATE = update(package).where(_c.id == p("b_id")).values({name: p(name) for name in _STORED})
_DELETE = delete(package).where(_c.id == p("id"))  # its blocks go with it: ON DELETE CASCADE
_BLOCKS = (
    select(_b.data)
    .where(_b.package_id == p("package_id"), _b.number >= p("first"), _b.number <= p("last"))
    .order_by(_b.number)
)
_TRIM_BLOCKS = delete(package_block).where(_b.package_id == p("package_id"), _b.number >= p("count"))

# The device's own assignment comes first, its profile's after.
_ASSIGNED = (
    _rows.join(package_assignment, _a.package_id == _c.id)
    .join(device, or_(_a.device_id == device.c.id, (_a.device_id == 0) & (_a.profile_id == device.c.profile_id)))
    .where(device.c.id == p("device_id"), _a.kind == p("kind"))
    .order_by(case((_a.device_id != 0, 0), else_=1))
    .limit(1)
)
_ASSIGNED_TO = select(_a.package_id).where(
    _a.device_id == p("device_id"), _a.profile_id == p("profile_id"), _a.kind == p("kind")
)
_USERS = select(func.count()).select_from(package_assignment).where(_a.package_id == p("package_id"))
_own = exists().where(_a.device_id == device.c.id, _a.profile_id == 0, _a.kind == p("kind"))
_OF_PROFILE = (
    select(device.c.id)
    .where(device.c.profile_id == p("profile_id"), device.c.id > p("after"), ~_own)
    .order_by(device.c.id)
    .limit(p("count"))
)
_UNASSIGN = delete(package_assignment).where(
    _a.device_id == p("device_id"), _a.profile_id == p("profile_id"), _a.kind == p("kind")
)
_FORGET_DEVICE = delete(package_assignment).where(_a.device_id == p("device_id"))
_FORGET_PROFILE = delete(package_assignment).where(_a.device_id == 0, _a.profile_id == p("profile_id"))
_DELETE_OF_PROFILE = delete(package).where(_c.profile_id == p("profile_id"))

_ROLLOUTS = select(_r.profile_id, _r.kind, _r.after_device_id).order_by(_r.profile_id, _r.kind)
_DELETE_ROLLOUT = delete(package_rollout).where(_r.profile_id == p("profile_id"), _r.kind == p("kind"))
_FORGET_ROLLOUTS = delete(package_rollout).where(_r.profile_id == p("profile_id"))


def _put_block(upsert: Any) -> Any:  # Any: the insert of either dialect
    put = upsert(package_block).values({name: p(name) for name in ("package_id", "number", "data")})
    return put.on_conflict_do_update(index_elements=[_b.package_id, _b.number], set_={"data": put.excluded.data})


def _assign(upsert: Any) -> Any:
    put = upsert(package_assignment).values({name: p(name) for name in ("device_id", "profile_id", "kind")})
    put = put.values(package_id=p("package_id"))
    return put.on_conflict_do_update(
        index_elements=[_a.device_id, _a.profile_id, _a.kind], set_={"package_id": put.excluded.package_id}
    )


def _put_rollout(upsert: Any) -> Any:
    put = upsert(package_rollout).values({name: p(name) for name in ("profile_id", "kind", "after_device_id")})
    return put.on_conflict_do_update(
        index_elements=[_r.profile_id, _r.kind], set_={"after_device_id": put.excluded.after_device_id}
    )


class ReadsPackages(Connected):
    """`ReadPackages` of the interface."""

    def package(self, tenant_id: int, uuid: UUID) -> Package | None:
        return _package(self._row(self._once(_BY_UUID), tenant_id=tenant_id, uuid=uuid.bytes))

    def package_by_id(self, package_id: int) -> Package | None:
        return _package(self._row(self._once(_BY_ID), id=package_id))

    def package_by_name(self, tenant_id: int, title: str, version: str) -> Package | None:
        return _package(self._row(self._once(_BY_NAME), tenant_id=tenant_id, title=title, version=version))

    def packages(
        self, tenant_id: int, page: Page, kind: PackageKind | None = None, profile_id: int | None = None,
        *, is_usable: bool = False,
    ) -> tuple[list[Package], int]:  # fmt: skip
        wanted = _rows.where(_c.tenant_id == tenant_id)
        if kind is not None:
            wanted = wanted.where(_c.kind == kind.value)
        if profile_id is not None:
            wanted = wanted.where(_c.profile_id == profile_id)
        if is_usable:
            wanted = wanted.where(or_(_c.has_data.is_(True), _c.url != ""))
        rows, total = self._page(wanted, page, _SORT, [_c.title, _c.version, _c.tag])
        return [one for row in rows if (one := _package(row))], total

    def assigned_package(self, device_id: int, kind: PackageKind) -> Package | None:
        return _package(self._row(self._once(_ASSIGNED), device_id=device_id, kind=kind.value))

    def assignment(self, kind: PackageKind, *, device_id: int = 0, profile_id: int = 0) -> int | None:
        row = self._row(self._once(_ASSIGNED_TO), device_id=device_id, profile_id=profile_id, kind=kind.value)
        return None if row is None else row[0]

    def package_data(self, package_id: int, start: int, count: int) -> bytes:
        if count <= 0:
            return b""
        first, last = start // BLOCK_BYTES, (start + count - 1) // BLOCK_BYTES
        rows = self._rows(self._once(_BLOCKS), package_id=package_id, first=first, last=last)
        offset = start - first * BLOCK_BYTES
        if len(rows) == 1:
            return bytes(rows[0][0])[offset : offset + count]
        return b"".join(bytes(data) for (data,) in rows)[offset : offset + count]

    def package_users(self, package_id: int) -> int:
        count: int = self._row(self._once(_USERS), package_id=package_id)[0]
        return count

    def devices_with_profile_package(
        self, profile_id: int, kind: PackageKind, *, after: int = 0, count: int = 1_000_000
    ) -> list[int]:
        rows = self._rows(self._once(_OF_PROFILE), profile_id=profile_id, kind=kind.value, after=after, count=count)
        return [number for (number,) in rows]

    def package_rollouts(self) -> list[Rollout]:
        rows = self._rows(self._once(_ROLLOUTS))
        return [Rollout(profile_id, PackageKind(kind), after) for profile_id, kind, after in rows]


class WritesPackages(ReadsPackages):
    """`WritePackages` of the interface."""

    def insert_package(self, package: Package) -> int:
        self.writes += 1
        row = self._row(
            self._once(_INSERT), uuid=package.uuid.bytes, tenant_id=package.tenant_id, profile_id=package.profile_id,
            kind=package.kind.value, created_ms=package.created_ms, **_stored(package),
        )  # fmt: skip
        number: int = row[0]
        return number

    def update_package(self, package: Package) -> None:
        self._write(self._once(_UPDATE), b_id=package.id, **_stored(package))

    def put_package_block(self, package_id: int, number: int, data: bytes) -> None:
        self._write(self._once(_put_block), package_id=package_id, number=number, data=data)

    def trim_package_blocks(self, package_id: int, count: int) -> None:
        self._write(self._once(_TRIM_BLOCKS), package_id=package_id, count=count)

    def delete_package(self, package_id: int) -> None:
        self._write(self._once(_DELETE), id=package_id)

    def assign_package(
        self, kind: PackageKind, package_id: int | None, *, device_id: int = 0, profile_id: int = 0
    ) -> None:
        if package_id is None:
            self._write(self._once(_UNASSIGN), device_id=device_id, profile_id=profile_id, kind=kind.value)
        else:
            self._write(
                self._once(_assign), device_id=device_id, profile_id=profile_id, kind=kind.value, package_id=package_id
            )

    def put_package_rollout(self, rollout: Rollout) -> None:
        self._write(
            self._once(_put_rollout), profile_id=rollout.profile_id, kind=rollout.kind.value,
            after_device_id=rollout.after_device_id,
        )  # fmt: skip

    def delete_package_rollout(self, rollout: Rollout) -> None:
        self._write(self._once(_DELETE_ROLLOUT), profile_id=rollout.profile_id, kind=rollout.kind.value)

    def _forget_packages_of_device(self, device_id: int) -> None:
        self._write(self._once(_FORGET_DEVICE), device_id=device_id)

    def _delete_packages_of_profile(self, profile_id: int) -> None:
        self._write(self._once(_FORGET_PROFILE), profile_id=profile_id)
        self._write(self._once(_FORGET_ROLLOUTS), profile_id=profile_id)
        self._write(self._once(_DELETE_OF_PROFILE), profile_id=profile_id)


def _stored(package: Package) -> dict[str, Any]:
    values = {name: getattr(package, name) for name in _STORED}
    return values | {"document": msgspec.json.encode(package.document).decode()}


def _package(row: Any) -> Package | None:
    if row is None:
        return None
    return Package(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], profile_id=row[3],
        profile_uuid=UUID(bytes=bytes(row[4])), kind=PackageKind(row[5]), title=row[6], version=row[7], tag=row[8],
        url=row[9], file_name=row[10], content_type=row[11], checksum_algorithm=row[12], checksum=row[13],
        size_bytes=row[14], has_data=bool(row[15]), document=msgspec.json.decode(row[16]), created_ms=row[17],
    )  # fmt: skip
