"""A list of devices that is saved in one call: an outcome for each row, some rows in a transaction.

Source: product.md section 5, "REST".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloud_core.core.assignments import entity_uuid
from cloud_core.core.inventory import SavedDevice, check_texts, text_member, write_device
from cloud_core.model import NIL_CUSTOMER, Device
from cloud_core.storage.interface import ReadTx, Tx
from shared.errors import InvalidArgument, PlatformError

SAVED_AT_ONCE = 50  # rows: devices have their turn in between
_ANOTHER_WAY = frozenset(("id", "createdTime", "tenantId", "name", "type", "label", "version"))
_REFERENCES = ("customerId", "deviceProfileId")


@dataclass(frozen=True, slots=True)
class Row:
    """One of the list; `is_repeated`: an earlier one has its name."""

    index: int
    members: Any  # decoded JSON
    name: str
    is_repeated: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """`told`: `{index, name, status, id, error}`; `saved` where something was written."""

    told: dict[str, Any]
    saved: SavedDevice | None = None


def rows_of(members: Sequence[Any]) -> list[Row]:
    seen: set[str] = set()
    rows = []
    for index, one in enumerate(members):
        name = str(one.get("name") or "") if isinstance(one, dict) else ""
        rows.append(Row(index, one, name, bool(name) and name in seen))
        seen.add(name)
    return rows


def save_rows(tx: Tx, tenant_id: int, rows: Sequence[Row], is_plan: bool, now_ms: int) -> list[Outcome]:
    return [_outcome_of(tx, tenant_id, row, is_plan, now_ms) for row in rows]


def _outcome_of(tx: Tx, tenant_id: int, row: Row, is_plan: bool, now_ms: int) -> Outcome:
    told: dict[str, Any] = {"index": row.index, "name": row.name, "status": "ERROR", "id": None, "error": None}
    try:
        if not isinstance(row.members, dict):
            raise InvalidArgument('Each row must be an object such as {"name": "SN-1", "type": "sensor"}')
        if row.is_repeated:
            told["status"] = "CONFLICT"
            raise InvalidArgument(f"The name '{row.name}' stands in the list twice")
        told["status"], told["id"], saved = _save(tx, tenant_id, row.members, is_plan, now_ms)
    except PlatformError as error:
        told["error"] = str(error)
        return Outcome(told)
    return Outcome(told, saved)


def _save(
    tx: Tx, tenant_id: int, row: dict[str, Any], is_plan: bool, now_ms: int
) -> tuple[str, str | None, SavedDevice | None]:
    name, kind, label = (text_member(row, one) for one in ("name", "type", "label"))
    check_texts(name, kind, label)
    stored = tx.device_by_name(tenant_id, name)
    if stored is None:
        if is_plan:
            return "CREATED", None, None
        made = write_device(tx, tenant_id, {key: row[key] for key in row if key != "id"}, None, now_ms)
        return "CREATED", str(made.device.uuid), made
    is_same = (not kind or kind == stored.type) and ("label" not in row or label == stored.label)
    if is_same and _says_nothing_else(tx, row, stored):
        return "UNCHANGED", str(stored.uuid), None
    if is_plan:
        return "UPDATED", str(stored.uuid), None
    members = {**stored.document, "label": stored.label, **row, "id": str(stored.uuid)}
    return "UPDATED", str(stored.uuid), write_device(tx, tenant_id, members, None, now_ms)


def _says_nothing_else(tx: ReadTx, row: Mapping[str, Any], stored: Device) -> bool:
    """Whether all beside name, type and label is as it is stored. Raises: InvalidArgument."""
    owner, profile = (entity_uuid(row.get(name), name) for name in _REFERENCES)
    if owner not in (None, stored.customer_uuid or NIL_CUSTOMER) or profile not in (None, stored.profile_uuid):
        return False
    others = row.keys() - _ANOTHER_WAY - set(_REFERENCES)
    return all(row[name] == stored.document.get(name) for name in others)
