"""Devices, their credentials, relations and data, as operators see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from cloud_core.core import device_credentials, device_rows, histories, inventory, relations
from cloud_core.core.api import DeviceApi
from cloud_core.core.asking import Asking, answered, to_the_end
from cloud_core.core.attributes import check_writable
from cloud_core.core.downlinks import Ending
from cloud_core.core.histories import AggregateQuery, Removal
from cloud_core.core.people.audit import Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.core.relations import DeviceSearch
from cloud_core.core.unique_names import REFUSE, Naming
from cloud_core.model import (
    EVERY_DEVICE,
    AttributeEntry,
    Device,
    DeviceFilter,
    Page,
    Relation,
    Scope,
    StoredCredentials,
)
from cloud_core.storage.interface import TimeSeriesQuery
from shared.credentials import AccessToken, Credentials, credentials_type
from shared.errors import InvalidArgument
from shared.messages import Attributes, Sample, Value

MAX_BULK_ROWS = 10_000


class DeviceAdmin(Asking):
    """A part of `AdminApi`."""

    _api: DeviceApi

    @to_the_end
    async def save_device(
        self,
        operator: Operator,
        members: dict[str, Any],
        access_token: str = "",
        *,
        credentials: Credentials | None = None,
        naming: Naming = REFUSE,
    ) -> Device:
        """Creates or updates from REST members (`id`, `name`, `type`, `label`, `deviceProfileId`, …)."""
        brought = credentials or (AccessToken(access_token) if access_token else None)
        deed = Deed("UPDATED" if members.get("id") else "CREATED", "DEVICE", lambda saved: _of_device(saved, brought))
        saved = await self._decide_by(
            operator, deed, inventory.write_device, operator.tenant_id, members, brought, self._api.now_ms(), naming
        )
        self._tell(operator, saved)
        return saved.device

    def _tell(self, operator: Operator, saved: inventory.SavedDevice) -> None:
        """Sessions and gateways hear of what is on disk now."""
        self._api.attributes.changed(saved.device.id, saved.news)
        if saved.ends_sessions:
            self._api.device_changed(saved.device.id, Ending.DEVICE_CHANGED)
        if saved.gateway_id:
            self._api.gateways.renamed(operator.tenant_id, saved.gateway_id, saved.former_name, saved.device.name)

    @to_the_end
    async def save_devices(self, operator: Operator, rows: Sequence[Any], *, is_plan: bool) -> list[dict[str, Any]]:
        """One outcome per row: `{index, name, status, id, error}` (product.md section 5, REST)."""
        if len(rows) > MAX_BULK_ROWS:
            raise InvalidArgument(f"At most {MAX_BULK_ROWS} devices at once; split the list")
        told: list[dict[str, Any]] = []
        wanted, at_once = device_rows.rows_of(rows), device_rows.SAVED_AT_ONCE
        for start in range(0, len(wanted), at_once):
            args = (operator.tenant_id, wanted[start : start + at_once], is_plan, self._api.now_ms())
            if is_plan:
                outcomes = await self._decide(device_rows.save_rows, *args)
            else:
                deed = Deed("SAVED", "DEVICE", _of_rows)
                outcomes = await self._decide_by(operator, deed, device_rows.save_rows, *args)
            for outcome in outcomes:
                told.append(outcome.told)
                if outcome.saved is not None:
                    self._tell(operator, outcome.saved)
        return told

    async def device(self, operator: Operator, uuid: UUID) -> Device:
        """NotFound; NotAuthorized for the user of a customer that it does not belong to."""
        device = inventory.found(await self._read(inventory.device, operator.tenant_id, uuid), "Device", uuid)
        operator.check_owner(device)
        return device

    async def device_by_name(self, operator: Operator, name: str) -> Device:
        return inventory.found(await self._read(inventory.device_by_name, operator.tenant_id, name), "Device", name)

    async def devices(
        self, operator: Operator, page: Page, wanted: DeviceFilter = EVERY_DEVICE
    ) -> tuple[list[Device], int]:
        return await self._read(inventory.devices, operator.tenant_id, page, wanted)

    async def devices_by_ids(self, operator: Operator, uuids: Sequence[UUID]) -> list[Device]:
        """Those that exist, in the order given."""
        return await self._read(inventory.devices_by_ids, operator.tenant_id, uuids)

    @to_the_end
    async def delete_device(self, operator: Operator, uuid: UUID) -> None:
        deed = Deed("DELETED", "DEVICE", lambda deleted: Subject(uuid, deleted.name))
        deleted = await self._decide_by(
            operator, deed, inventory.delete_device, operator.tenant_id, uuid, self._api.now_ms()
        )
        self._api.device_changed(deleted.device_id, Ending.DEVICE_DELETED)
        if deleted.gateway_id:
            self._api.gateways.deleted(operator.tenant_id, deleted.gateway_id, deleted.name)

    async def credentials(self, operator: Operator, uuid: UUID) -> StoredCredentials:
        device = await self.device(operator, uuid)
        return inventory.found(await self._read(device_credentials.find, device.id), "Device credentials", uuid)

    @to_the_end
    async def save_credentials(
        self, operator: Operator, uuid: UUID, credentials: Credentials, *,
        known_uuid: UUID | None = None, version: int | None = None,
    ) -> StoredCredentials:  # fmt: skip
        """Replaces a device's credentials; its session ends.

        InvalidArgument and VersionConflict where the device's are not those of `known_uuid` and `version`.
        """
        kind = credentials_type(credentials).value
        deed = Deed("UPDATED", "CREDENTIALS", lambda _: Subject(uuid, "", f"of a device, now {kind}"))
        stored = await self._decide_by(
            operator, deed, device_credentials.save, operator.tenant_id, uuid, credentials, known_uuid, version,
            self._api.now_ms(),
        )  # fmt: skip
        self._api.device_changed(stored.device_id, Ending.CREDENTIALS_CHANGED)
        return stored

    # -- relations --------------------------------------------------------------------------------

    async def save_relation(self, operator: Operator, relation: Relation) -> None:
        await self._decide_by(operator, _of_relation("UPDATED", relation), relations.save, relation)

    async def relation(self, relation: Relation) -> Relation:
        """The stored one with the same ends, type and group. Raises: NotFound."""
        return await self._read(relations.find, relation)

    async def delete_relation(self, operator: Operator, relation: Relation) -> None:
        await self._decide_by(operator, _of_relation("DELETED", relation), relations.delete, relation)

    async def relations(
        self, operator: Operator, from_uuid: UUID | None, to_uuid: UUID | None, type_: str, type_group: str
    ) -> list[Relation]:
        return await self._read(relations.of_end, operator.tenant_id, from_uuid, to_uuid, type_, type_group)

    async def related_devices(self, operator: Operator, wanted: DeviceSearch) -> list[Device]:
        return await self._read(relations.search, operator.tenant_id, wanted)

    # -- data -------------------------------------------------------------------------------------

    async def latest(self, operator: Operator, uuid: UUID, keys: Sequence[str] | None) -> dict[str, tuple[int, Value]]:
        device = await self.device(operator, uuid)
        return await self._read(inventory.latest, device.id, keys)

    async def history(
        self, operator: Operator, uuid: UUID, query: TimeSeriesQuery
    ) -> dict[str, list[tuple[int, Value]]]:
        device = await self.device(operator, uuid)
        return await self._read(inventory.history, device.id, query)

    async def aggregated(
        self, operator: Operator, uuid: UUID, query: AggregateQuery
    ) -> dict[str, list[tuple[int, Value]]]:
        """Part by part, so that other look-ups are served in between."""
        device = await self.device(operator, uuid)
        folded, from_ms = histories.Folded(query), query.start_ms
        while True:
            part, rest = await self._read(histories.fold_part, device.id, query, from_ms)
            folded.join(part)
            if rest is None:
                return folded.points()
            from_ms = rest

    async def remove_samples(self, operator: Operator, uuid: UUID, removal: Removal) -> None:
        """Part by part, so that devices are served in between."""
        device = await self.device(operator, uuid)
        from_ms: int | None = removal.start_ms
        while from_ms is not None:
            deed = Deed("TELEMETRY_DELETED", "DEVICE", _of_part(device, is_first=from_ms == removal.start_ms))
            from_ms = await self._decide_by(operator, deed, histories.remove, device.id, removal, from_ms)

    async def attributes(
        self, operator: Operator, uuid: UUID, scopes: Sequence[Scope], keys: Sequence[str] | None
    ) -> list[AttributeEntry]:
        device = await self.device(operator, uuid)
        return await self._read(inventory.attributes, device.id, scopes, keys)

    async def put_attributes(self, operator: Operator, uuid: UUID, scope: Scope, values: Attributes) -> None:
        device = await self.device(operator, uuid)
        await answered(
            lambda done: self._api.attributes.put(device.id, scope, values, done, by=operator, device=device)
        )

    async def put_attributes_of(
        self, operator: Operator, uuids: Sequence[UUID], scope: Scope, values: Attributes
    ) -> None:
        """The same attributes for many devices; all must exist. Raises: NotFound, InvalidArgument."""
        check_writable(scope, values)
        numbers = await self._read(inventory.device_ids, operator.tenant_id, uuids)
        await answered(lambda done: self._api.attributes.put_all(numbers, scope, values, done, by=operator))

    async def delete_attributes(self, operator: Operator, uuid: UUID, scope: Scope, keys: Sequence[str]) -> None:
        device = await self.device(operator, uuid)
        await answered(
            lambda done: self._api.attributes.delete(device.id, scope, keys, done, by=operator, device=device)
        )

    async def append_samples(self, operator: Operator, uuid: UUID, samples: list[Sample]) -> None:
        device = await self.device(operator, uuid)
        await answered(lambda done: self._store.append(device.id, samples, done))


def _of_part(device: Device, *, is_first: bool) -> Callable[[Any], Subject | None]:
    """A deletion in parts is one deed, recorded with the first of them."""
    return lambda _: Subject(device.uuid, device.name) if is_first else None


def _of_device(saved: inventory.SavedDevice, brought: Credentials | None) -> Subject:
    detail = f"with credentials {credentials_type(brought).value}" if brought is not None else ""
    return Subject(saved.device.uuid, saved.device.name, detail)


def _of_rows(outcomes: list[device_rows.Outcome]) -> Subject:
    counts = Counter(one.told["status"] for one in outcomes)
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return Subject(None, f"{len(outcomes)} devices", said)


def _of_relation(action: str, relation: Relation) -> Deed:
    said = f"{relation.from_type} {relation.from_uuid} to {relation.to_type} {relation.to_uuid}"
    return Deed(action, "RELATION", lambda _: Subject(None, relation.type, said))
