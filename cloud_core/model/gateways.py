"""Devices behind gateways, and relations between entities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class SubDevice:
    """How a device behind a gateway came in last."""

    device_id: int
    gateway_id: int
    connected_ms: int
    is_created_by_gateway: bool = False
    is_type_guessed: bool = False  # created by data that overtook its connect message: the type may still come


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A directed, typed link between two entities (wire-contract.md section 6.8)."""

    tenant_id: int
    from_type: str
    from_uuid: UUID
    to_type: str
    to_uuid: UUID
    type: str
    type_group: str = "COMMON"
    additional_info: Any = None  # decoded JSON
