"""What operators page through beside devices and profiles: gateways with what is behind them, provision attempts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple
from uuid import UUID

from cloud_core.core.asking import Asking
from cloud_core.core.inventory import found
from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import TENANT_ADMIN
from cloud_core.core.sub_devices import gateway_of
from cloud_core.model import (
    PROVISION_STATE,
    Attempt,
    AttributeEntry,
    Customer,
    Device,
    DeviceFilter,
    DevicePresence,
    DeviceStage,
    Page,
    Scope,
)
from cloud_core.storage.interface import ReadTx
from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.storage.interface.gateway_lists import DeviceLine
from shared.errors import NotAuthorized
from shared.messages import Value
from shared.values import value_to_text

ROWS_AT_ONCE = 500  # of a list that is read as a whole

NEWEST_WITHIN = 20_000  # lines of the provisioning log


class GatewayView(NamedTuple):
    """A device as a node of the tree, with the gateway that it is behind itself, if any."""

    line: DeviceLine
    behind: Device | None


class ListedDevice(NamedTuple):
    """A device and what a list shows beside it."""

    device: Device
    customer: Customer | None
    is_active: bool
    stage: DeviceStage


class DeviceView(NamedTuple):
    """A device and its place. `behind`: the gateway; `gateway`: itself as one, with what is behind it."""

    device: Device
    customer: Customer | None
    presence: DevicePresence
    stage: DeviceStage
    provision_state: str
    behind: Device | None
    gateway: DeviceLine | None

    @property
    def is_connected(self) -> bool:
        return self.presence.last_connect_ms > self.presence.last_disconnect_ms


class GatewayHealth(NamedTuple):
    """A gateway and what it has told of itself last, with the time in ms."""

    line: DeviceLine
    told: dict[str, tuple[int, Value]]


def device_page(
    tx: ReadTx, tenant_id: int, customer_id: int | None, page: Page, wanted: DeviceFilter
) -> tuple[list[ListedDevice], int]:
    devices, total = tx.devices(tenant_id, page, wanted, customer_id=customer_id)
    rows = zip(devices, tx.device_places(devices), tx.device_stages(devices), strict=True)
    return [ListedDevice(device, owner, active, stage) for device, (owner, active), stage in rows], total


def devices_after(
    tx: ReadTx, tenant_id: int, customer_id: int | None, after: str, text: str, wanted: DeviceFilter
) -> list[ListedDevice]:
    devices = tx.devices_after(tenant_id, after, ROWS_AT_ONCE, text, wanted, customer_id=customer_id)
    rows = zip(devices, tx.device_places(devices), tx.device_stages(devices), strict=True)
    return [ListedDevice(device, owner, active, stage) for device, (owner, active), stage in rows]


def device_view(tx: ReadTx, tenant_id: int, uuid: UUID) -> DeviceView:
    device = found(tx.device(tenant_id, uuid), "Device", uuid)
    ((customer, _),) = tx.device_places([device])
    (stage,) = tx.device_stages([device])
    gateway_id = gateway_of(tx, device)
    state = tx.attribute(device.id, Scope.SERVER, PROVISION_STATE)
    return DeviceView(
        device, customer, tx.presence(device.id) or DevicePresence(device_id=device.id), stage,
        "" if state is None else value_to_text(state), tx.device_by_id(gateway_id) if gateway_id else None,
        tx.gateway_line(device) if device.is_gateway else None,
    )  # fmt: skip


def attributes_of(tx: ReadTx, device_id: int) -> dict[Scope, list[AttributeEntry]]:
    return {scope: sorted(tx.attributes(device_id, scope), key=lambda one: one.key) for scope in Scope}


def attempts_of(tx: ReadTx, tenant_id: int, device_name: str, limit: int) -> list[Attempt]:
    return tx.attempts_of(tenant_id, device_name, limit)


def gateway_healths(tx: ReadTx, tenant_id: int, page: Page, keys: Sequence[str]) -> tuple[list[GatewayHealth], int]:
    lines, total = tx.gateway_page(tenant_id, page)
    return [GatewayHealth(line, tx.latest(line.device.id, keys)) for line in lines], total


def attempts(
    tx: ReadTx, tenant_id: int, with_unassigned: bool, page: Page, wanted: AttemptFilter
) -> tuple[list[Attempt], int]:
    return tx.attempt_page(tenant_id, page, wanted, with_unassigned=with_unassigned)


def newest_attempts(tx: ReadTx, tenant_id: int, uuid: UUID, limit: int) -> list[Attempt]:
    profile = found(tx.profile(tenant_id, uuid), "Device profile", uuid)
    return tx.newest_attempts(profile.id, limit, NEWEST_WITHIN)


def gateways(tx: ReadTx, tenant_id: int, page: Page) -> tuple[list[DeviceLine], int]:
    return tx.gateway_page(tenant_id, page)


def gateway(tx: ReadTx, tenant_id: int, uuid: UUID) -> GatewayView:
    device = found(tx.device(tenant_id, uuid), "Device", uuid)
    gateway_id = gateway_of(tx, device)
    return GatewayView(tx.gateway_line(device), tx.device_by_id(gateway_id) if gateway_id else None)


def sub_devices(tx: ReadTx, tenant_id: int, uuid: UUID, page: Page) -> tuple[list[DeviceLine], int]:
    device = found(tx.device(tenant_id, uuid), "Device", uuid)
    return tx.sub_device_page(tenant_id, device.id, page)


class ListsApi(Asking):
    """Pages for operators; everything is found in the database."""

    async def attempts(self, operator: Operator, page: Page, wanted: AttemptFilter) -> tuple[list[Attempt], int]:
        """The tenant's, and those of nobody's keys for whom `Operator.sees_unassigned`."""
        return await self._read(attempts, operator.tenant_id, operator.sees_unassigned, page, wanted)

    async def newest_attempts(self, operator: Operator, profile: UUID, limit: int) -> list[Attempt]:
        """Of this profile, newest first; none that many others have followed. Raises: NotFound."""
        return await self._read(newest_attempts, operator.tenant_id, profile, limit)

    async def gateways(self, operator: Operator, page: Page) -> tuple[list[DeviceLine], int]:
        return await self._read(gateways, operator.tenant_id, page)

    async def gateway(self, operator: Operator, uuid: UUID) -> GatewayView:
        """Of any device: one that is no gateway has nothing behind it. Raises: NotFound."""
        return await self._read(gateway, operator.tenant_id, uuid)

    async def sub_devices(self, operator: Operator, uuid: UUID, page: Page) -> tuple[list[DeviceLine], int]:
        return await self._read(sub_devices, operator.tenant_id, uuid, page)

    async def devices(self, operator: Operator, page: Page, wanted: DeviceFilter) -> tuple[list[ListedDevice], int]:
        """A page of the tenant's devices; a customer's user sees the customer's. Raises: NotAuthorized."""
        return await self._read(device_page, operator.tenant_id, _customer_of(operator), page, wanted)

    async def all_devices(
        self, operator: Operator, text: str, wanted: DeviceFilter
    ) -> AsyncIterator[list[ListedDevice]]:
        """As `devices`, all of them by name, some hundred at once. Raises: NotAuthorized."""
        after, customer_id = "", _customer_of(operator)
        while rows := await self._read(devices_after, operator.tenant_id, customer_id, after, text, wanted):
            yield rows
            after = rows[-1].device.name

    async def device(self, operator: Operator, uuid: UUID) -> DeviceView:
        """NotFound; NotAuthorized for the user of a customer that it does not belong to."""
        view = await self._read(device_view, operator.tenant_id, uuid)
        operator.check_owner(view.device)
        return view

    async def attributes(self, operator: Operator, device: Device) -> dict[Scope, list[AttributeEntry]]:
        """All of a device's, by scope and name. NotAuthorized as `device`."""
        operator.check_owner(device)
        return await self._read(attributes_of, device.id)

    async def attempts_of(self, operator: Operator, device_name: str, limit: int) -> list[Attempt]:
        """The newest provision attempts of a device of this name, newest first."""
        return await self._read(attempts_of, operator.tenant_id, device_name, limit)

    async def gateway_healths(
        self, operator: Operator, page: Page, keys: Sequence[str]
    ) -> tuple[list[GatewayHealth], int]:
        """A page of gateways with their latest telemetry of these keys."""
        return await self._read(gateway_healths, operator.tenant_id, page, keys)


def _customer_of(operator: Operator) -> int | None:
    """The customer whose devices alone somebody sees; None for all. Raises: NotAuthorized."""
    if operator.authority == TENANT_ADMIN:
        return None
    if operator.customer_id is None:
        raise NotAuthorized
    return operator.customer_id
