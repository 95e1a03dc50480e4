"""A device that comes in anew: provisioned once more, or another unit in the place of a broken one.

Decisions are plain functions of a transaction, checks before writes. In a hardware swap the record of the old device
stays, with its id, name, attributes, history and relations, and the new unit's credentials are put into it: what
others keep of the device goes on being right, and it costs the same however much history there is.

Source: wire-contract.md sections 1.3 and 1.6; product.md section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from cloud_core.core import sub_devices
from cloud_core.core.api import DeviceApi
from cloud_core.core.asking import Asking, to_the_end
from cloud_core.core.downlinks import Ending
from cloud_core.core.inventory import found
from cloud_core.core.people.audit import Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.core.tokens import new_secret
from cloud_core.model import (
    PROVISION_STATE,
    Device,
    DeviceProfile,
    ProvisionStrategy,
    Relation,
    Reprovisioning,
    Scope,
    StoredCredentials,
)
from cloud_core.storage.interface import ReadTx, Store, Tx
from shared.credentials import AccessToken
from shared.errors import InvalidArgument

MAX_ROWS_TAKEN_OVER = 100_000  # of the new unit's own history: a few seconds of the writer's time


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """What a reset has done, or would do. `note` says what stands in the way of another provisioning, if anything."""

    device: Device
    was_provisioned: bool
    has_new_credentials: bool
    may_provision: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """What a swap has done, or would do: `device` as it is afterwards, `unit` the record that is gone."""

    device: Device
    unit: Device
    gateway_id: int  # of the unit; 0 for none
    rows_taken_over: int
    client_attributes: tuple[str, ...]


# -- provision once more --------------------------------------------------------------------------


def reset(tx: Tx, tenant_id: int, uuid: UUID, has_new_credentials: bool, is_plan: bool, now_ms: int) -> Reset:
    """The device may provision again, as far as its profile's strategy lets it."""
    device = found(tx.device(tenant_id, uuid), "Device", uuid)
    profile = found(tx.profile(tenant_id, device.profile_uuid), "Device profile", device.profile_uuid)
    stored = found(tx.credentials(device.id), "Device credentials", uuid)
    was_provisioned = tx.attribute(device.id, Scope.SERVER, PROVISION_STATE) is not None
    note = _obstacle(profile, stored)
    if not is_plan:
        if profile.provision.strategy is ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES:
            tx.delete_attributes(device.id, Scope.SERVER, [PROVISION_STATE])
        if has_new_credentials or (not note and _may_replay(profile, stored)):
            # The same credentials are put anew, too: unconfirmed, so that the same request is answered once more.
            tx.put_credentials(
                device.id, AccessToken(new_secret()) if has_new_credentials else stored.credentials, now_ms=now_ms,
                issued_ms=now_ms if stored.request_digest else None, request_digest=stored.request_digest,
            )  # fmt: skip
    return Reset(
        device=device, was_provisioned=was_provisioned, has_new_credentials=has_new_credentials,
        may_provision=not note, note=note,
    )  # fmt: skip


def _may_replay(profile: DeviceProfile, stored: StoredCredentials) -> bool:
    policy = profile.provision
    return policy.reprovisioning is Reprovisioning.REPLAY_UNTIL_CONFIRMED and stored.request_digest is not None


def _obstacle(profile: DeviceProfile, stored: StoredCredentials) -> str:
    """Why the device is refused nevertheless; empty where it is not."""
    match profile.provision.strategy:
        case ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES:
            return ""
        case ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES:
            if _may_replay(profile, stored):
                return ""
            return (
                f"The profile '{profile.name}' creates devices that do not exist yet; delete this one to let it come"
                " in anew, or put another unit in its place with replace."
            )
        case ProvisionStrategy.X509_CERTIFICATE_CHAIN:
            return f"Devices of the profile '{profile.name}' come in by their certificate; they provision nothing."
        case _:
            return f"The profile '{profile.name}' has provisioning disabled; choose another strategy first."


# -- another unit in its place --------------------------------------------------------------------


