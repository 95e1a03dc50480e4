"""What a device is given beside its own members: an owner, firmware and software; and what it is told of them.

Parts of decisions: the checks run before the first write of a save, `assign` and `tell` after.

Source: ThingsBoard's DeviceDataValidator, DeviceProfileDataValidator and DefaultOtaPackageStateService;
wire-contract.md section 2.10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from cloud_core.model import NIL_CUSTOMER, Package, Scope
from cloud_core.storage.interface import ReadTx, Tx
from shared.errors import InvalidArgument
from shared.messages import AttributesChange, PackageKind, Value

MEMBERS = {PackageKind.FIRMWARE: "firmwareId", PackageKind.SOFTWARE: "softwareId"}
PREFIXES = {PackageKind.FIRMWARE: "fw", PackageKind.SOFTWARE: "sw"}
QUEUED = "QUEUED"
_ATTRIBUTES = ("title", "version", "tag", "size", "checksum", "checksum_algorithm", "url")

# For each kind the number of the package that is wanted, None for none.
Wanted = dict[PackageKind, int | None]


def entity_uuid(value: Any, name: str) -> UUID | None:  # Any: decoded JSON
    """Of `{"id": "…"}` or of the text itself; None where nothing is given. Raises: InvalidArgument."""
    text = value.get("id") if isinstance(value, dict) else value
    if text is None:
        return None
    try:
        return UUID(str(text))
    except ValueError as error:
        raise InvalidArgument(f"Validation error: {name} is no valid id") from error


# -- owners ---------------------------------------------------------------------------------------


def wanted_owner(tx: ReadTx, tenant_id: int, members: Mapping[str, Any], stored: int | None) -> int | None:
    """The customer that a saved device shall belong to.

    Without the member, or with null, the owner stays: a client that knows nothing of customers must not take
    a device from its owner. The nil customer stands for nobody. Raises: InvalidArgument.
    """
    uuid = entity_uuid(members.get("customerId"), "customerId")
    if uuid is None:
        return stored
    if uuid == NIL_CUSTOMER:
        return None
    customer = tx.customer(tenant_id, uuid)
    if customer is None:
        raise InvalidArgument("Can't assign device to non-existent customer!")
    return customer.id


# -- packages -------------------------------------------------------------------------------------


def wanted_packages(tx: ReadTx, tenant_id: int, members: Mapping[str, Any], profile_id: int | None) -> Wanted:
    """What `firmwareId` and `softwareId` say; `profile_id` None is a profile that does not exist yet.

    Raises: InvalidArgument for one that does not exist, is of the other kind or another profile's, or is empty.
    """
    return {kind: _wanted(tx, tenant_id, members.get(member), kind, profile_id) for kind, member in MEMBERS.items()}


def _wanted(tx: ReadTx, tenant_id: int, value: Any, kind: PackageKind, profile_id: int | None) -> int | None:
    uuid = entity_uuid(value, MEMBERS[kind])
    if uuid is None or uuid == NIL_CUSTOMER:  # ThingsBoard's nil id, whatever the entity
        return None
    package, word = tx.package(tenant_id, uuid), kind.value.lower()
    if package is None:
        raise InvalidArgument(f"Can't assign non-existent {word}!")
    if package.kind is not kind:
        raise InvalidArgument(f"Can't assign {word} with type: {package.kind.value}")
    if not package.has_data and not package.url:
        raise InvalidArgument(f"Can't assign {word} with empty data!")
    if package.profile_id != profile_id:
        raise InvalidArgument(f"Can't assign {word} with different deviceProfile!")
    return package.id


def assign(tx: Tx, wanted: Wanted, *, device_id: int = 0, profile_id: int = 0) -> list[PackageKind]:
    """Stores what is wanted of a device or of a profile; returns the kinds that have changed."""
    changed = [
        kind
        for kind, package_id in wanted.items()
        if tx.assignment(kind, device_id=device_id, profile_id=profile_id) != package_id
    ]
    for kind in changed:
        tx.assign_package(kind, wanted[kind], device_id=device_id, profile_id=profile_id)
    return changed


def has_packages(document: Mapping[str, Any]) -> bool:
    """Whether the REST members of a profile name any: spares new devices of others the look-ups."""
    return any(document.get(member) for member in MEMBERS.values())


def tell_new_device(tx: Tx, device_id: int, profile_document: Mapping[str, Any], *, now_ms: int) -> None:
    """What a device that has just been made is told of its profile's packages; nobody can be listening yet."""
    if has_packages(profile_document):
        tell_assigned(tx, device_id, now_ms=now_ms)


def tell_assigned(tx: Tx, device_id: int, *, now_ms: int) -> None:
    """As `tell_new_device`, where the profile is not at hand."""
    for kind in PackageKind:
        if tx.assigned_package(device_id, kind) is not None:
            tell(tx, device_id, kind, now_ms=now_ms)


def tell(tx: Tx, device_id: int, kind: PackageKind, *, now_ms: int) -> tuple[AttributesChange, ...]:
    """Writes what the device shall know of its package, and that the update is queued; returns the news for it."""
    package = tx.assigned_package(device_id, kind)
    values = attributes_of(package) if package is not None else {}
    known = tx.attributes(device_id, Scope.SHARED, [f"{PREFIXES[kind]}_{name}" for name in _ATTRIBUTES])
    gone = tuple(entry.key for entry in known if entry.key not in values)
    news = []
    if gone:
        tx.delete_attributes(device_id, Scope.SHARED, gone)
        news.append(AttributesChange(deleted=gone))
    if package is not None:
        tx.put_attributes(device_id, Scope.SHARED, values, now_ms=now_ms)
        tx.append_samples(device_id, [(now_ms, _target_of(package, now_ms))])
        news.append(AttributesChange(values=values))
    return tuple(news)


def attributes_of(package: Package) -> dict[str, Value]:
    """The shared attributes that announce a package: `fw_title` and so on."""
    members: dict[str, Value] = {"title": package.title, "version": package.version}
    if package.tag:
        members["tag"] = package.tag
    if package.url:
        members["url"] = package.url
    if package.has_data:
        members["size"] = package.size_bytes
    if package.checksum:
        members |= {"checksum": package.checksum, "checksum_algorithm": package.checksum_algorithm}
    return {f"{PREFIXES[package.kind]}_{name}": value for name, value in members.items()}


def _target_of(package: Package, now_ms: int) -> dict[str, Value]:
    prefix = PREFIXES[package.kind]
    values: dict[str, Value] = {
        f"{prefix}_state": QUEUED,
        f"target_{prefix}_title": package.title,
        f"target_{prefix}_version": package.version,
        f"target_{prefix}_ts": now_ms,
    }
    return values | {f"target_{prefix}_tag": package.tag} if package.tag else values
