"""Provision keys beside those of profiles, and how the secrets of profiles are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from cloud_core.model import DeviceProfile, ProvisionKey, SecretUse


class ReadKeys(Protocol):
    def provision_key(self, key: str) -> tuple[ProvisionKey, DeviceProfile] | None:
        """By the key that devices show, over all tenants; with its profile."""

    def provision_keys(self, profile_id: int) -> list[ProvisionKey]: ...
    def provision_key_counts(self, profile_ids: Sequence[int]) -> dict[int, int]:
        """How many keys each profile has; those without any are missing."""

    def provision_key_by_uuid(self, profile_id: int, uuid: UUID) -> ProvisionKey | None: ...
    def secret_uses(self, profile_id: int) -> dict[bytes, SecretUse]:
        """By the tag of the secret."""


class WriteKeys(ReadKeys, Protocol):
    def insert_provision_key(self, key: ProvisionKey) -> None:
        """`id` and `used` are ignored."""

    def update_provision_key(self, key: ProvisionKey) -> None:
        """Writes rules and `is_enabled`."""

    def delete_provision_key(self, key_id: int) -> None: ...
    def lock_key_use(self, key_id: int) -> int | None:
        """How many devices it has let in; nobody else counts until the end of this transaction. None: it is gone."""

    def count_key_use(self, key_id: int) -> None: ...
    def add_secret_uses(self, rows: Sequence[tuple[int, bytes, SecretUse]]) -> None:
        """[(profile number, tag, uses to be added), …]; left out for profiles that are gone."""

    def keep_secret_uses(self, profile_id: int, tags: Sequence[bytes]) -> None:
        """Forgets those of other secrets."""
