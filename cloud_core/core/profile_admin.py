"""Device profiles, as operators see them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet.threads import deferToThread

from cloud_core.core import inventory
from cloud_core.core.api import DeviceApi
from cloud_core.core.asking import Asking, to_the_end
from cloud_core.core.certificates import chain_profiles
from cloud_core.core.people.audit import Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.model import DeviceProfile, Page, ProvisionConfiguration
from cloud_core.proto_schemas import check_schemas, has_schemas


class ProfileAdmin(Asking):
    """A part of `AdminApi`."""

    _api: DeviceApi

    @to_the_end
    async def save_profile(
        self, operator: Operator, uuid: UUID | None, name: str, provision: ProvisionConfiguration,
        document: dict[str, Any], version: int | None,
    ) -> DeviceProfile:  # fmt: skip
        """Creates (no uuid) or updates; key and secret are generated where the strategy needs them."""
        if has_schemas(document):
            await deferToThread(check_schemas, document)
        is_by_chain = chain_profiles.is_by_chain(provision)
        if is_by_chain:
            provision = await deferToThread(chain_profiles.checked, provision, document, self._api.now_ms())
        deed = Deed("CREATED" if uuid is None else "UPDATED", "DEVICE_PROFILE", _of_profile)
        saved = await self._decide_by(
            operator, deed, inventory.save_profile, operator.tenant_id, uuid, name, provision, document, version,
            self._api.now_ms(),
        )  # fmt: skip
        if uuid is not None or is_by_chain:
            self._api.profile_changed()
        if uuid is not None:
            self._api.packages.roll_out()
        return saved

    async def profile(self, operator: Operator, uuid: UUID) -> DeviceProfile:
        return inventory.found(await self._read(inventory.profile, operator.tenant_id, uuid), "Device profile", uuid)

    async def default_profile(self, operator: Operator) -> DeviceProfile:
        return inventory.found(
            await self._read(inventory.default_profile, operator.tenant_id), "Default device profile", ""
        )

    async def profiles(self, operator: Operator, page: Page, transport: str = "") -> tuple[list[DeviceProfile], int]:
        return await self._read(inventory.profiles, operator.tenant_id, page, transport)

    async def profile_names(self, operator: Operator, *, is_used: bool = False) -> list[tuple[UUID, str]]:
        """Uuid and name of every profile, or of those that have devices, by name."""
        return await self._read(inventory.profile_names, operator.tenant_id, is_used)

    @to_the_end
    async def make_default_profile(self, operator: Operator, uuid: UUID) -> DeviceProfile:
        deed = Deed("MADE_DEFAULT", "DEVICE_PROFILE", _of_profile)
        return await self._decide_by(operator, deed, inventory.make_default, operator.tenant_id, uuid)

    @to_the_end
    async def delete_profile(self, operator: Operator, uuid: UUID) -> None:
        deed = Deed("DELETED", "DEVICE_PROFILE", _of_profile)
        await self._decide_by(operator, deed, inventory.delete_profile, operator.tenant_id, uuid)
        self._api.profile_changed()


def _of_profile(profile: DeviceProfile) -> Subject:
    return Subject(profile.uuid, profile.name, f"strategy {profile.provision.strategy.value}")
