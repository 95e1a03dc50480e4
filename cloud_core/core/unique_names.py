"""What becomes of a device's name that another device has already (wire-contract.md section 6.3)."""

from __future__ import annotations

import string
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from cloud_core.core.assignments import entity_uuid
from cloud_core.core.names import MAX_NAME_CHARS, fault_of
from cloud_core.entropy import random_bits
from cloud_core.storage.interface import ReadTx
from shared.errors import InvalidArgument

RANDOM_CHARS = 6
MAX_TRIES = 10_000
_ALPHANUMERICS = string.ascii_letters + string.digits


class Suffix(StrEnum):
    """How a name is made unique."""

    RANDOM = "RANDOM"
    INCREMENTAL = "INCREMENTAL"


@dataclass(frozen=True, slots=True)
class Naming:
    """With `is_unique_made` a name that is taken gets a suffix; else it is refused."""

    is_unique_made: bool = False
    separator: str = "_"
    suffix: Suffix = Suffix.RANDOM


REFUSE = Naming()


def named(tx: ReadTx, tenant_id: int, members: dict[str, Any], naming: Naming) -> dict[str, Any]:
    """The members with a name that nobody else has, where that is wanted. Raises: InvalidArgument."""
    name = members.get("name")
    if not naming.is_unique_made or not isinstance(name, str):
        return members
    own = entity_uuid(members.get("id"), "id")
    if _is_free(tx, tenant_id, name, own):
        return members
    fault = fault_of("uniquifySeparator", naming.separator)
    if fault:
        raise InvalidArgument(f"Validation error: {fault}")
    for number in range(1, MAX_TRIES + 1):
        suffix = str(number) if naming.suffix is Suffix.INCREMENTAL else _random_text()
        unique = f"{name}{naming.separator}{suffix}"
        if len(unique) > MAX_NAME_CHARS:
            raise InvalidArgument(f"Validation error: name length must be equal or less than {MAX_NAME_CHARS}")
        if _is_free(tx, tenant_id, unique, own):
            return members | {"name": unique}
    raise InvalidArgument(f"The names up to '{unique[:80]}' are taken; use uniquifyStrategy=RANDOM")


def _is_free(tx: ReadTx, tenant_id: int, name: str, own: UUID | None) -> bool:
    holder = tx.device_by_name(tenant_id, name)
    return holder is None or holder.uuid == own


def _random_text() -> str:
    return "".join(_ALPHANUMERICS[random_bits(16) % len(_ALPHANUMERICS)] for _ in range(RANDOM_CHARS))
