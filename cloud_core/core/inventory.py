"""Decisions and queries of administration: plain functions of a transaction, checks before writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from cloud_core.core import sub_devices
from cloud_core.core.assignments import MEMBERS, Wanted, assign, entity_uuid, tell, wanted_owner, wanted_packages
from cloud_core.core.certificates import chain_profiles
from cloud_core.core.holders import holder
from cloud_core.core.names import fault_of
from cloud_core.core.quota import check_room
from cloud_core.core.tokens import new_secret, new_uuid
from cloud_core.core.unique_names import REFUSE, Naming, named
from cloud_core.model import (
    DEFAULT_TENANT,
    Approval,
    Attempt,
    AttributeEntry,
    Customer,
    Device,
    DeviceFilter,
    DeviceProfile,
    Page,
    ProvisionConfiguration,
    ProvisionStrategy,
    Scope,
    User,
)
from cloud_core.storage.interface import NewDevice, NewProfile, ReadTx, TimeSeriesQuery, Tx
from cloud_core.storage.interface.packages import Rollout
from shared.credentials import AccessToken, Credentials, check_credentials
from shared.errors import (
    InvalidArgument,
    InvalidCredentials,
    NotFound,
    VersionConflict,
)
from shared.messages import AttributesChange, PackageKind, Value

R = TypeVar("R")
DEFAULT_PROFILE = "default"
_GENERATED = (ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES, ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES)


def found(entity: R | None, kind: str, which: object) -> R:
    if entity is None:
        raise NotFound(f"{kind} with id [{which}] is not found")
    return entity


def user(tx: ReadTx, username: str) -> User | None:
    return tx.user_by_name(username)


UserInPlace = tuple[User, UUID | None, Customer | None]


def user_with_places(tx: ReadTx, username: str) -> UserInPlace | None:
    """The user, the tenant's uuid, and the customer whose user it is."""
    user = tx.user_by_name(username)
    if user is None:
        return None
    customer = tx.customer_by_id(user.customer_id) if user.customer_id is not None else None
    return user, tx.tenant_uuid(user.tenant_id), customer


def default_tenant_id(tx: ReadTx) -> int:
    tenant_id = tx.tenant_id(DEFAULT_TENANT)
    assert tenant_id is not None, "the store makes the default tenant"
    return tenant_id


def first_administrator(tx: ReadTx, username: str) -> tuple[User | None, bool, bool]:
    """The user of this name, whether that is one of the first tenant's own, and whether that has administrators."""
    known, tenant_id = tx.user_by_name(username), default_tenant_id(tx)
    is_in_place = known is not None and known.tenant_id == tenant_id and known.authority == "TENANT_ADMIN"
    return known, is_in_place, tx.administrator_count(tenant_id) > 0


def first_start(tx: Tx, username: str, hashed: str, now_ms: int) -> None:
    """Nothing is left to do where another node, started in the same moment, came first."""
    if tx.user_by_name(username) is not None:
        return
    tenant_id = default_tenant_id(tx)
    tx.insert_user(
        User(
            id=0, uuid=new_uuid(now_ms), tenant_id=tenant_id, username=username, password_hash=hashed,
            authority="TENANT_ADMIN", created_ms=now_ms,
        )
    )  # fmt: skip
    make_default_profile(tx, tenant_id, now_ms)


def make_default_profile(tx: Tx, tenant_id: int, now_ms: int) -> None:
    """Where the tenant has none."""
    if tx.default_profile(tenant_id) is None:
        tx.insert_profile(
            NewProfile(
                uuid=new_uuid(now_ms), tenant_id=tenant_id, name=DEFAULT_PROFILE, provision=ProvisionConfiguration(),
                document={"description": "Default device profile"}, created_ms=now_ms, is_default=True,
            )
        )  # fmt: skip


def profile(tx: ReadTx, tenant_id: int, uuid: UUID) -> DeviceProfile | None:
    return tx.profile(tenant_id, uuid)


def default_profile(tx: ReadTx, tenant_id: int) -> DeviceProfile | None:
    return tx.default_profile(tenant_id)


def profiles(tx: ReadTx, tenant_id: int, page: Page, transport: str) -> tuple[list[DeviceProfile], int]:
    return tx.profiles(tenant_id, page, transport)


