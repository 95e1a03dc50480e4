"""Persistent commands (RPC) and server methods."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Select, bindparam, delete, func, or_, select, update

from cloud_core.model import ChangeKind, Page, PersistentCommand, RpcStatus, ServerMethod
from cloud_core.storage.changes import RecordsChanges
from cloud_core.storage.connected import Connected
from cloud_core.storage.interface.commands import MAX_ROWS
from cloud_core.storage.schema import command, device, server_method
from shared.errors import InvalidArgument
from shared.json_bodies import decode_json
from shared.values import encodable

p = bindparam
_c, _m = command.c, server_method.c
_UNDELIVERED = (RpcStatus.QUEUED, RpcStatus.SENT)
_OPEN = (*_UNDELIVERED, RpcStatus.DELIVERED)
_ENDED = tuple(one for one in RpcStatus if one not in _OPEN)
_SECRET = b"server method"


def _is_one_of(states: tuple[RpcStatus, ...]) -> Any:
    return or_(*(_c.status == state.value for state in states))  # not `in_`: its list is no fixed statement


_COMMANDS = select(
    _c.id, _c.uuid, _c.tenant_id, _c.device_id, device.c.uuid, _c.created_ms, _c.expires_ms, _c.status, _c.is_oneway,
    _c.retries_left, _c.request, _c.response, _c.sent_ms, _c.sent_by,
).join(device, device.c.id == _c.device_id)  # fmt: skip
_SORT = {
    "createdTime": _c.created_ms, "expirationTime": _c.expires_ms, "status": _c.status, "request": _c.request,
    "response": _c.response,
}  # fmt: skip


def _first(states: tuple[RpcStatus, ...]) -> Select[Any]:
    mine = _COMMANDS.where(_c.device_id == p("device_id"), _is_one_of(states))
    return mine.order_by(_c.id).limit(p("limit"))


_COMMAND = _COMMANDS.where(_c.tenant_id == p("tenant_id"), _c.uuid == p("uuid"))
_COMMAND_BY_ID = _COMMANDS.where(_c.id == p("id"))
_FIRST_OPEN = _first(_OPEN)
_FIRST_UNDELIVERED = _first(_UNDELIVERED)
# Where several nodes share the database: whoever decides about a command is the only one at that time.
_LOCK_BY_ID = _COMMAND_BY_ID.with_for_update(of=command)
_LOCK_OPEN = _FIRST_OPEN.with_for_update(of=command)
_LOCK_UNDELIVERED = _FIRST_UNDELIVERED.with_for_update(of=command)
_OPEN_COUNT = select(func.count()).select_from(command).where(_c.device_id == p("device_id"), _is_one_of(_OPEN))
_DEVICES = select(_c.device_id).where(_is_one_of(_OPEN)).distinct()
_UPDATE = (
    update(command)
    .where(_c.id == p("b_id"))
    .values(status=p("status"), retries_left=p("retries_left"), response=p("response"))
)
_MARK_SENT = update(command).where(_c.id == p("b_id")).values(sent_ms=p("sent_ms"), sent_by=p("sent_by"))
_DELETE = delete(command).where(_c.id == p("id"))
_EXPIRE = (
    update(command)
    .where(_is_one_of(_OPEN), _c.expires_ms <= p("b_now_ms"))
    .values(status=RpcStatus.EXPIRED.value)
    .returning(_c.device_id)
)
_TRIM = delete(command).where(_is_one_of(_ENDED), _c.created_ms < p("before_ms"))

_METHODS = select(_m.tenant_id, _m.method, _m.url, _m.secret_sealed, _m.timeout_ms).where(
    _m.tenant_id == p("tenant_id")
)
_METHOD = _METHODS.where(_m.method == p("method"))
_ALL_METHODS = _METHODS.order_by(_m.method)
_DELETE_METHOD = delete(server_method).where(_m.tenant_id == p("tenant_id"), _m.method == p("method"))


def _insert(upsert: Any) -> Any:
    names = (
        "uuid", "tenant_id", "device_id", "created_ms", "expires_ms", "status", "is_oneway", "retries_left", "request",
        "response",
    )  # fmt: skip
    return upsert(command).values({name: p(name) for name in names}).on_conflict_do_nothing().returning(_c.id)


def _put_method(upsert: Any) -> Any:
    values = ("url", "secret_sealed", "timeout_ms")
    put = upsert(server_method).values({name: p(name) for name in ("tenant_id", "method", *values)})
    return put.on_conflict_do_update(
        index_elements=[_m.tenant_id, _m.method], set_={name: put.excluded[name] for name in values}
    )


class ReadsCommands(Connected):
    """`ReadCommands` of the interface."""

    def command(self, tenant_id: int, uuid: UUID) -> PersistentCommand | None:
        row = self._row(self._once(_COMMAND), tenant_id=tenant_id, uuid=uuid.bytes)
        return None if row is None else _command(row)

    def command_by_id(self, command_id: int) -> PersistentCommand | None:
        row = self._row(self._once(_COMMAND_BY_ID), id=command_id)
        return None if row is None else _command(row)

    def open_commands(self, device_id: int, limit: int = MAX_ROWS) -> list[PersistentCommand]:
        return [_command(row) for row in self._rows(self._once(_FIRST_OPEN), device_id=device_id, limit=limit)]

    def undelivered_commands(self, device_id: int, limit: int = MAX_ROWS) -> list[PersistentCommand]:
        return [_command(row) for row in self._rows(self._once(_FIRST_UNDELIVERED), device_id=device_id, limit=limit)]

    def open_command_count(self, device_id: int) -> int:
        count: int = self._row(self._once(_OPEN_COUNT), device_id=device_id)[0]
        return count

    def devices_with_open_commands(self) -> list[int]:
        return [row[0] for row in self._rows(self._once(_DEVICES))]

    def commands(
        self, tenant_id: int, device_id: int, page: Page, status: RpcStatus | None
    ) -> tuple[list[PersistentCommand], int]:
        wanted = _COMMANDS.where(_c.tenant_id == tenant_id, _c.device_id == device_id)
        if status is not None:
            wanted = wanted.where(_c.status == status.value)
        rows, total = self._page(wanted, page, _SORT, [_c.request, _c.response])
        return [_command(row) for row in rows], total

    def server_method(self, tenant_id: int, method: str) -> ServerMethod | None:
        row = self._row(self._once(_METHOD), tenant_id=tenant_id, method=method)
        return None if row is None else self._server_method(row)

    def server_methods(self, tenant_id: int) -> list[ServerMethod]:
        return [self._server_method(row) for row in self._rows(self._once(_ALL_METHODS), tenant_id=tenant_id)]

    def _server_method(self, row: Any) -> ServerMethod:
        secret = self._vault.unseal(bytes(row[3]), context=_SECRET).decode()
        return ServerMethod(tenant_id=row[0], method=row[1], url=row[2], secret=secret, timeout_ms=row[4])


class WritesCommands(ReadsCommands, RecordsChanges):
    """`WriteCommands` of the interface."""

    def command_by_id(self, command_id: int) -> PersistentCommand | None:
        if self.node is None:
            return super().command_by_id(command_id)
        row = self._row(self._once(_LOCK_BY_ID), id=command_id)
        return None if row is None else _command(row)

    def open_commands(self, device_id: int, limit: int = MAX_ROWS) -> list[PersistentCommand]:
        if self.node is None:
            return super().open_commands(device_id, limit)
        return [_command(row) for row in self._rows(self._once(_LOCK_OPEN), device_id=device_id, limit=limit)]

    def undelivered_commands(self, device_id: int, limit: int = MAX_ROWS) -> list[PersistentCommand]:
        if self.node is None:
            return super().undelivered_commands(device_id, limit)
        return [_command(row) for row in self._rows(self._once(_LOCK_UNDELIVERED), device_id=device_id, limit=limit)]

    def insert_command(self, command: PersistentCommand) -> int:
        row = self._row(
            self._once(_insert), uuid=command.uuid.bytes, tenant_id=command.tenant_id, device_id=command.device_id,
            created_ms=command.created_ms, expires_ms=command.expires_ms, status=command.status.value,
            is_oneway=command.is_oneway, retries_left=command.retries_left, request=_request(command),
            response=_text(command.response),
        )  # fmt: skip
        if row is None:
            raise InvalidArgument(f"A command with the id {command.uuid} exists already; choose another requestUUID")
        self.writes += 1
        self.record_change(ChangeKind.COMMAND, command.device_id)
        number: int = row[0]
        return number

    def update_command(self, command_id: int, *, status: RpcStatus, retries_left: int, response: Any = None) -> None:
        self._write(
            self._once(_UPDATE), b_id=command_id, status=status.value, retries_left=retries_left,
            response=_text(response),
        )  # fmt: skip

    def mark_command_sent(self, command_id: int, *, now_ms: int) -> None:
        if self.node is not None:
            self._write(self._once(_MARK_SENT), b_id=command_id, sent_ms=now_ms, sent_by=self.node)

    def delete_command(self, command_id: int) -> None:
        self._write(self._once(_DELETE), id=command_id)

    def expire_commands(self, now_ms: int) -> list[int]:
        self.writes += 1
        devices = sorted({row[0] for row in self._rows(self._once(_EXPIRE), b_now_ms=now_ms)})
        for device_id in devices:
            self.record_change(ChangeKind.COMMAND, device_id)  # something may have waited for an expired one
        return devices

    def trim_commands(self, *, before_ms: int) -> int:
        self._write(self._once(_TRIM), before_ms=before_ms)
        removed: int = self._cursor.rowcount
        return removed

    def put_server_method(self, method: ServerMethod) -> None:
        self._write(
            self._once(_put_method), tenant_id=method.tenant_id, method=method.method, url=method.url,
            secret_sealed=self._vault.seal(method.secret.encode(), context=_SECRET), timeout_ms=method.timeout_ms,
        )  # fmt: skip

    def delete_server_method(self, tenant_id: int, method: str) -> bool:
        self._write(self._once(_DELETE_METHOD), tenant_id=tenant_id, method=method)
        return bool(self._cursor.rowcount)


def _command(row: Any) -> PersistentCommand:
    request = decode_json(row[10].encode())
    return PersistentCommand(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], device_id=row[3],
        device_uuid=UUID(bytes=bytes(row[4])), created_ms=row[5], expires_ms=row[6], status=RpcStatus(row[7]),
        is_oneway=bool(row[8]), retries_left=row[9], method=request["method"], params=request["params"],
        additional_info=request.get("additionalInfo"),
        response=None if row[11] is None else decode_json(row[11].encode()), sent_ms=row[12] or 0,
        sent_by=row[13] or "",
    )  # fmt: skip


def _request(command: PersistentCommand) -> str:
    members = {"method": command.method, "params": encodable(command.params)}
    if command.additional_info is not None:
        members["additionalInfo"] = encodable(command.additional_info)
    return msgspec.json.encode(members).decode()


def _text(value: Any) -> str | None:  # Any: decoded JSON
    return None if value is None else msgspec.json.encode(encodable(value)).decode()
