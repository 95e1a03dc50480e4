"""Relations between entities: decisions and queries of administration (wire-contract.md section 6.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from cloud_core.core.names import fault_of
from cloud_core.model import Device, Relation
from cloud_core.storage.interface import ReadTx, Tx
from shared.errors import InvalidArgument, NotFound

CONTAINS = "Contains"
COMMON = "COMMON"
TYPE_GROUPS = (COMMON, "DASHBOARD", "RULE_CHAIN", "RULE_NODE", "EDGE", "EDGE_AUTO_ASSIGN_RULE_CHAIN")
MAX_LEVELS = 10  # of a query; also what "without limit" means
MAX_DEVICES_FOUND = 10_000
MAX_RELATIONS = 10_000  # of one end, in one answer

# What can be related: kind of entity -> whether the tenant has it.
_EXISTS: dict[str, Callable[[ReadTx, int, UUID], bool]] = {
    "DEVICE": lambda tx, tenant_id, uuid: tx.device(tenant_id, uuid) is not None,
    "DEVICE_PROFILE": lambda tx, tenant_id, uuid: tx.profile(tenant_id, uuid) is not None,
    "CUSTOMER": lambda tx, tenant_id, uuid: tx.customer(tenant_id, uuid) is not None,
    "TENANT": lambda tx, tenant_id, uuid: tx.tenant_uuid(tenant_id) == uuid,
}
ENTITY_TYPES = tuple(_EXISTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSearch:
    """Devices that are related to `root`, directly or over at most `max_levels` steps."""

    root: UUID
    is_from_root: bool = True  # else towards it
    type: str = CONTAINS
    device_types: tuple[str, ...] = ()  # empty: all
    max_levels: int = 1


def save(tx: Tx, relation: Relation) -> None:
    """In place of one with the same ends, type and group. Raises: InvalidArgument, NotFound."""
    if not relation.type.strip():
        raise InvalidArgument("Relation type should be specified!")
    fault = fault_of("type", relation.type)
    if fault:
        raise InvalidArgument(f"Validation error: {fault}")
    if relation.type_group not in TYPE_GROUPS:
        raise InvalidArgument(f"Validation error: typeGroup must be one of {', '.join(TYPE_GROUPS)}")
    for kind, uuid in ((relation.from_type, relation.from_uuid), (relation.to_type, relation.to_uuid)):
        if kind not in _EXISTS:
            raise InvalidArgument(f"Validation error: entityType must be one of {', '.join(ENTITY_TYPES)}")
        if not _EXISTS[kind](tx, relation.tenant_id, uuid):
            raise NotFound(f"{kind} with id [{uuid}] is not found")
    tx.put_relation(relation)


def delete(tx: Tx, relation: Relation) -> None:
    """Raises: NotFound."""
    if not any(_is_same(one, relation) for one in _between(tx, relation)):
        raise NotFound("Requested item wasn't found!")
    tx.delete_relation(relation)


def find(tx: ReadTx, relation: Relation) -> Relation:
    """The stored one with these ends, type and group. Raises: NotFound."""
    for one in _between(tx, relation):
        if _is_same(one, relation):
            return one
    raise NotFound("Requested item wasn't found!")


def of_end(
    tx: ReadTx, tenant_id: int, from_uuid: UUID | None, to_uuid: UUID | None, type_: str, type_group: str
) -> list[Relation]:
    """All from or to an entity, of any type unless one is given. Raises: InvalidArgument for too many."""
    found = tx.relations(
        tenant_id, from_uuid=from_uuid, to_uuid=to_uuid, type_=type_, type_group=type_group, limit=MAX_RELATIONS + 1
    )
    if len(found) > MAX_RELATIONS:
        raise InvalidArgument(
            f"The entity has more than {MAX_RELATIONS} relations of this kind; name a relationType, or ask for them"
            " from their other ends"
        )
    return found


def search(tx: ReadTx, tenant_id: int, wanted: DeviceSearch) -> list[Device]:
    """Breadth first; nearer devices come first, each once."""
    levels = min(wanted.max_levels, MAX_LEVELS) if wanted.max_levels > 0 else MAX_LEVELS
    seen, level, found = {wanted.root}, [wanted.root], []
    for _ in range(levels):
        related = [
            (one.to_type, one.to_uuid) if wanted.is_from_root else (one.from_type, one.from_uuid)
            for uuid in level
            for one in _steps(tx, tenant_id, uuid, wanted)
        ]
        level = []
        for kind, uuid in related:
            if uuid in seen:
                continue
            seen.add(uuid)
            level.append(uuid)
            device = tx.device(tenant_id, uuid) if kind == "DEVICE" else None
            if device is not None and (not wanted.device_types or device.type in wanted.device_types):
                found.append(device)
                if len(found) > MAX_DEVICES_FOUND:
                    raise InvalidArgument(f"More than {MAX_DEVICES_FOUND} devices are related; narrow the query")
    return found


def _steps(tx: ReadTx, tenant_id: int, uuid: UUID, wanted: DeviceSearch) -> list[Relation]:
    if wanted.is_from_root:
        return of_end(tx, tenant_id, uuid, None, wanted.type, COMMON)
    return of_end(tx, tenant_id, None, uuid, wanted.type, COMMON)


def _between(tx: ReadTx, relation: Relation) -> list[Relation]:
    return tx.relations(relation.tenant_id, from_uuid=relation.from_uuid, to_uuid=relation.to_uuid, type_=relation.type)


def _is_same(one: Relation, other: Relation) -> bool:
    return one.type_group == other.type_group