def profile_names(tx: ReadTx, tenant_id: int, is_used: bool) -> list[tuple[UUID, str]]:
    return tx.profile_names(tenant_id, is_used=is_used)


def make_default(tx: Tx, tenant_id: int, uuid: UUID) -> DeviceProfile:
    """The tenant's default profile from now on, in place of the one before."""
    profile = found(tx.profile(tenant_id, uuid), "Device profile", uuid)
    if not profile.is_default:
        tx.set_default_profile(tenant_id, profile.id)
    return found(tx.profile(tenant_id, uuid), "Device profile", uuid)


def check_profile_name(name: str) -> None:
    """Raises: InvalidArgument."""
    if not name.strip():
        raise InvalidArgument("Device profile name should be specified!")
    fault = fault_of("name", name)
    if fault:
        raise InvalidArgument(f"Validation error: {fault}")


def save_profile(
    tx: Tx, tenant_id: int, uuid: UUID | None, name: str, provision: ProvisionConfiguration,
    document: dict[str, Any], version: int | None, now_ms: int,
) -> DeviceProfile:  # fmt: skip
    check_profile_name(name)
    stored = found(tx.profile(tenant_id, uuid), "Device profile", uuid) if uuid else None
    if chain_profiles.is_by_chain(provision) and provision.approval is not Approval.NONE:
        raise InvalidArgument("Validation error: approval is for devices that send provision requests")
    same_name = tx.profile_by_name(tenant_id, name)
    if same_name is not None and (stored is None or same_name.id != stored.id):
        raise InvalidArgument("Device profile with such name already exists!")
    if provision.strategy in _GENERATED:
        provision = replace(provision, key=provision.key or new_secret(), secret=provision.secret or new_secret())
    if chain_profiles.is_by_chain(provision):
        chain_profiles.check_unique(tx, provision, tenant_id, stored.id if stored else None)
    if stored is not None and provision.secret == stored.provision.secret:
        former = stored.provision  # which a rotation has left, and no REST member says
        provision = replace(provision, former_secret=former.former_secret, former_until_ms=former.former_until_ms)
    same_key = tx.profile_by_key(provision.key) if provision.key else None
    if provision.key and tx.provision_key(provision.key) is not None:
        raise InvalidArgument(chain_profiles.SAME_KEY)
    if same_key is not None and (stored is None or same_key.id != stored.id):
        raise InvalidArgument(chain_profiles.SAME_KEY)
    if stored is not None and _transport_of(document) != _transport_of(stored.document) and tx.profile_users(stored.id):
        raise InvalidArgument("Can't change device profile transport type because devices referenced it!")
    packages = wanted_packages(tx, tenant_id, document, stored.id if stored else None)
    if stored is None:
        profile = NewProfile(
            uuid=new_uuid(now_ms),
            tenant_id=tenant_id,
            name=name,
            provision=provision,
            document=document,
            created_ms=now_ms,
        )
        tx.insert_profile(profile)
        return found(tx.profile(tenant_id, profile.uuid), "Device profile", profile.uuid)
    if version is not None and version != stored.version:
        raise VersionConflict
    tx.update_profile(replace(stored, name=name, provision=provision, document=document))
    for kind in assign(tx, packages, profile_id=stored.id):
        tx.put_package_rollout(Rollout(stored.id, kind))  # its devices are told batch by batch
    return found(tx.profile(tenant_id, stored.uuid), "Device profile", stored.uuid)


def _transport_of(document: dict[str, Any]) -> str:
    return str(document.get("transportType") or "DEFAULT")  # as it is shown where it was never said


def delete_profile(tx: Tx, tenant_id: int, uuid: UUID) -> DeviceProfile:
    profile = found(tx.profile(tenant_id, uuid), "Device profile", uuid)
    if profile.is_default:
        raise InvalidArgument("Deletion of Default Device Profile is prohibited!")
    if tx.profile_users(profile.id):
        raise InvalidArgument("The device profile referenced by the devices cannot be deleted!")
    tx.delete_relations_of(tenant_id, profile.uuid)
    tx.delete_profile(profile.id)
    return profile


def device(tx: ReadTx, tenant_id: int, uuid: UUID) -> Device | None:
    return tx.device(tenant_id, uuid)


