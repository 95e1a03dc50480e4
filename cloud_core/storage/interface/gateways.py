"""Sub-devices: which gateway each is behind, former names, deleted names; and relations between entities."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from cloud_core.model import Relation, SubDevice


class ReadGateways(Protocol):
    def sub_device(self, device_id: int) -> SubDevice | None:
        """Which gateway the device was last connected through."""

    def alias(self, gateway_id: int, name: str) -> int | None:
        """The device that the gateway still calls by a former name."""

    def tombstone(self, tenant_id: int, name: str) -> int | None:
        """When (ms) a device of this name behind a gateway was deleted by an operator."""

    def relations(
        self, tenant_id: int, *, from_uuid: UUID | None = None, to_uuid: UUID | None = None, type_: str = "",
        type_group: str = "", limit: int | None = None,
    ) -> list[Relation]:  # fmt: skip
        """Of these ends, this type and this group; of any where it is not given."""


class WriteGateways(ReadGateways, Protocol):
    def put_sub_device(self, sub_device: SubDevice) -> None:
        """In place of what was known of the device."""

    def move_sub_devices(self, from_gateway_id: int, to_gateway_id: int) -> None:
        """What is behind one gateway is behind another, by the same names."""

    def put_alias(self, gateway_id: int, name: str, device_id: int) -> None: ...
    def delete_alias(self, gateway_id: int, name: str) -> None: ...
    def delete_aliases_of(self, gateway_id: int, device_id: int) -> None:
        """The gateway knows the device's present name."""

    def put_tombstone(self, tenant_id: int, name: str, *, deleted_ms: int) -> None: ...
    def delete_tombstone(self, tenant_id: int, name: str) -> None: ...
    def trim_tombstones(self, before_ms: int) -> None: ...
    def put_relation(self, relation: Relation) -> None: ...
    def delete_relation(self, relation: Relation) -> bool:
        """Whether there was one with these ends, type and group."""

    def delete_relations_of(self, tenant_id: int, uuid: UUID) -> None:
        """All from and to the entity."""