def swap(tx: Tx, tenant_id: int, old_uuid: UUID, new_uuid: UUID, is_plan: bool, now_ms: int) -> Replacement:
    """The unit that is known as `new_uuid` is `old_uuid` from now on; the old unit's credentials end."""
    old = found(tx.device(tenant_id, old_uuid), "Device", old_uuid)
    new = found(tx.device(tenant_id, new_uuid), "Device", new_uuid)
    _check_alike(tx, old, new)
    brought = found(tx.credentials(new.id), "Device credentials", new_uuid)
    rows = tx.sample_rows(new.id, at_most=MAX_ROWS_TAKEN_OVER + 1)
    if rows > MAX_ROWS_TAKEN_OVER:
        raise InvalidArgument(
            f"'{new.name}' has sent data at more than {MAX_ROWS_TAKEN_OVER} times already; it is no fresh unit."
            " Swap the names the other way round, or delete its data first."
        )
    told = {entry.key: entry.value for entry in tx.attributes(new.id, Scope.CLIENT)}
    gateway_id = sub_devices.gateway_of(tx, new)
    if not is_plan:
        taken_over = _relations_of(tx, old, new)
        _adopt_unit(tx, old, new, gateway_id)
        tx.move_samples(new.id, old.id)
        tx.delete_device(new.id)
        tx.put_credentials(
            old.id, brought.credentials, now_ms=now_ms, issued_ms=brought.issued_ms,
            request_digest=brought.request_digest,
        )  # fmt: skip
        if brought.confirmed_ms is not None:
            tx.mark_confirmed(old.id, now_ms=brought.confirmed_ms)
        tx.put_attributes(old.id, Scope.CLIENT, told, now_ms=now_ms)
        for relation in taken_over:
            tx.put_relation(relation)
    return Replacement(
        device=old, unit=new, gateway_id=gateway_id, rows_taken_over=rows, client_attributes=tuple(sorted(told))
    )


def _check_alike(tx: ReadTx, old: Device, new: Device) -> None:
    if old.id == new.id:
        raise InvalidArgument(f"'{old.name}' cannot take its own place; name another device as the new unit")
    if old.is_gateway is not new.is_gateway:
        one, other = (old, new) if old.is_gateway else (new, old)
        raise InvalidArgument(f"'{one.name}' is a gateway and '{other.name}' is none; make both the same first")
    if old.profile_id != new.profile_id:
        raise InvalidArgument(
            f"'{old.name}' has the profile '{old.type}' and '{new.name}' the profile '{new.type}'; give both the"
            " same first"
        )


def _adopt_unit(tx: Tx, old: Device, new: Device, gateway_id: int) -> None:
    """Behind a gateway, which may go on calling the unit by the name it came with."""
    if new.is_gateway:
        tx.move_sub_devices(new.id, old.id)
    place = tx.sub_device(new.id)
    if gateway_id and place is not None:
        tx.put_sub_device(replace(place, device_id=old.id))
        tx.put_alias(gateway_id, new.name, old.id)


def _relations_of(tx: ReadTx, old: Device, new: Device) -> list[Relation]:
    """The new unit's, as those of the old device; the old device's own stay as they are."""
    found_ = [
        *tx.relations(new.tenant_id, from_uuid=new.uuid),
        *tx.relations(new.tenant_id, to_uuid=new.uuid),
    ]
    moved = [
        replace(
            one,
            from_uuid=old.uuid if one.from_uuid == new.uuid else one.from_uuid,
            to_uuid=old.uuid if one.to_uuid == new.uuid else one.to_uuid,
        )
        for one in found_
    ]
    known = {_key(one) for one in tx.relations(old.tenant_id, from_uuid=old.uuid)}
    known |= {_key(one) for one in tx.relations(old.tenant_id, to_uuid=old.uuid)}
    return [one for one in moved if one.from_uuid != one.to_uuid and _key(one) not in known]


def _key(one: Relation) -> tuple[UUID, UUID, str, str]:
    return one.from_uuid, one.to_uuid, one.type, one.type_group


def _of_reset(done: Reset) -> Subject:
    return Subject(done.device.uuid, done.device.name, "with new credentials" if done.has_new_credentials else "")


def _of_swap(done: Replacement) -> Subject:
    return Subject(done.device.uuid, done.device.name, f"by the unit {done.unit.name} ({done.unit.uuid})")


class ReplacementApi(Asking):
    """Operators' side of it."""

    def __init__(self, *, store: Store, api: DeviceApi, now_ms: Callable[[], int]) -> None:
        super().__init__(store, api.audit)
        self._api = api
        self._now_ms = now_ms

    @to_the_end
    async def reset(self, operator: Operator, uuid: UUID, *, has_new_credentials: bool, is_plan: bool) -> Reset:
        deed = Deed("PROVISIONING_RESET", "DEVICE", lambda done: None if is_plan else _of_reset(done))
        args = (operator.tenant_id, uuid, has_new_credentials, is_plan, self._now_ms())
        done = await self._decide_by(operator, deed, reset, *args)
        if not is_plan:
            if has_new_credentials:
                self._api.device_changed(done.device.id, Ending.CREDENTIALS_CHANGED)
            else:
                self._api.forget_logins(done.device.id)  # the next login confirms the credentials anew
        return done

    @to_the_end
    async def swap(self, operator: Operator, old: UUID, new: UUID, *, is_plan: bool) -> Replacement:
        """Sessions of both units end: the old one's for good, the new one's to come back as the device."""
        deed = Deed("REPLACED", "DEVICE", lambda done: None if is_plan else _of_swap(done))
        done = await self._decide_by(operator, deed, swap, operator.tenant_id, old, new, is_plan, self._now_ms())
        if not is_plan:
            self._api.device_changed(done.unit.id, Ending.DEVICE_DELETED)
            self._api.device_changed(done.device.id, Ending.CREDENTIALS_CHANGED)
        return done
