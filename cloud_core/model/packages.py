"""Firmware and software packages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from shared.messages import PackageKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A firmware or software package (OTA); the bytes lie apart. With `url` the device fetches it elsewhere."""

    id: int
    uuid: UUID
    tenant_id: int
    profile_id: int
    profile_uuid: UUID
    kind: PackageKind
    title: str
    version: str
    tag: str = ""
    url: str = ""
    file_name: str = ""
    content_type: str = ""
    checksum_algorithm: str = ""
    checksum: str = ""
    size_bytes: int = 0
    has_data: bool = False
    document: dict[str, Any] = field(default_factory=dict)
    created_ms: int = 0