def device_ids(tx: ReadTx, tenant_id: int, uuids: Sequence[UUID]) -> list[int]:
    """The numbers of the devices, in the order given. Raises: NotFound naming the first that is unknown."""
    return [found(tx.device(tenant_id, uuid), "Device", uuid).id for uuid in uuids]


def device_by_name(tx: ReadTx, tenant_id: int, name: str) -> Device | None:
    return tx.device_by_name(tenant_id, name)


def devices(tx: ReadTx, tenant_id: int, page: Page, wanted: DeviceFilter) -> tuple[list[Device], int]:
    return tx.devices(tenant_id, page, wanted)


def devices_by_ids(tx: ReadTx, tenant_id: int, uuids: Sequence[UUID]) -> list[Device]:
    """Those that exist, in the order given."""
    return [device for uuid in uuids if (device := tx.device(tenant_id, uuid)) is not None]


def text_member(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgument(f"Validation error: {name} must be a string")
    return value


_OWN_MEMBERS = frozenset(
    ("id", "createdTime", "tenantId", "name", "type", "label", "deviceProfileId", "version", "customerId")
)


@dataclass(frozen=True, slots=True)
class SavedDevice:
    """A device as it was written.

    `ends_sessions`: its credentials, or something that its sessions hold a copy of, have changed.
    `news`: what its packages have changed in its shared attributes. Of a device that was renamed, `former_name`
    and the number of its gateway (0 for none).
    """

    device: Device
    is_new: bool
    ends_sessions: bool
    news: tuple[AttributesChange, ...] = ()
    former_name: str = ""
    gateway_id: int = 0


class Deleted(NamedTuple):
    """A device that was; `gateway_id` 0 for none."""

    device_id: int
    name: str
    gateway_id: int


def write_device(
    tx: Tx, tenant_id: int, members: dict[str, Any], credentials: Credentials | None, now_ms: int,
    naming: Naming = REFUSE,
) -> SavedDevice:  # fmt: skip
    """All checks before the first write, but for packages of a profile that this very call makes."""
    members = named(tx, tenant_id, members, naming)
    name, kind, label = (text_member(members, one) for one in ("name", "type", "label"))
    check_texts(name, kind, label)
    uuid = entity_uuid(members.get("id"), "id")
    stored = found(tx.device(tenant_id, uuid), "Device", uuid) if uuid else None
    same_name = tx.device_by_name(tenant_id, name)
    if same_name is not None and (stored is None or same_name.id != stored.id):
        raise InvalidArgument("Device with such name already exists!")
    if credentials is not None:
        credentials = checked(credentials)
        if holder(tx, credentials, now_ms) not in (None, stored.id if stored else None):
            raise InvalidArgument("Specified credentials are already registered!")
    document = {key: value for key, value in members.items() if key not in _OWN_MEMBERS}
    info = document.get("additionalInfo")
    is_gateway = isinstance(info, dict) and info.get("gateway") is True
    version = members.get("version")
    if stored is not None and version is not None and version != stored.version:
        raise VersionConflict
    if stored is None:
        check_room(tx, tenant_id)
    owner = wanted_owner(tx, tenant_id, members, stored.customer_id if stored else None)
    profile_id = _profile_for(tx, tenant_id, members, kind, stored, now_ms)
    packages = wanted_packages(tx, tenant_id, members, profile_id)
    if stored is None:
        device = NewDevice(
            uuid=new_uuid(now_ms), tenant_id=tenant_id, profile_id=profile_id, name=name, created_ms=now_ms,
            label=label, is_gateway=is_gateway, document=document, customer_id=owner,
        )  # fmt: skip
        device_id = tx.insert_device(device)
        token = credentials or AccessToken(new_secret())
        tx.put_credentials(device_id, token, now_ms=now_ms, is_new_device=True)
        _assign_and_tell(tx, device_id, packages, {}, now_ms)
        device_now = found(tx.device(tenant_id, device.uuid), "Device", device.uuid)
        return SavedDevice(device_now, is_new=True, ends_sessions=credentials is not None)
    before = _packages_of(tx, stored.id)
    changed = replace(stored, name=name, label=label, profile_id=profile_id, is_gateway=is_gateway, document=document)
    is_renamed = name != stored.name
    gateway_id = sub_devices.keep_former_name(tx, stored) if is_renamed else 0
    tx.update_device(changed)
    if owner != stored.customer_id:
        tx.delete_claim_offer(stored.id)  # it was made to whoever claims a device without an owner
        tx.assign_device(stored.id, owner)
    if credentials is not None:
        tx.put_credentials(stored.id, credentials, now_ms=now_ms)
    is_other = (name, profile_id, is_gateway) != (stored.name, stored.profile_id, stored.is_gateway)
    return SavedDevice(
        found(tx.device(tenant_id, stored.uuid), "Device", stored.uuid), is_new=False,
        ends_sessions=is_other or credentials is not None,
        news=_assign_and_tell(tx, stored.id, packages, before, now_ms),
        former_name=stored.name if is_renamed else "", gateway_id=gateway_id,
    )  # fmt: skip


def _packages_of(tx: ReadTx, device_id: int) -> Wanted:
    """The numbers of the packages that the device has, its profile's included."""
    packages = {kind: tx.assigned_package(device_id, kind) for kind in MEMBERS}
    return {kind: package.id if package is not None else None for kind, package in packages.items()}


def _assign_and_tell(
    tx: Tx, device_id: int, wanted: Wanted, before: Wanted, now_ms: int
) -> tuple[AttributesChange, ...]:
    """Tells the device only of kinds whose package is another than before, be it by its profile."""
    assign(tx, wanted, device_id=device_id)
    after = _packages_of(tx, device_id)
    changed: list[PackageKind] = [kind for kind in MEMBERS if after[kind] != before.get(kind)]
    return tuple(change for kind in changed for change in tell(tx, device_id, kind, now_ms=now_ms))


def check_texts(name: str, kind: str, label: str) -> None:
    if not name.strip():
        raise InvalidArgument("Device name should be specified!")
    for field, value in (("name", name), ("type", kind), ("label", label)):
        fault = fault_of(field, value)
        if fault:
            raise InvalidArgument(f"Validation error: {fault}")


def checked(credentials: Credentials) -> Credentials:
    """Raises: InvalidArgument in the words of the rule that is broken."""
    try:
        return check_credentials(credentials)
    except InvalidCredentials as error:
        raise InvalidArgument(str(error)) from error


def _profile_for(tx: Tx, tenant_id: int, members: dict[str, Any], kind: str, stored: Device | None, now_ms: int) -> int:
    """By id, else by type (found or created), else as it was, else the tenant's default."""
    uuid = entity_uuid(members.get("deviceProfileId"), "deviceProfileId")
    if uuid is not None:
        profile = tx.profile(tenant_id, uuid)
        if profile is None:
            raise InvalidArgument("Device is referencing to non-existent device profile!")
        return profile.id
    if not kind:
        if stored is not None:
            return stored.profile_id
        default = tx.default_profile(tenant_id)
        if default is not None:
            return default.id
    name = kind or DEFAULT_PROFILE
    known = tx.profile_by_name(tenant_id, name)
    if known is not None:
        return known.id
    return tx.insert_profile(
        NewProfile(
            uuid=new_uuid(now_ms), tenant_id=tenant_id, name=name, provision=ProvisionConfiguration(), document={},
            created_ms=now_ms,
        )
    )  # fmt: skip


def delete_device(tx: Tx, tenant_id: int, uuid: UUID, now_ms: int) -> Deleted:
    device = found(tx.device(tenant_id, uuid), "Device", uuid)
    gateway_id = sub_devices.bury(tx, device, now_ms)
    tx.delete_device(device.id)
    return Deleted(device.id, device.name, gateway_id)


def latest(tx: ReadTx, device_id: int, keys: Sequence[str] | None) -> dict[str, tuple[int, Value]]:
    return tx.latest(device_id, keys)


def history(tx: ReadTx, device_id: int, query: TimeSeriesQuery) -> dict[str, list[tuple[int, Value]]]:
    return tx.history(device_id, query)


def attributes(tx: ReadTx, device_id: int, scopes: Sequence[Scope], keys: Sequence[str] | None) -> list[AttributeEntry]:
    return [entry for scope in scopes for entry in tx.attributes(device_id, scope, keys)]


def attempt(tx: ReadTx, ref: str) -> Attempt | None:
    return tx.attempt(ref)


def attempts(tx: ReadTx, tenant_id: int, with_unassigned: bool, limit: int) -> list[Attempt]:
    return tx.attempts(limit, tenant_id=tenant_id, with_unassigned=with_unassigned)
