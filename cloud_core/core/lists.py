"""What operators page through beside devices and profiles: gateways with what is behind them, provision attempts."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from cloud_core.core.asking import Asking
from cloud_core.core.inventory import found
from cloud_core.core.people.logins import Operator
from cloud_core.core.sub_devices import gateway_of
from cloud_core.model import Attempt, Device, Page
from cloud_core.storage.interface import ReadTx
from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.storage.interface.gateway_lists import DeviceLine

NEWEST_WITHIN = 20_000  # lines of the provisioning log


class GatewayView(NamedTuple):
    """A device as a node of the tree, with the gateway that it is behind itself, if any."""

    line: DeviceLine
    behind: Device | None


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
