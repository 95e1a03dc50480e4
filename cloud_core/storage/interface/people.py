"""Users, the end of their logins, and API keys."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from cloud_core.model import ApiKey, EndedLogin, Page, User


class ReadPeople(Protocol):
    def user_by_name(self, username: str) -> User | None:
        """Over all tenants."""

    def user(self, tenant_id: int, uuid: UUID) -> User | None: ...
    def user_by_uuid(self, uuid: UUID) -> User | None:
        """Over all tenants."""

    def users(
        self, tenant_id: int, page: Page, *, customer_id: int | None = None, authority: str = ""
    ) -> tuple[list[User], int]:
        """One page and the number of all that match; with `customer_id` this customer's."""

    def all_users(self, tenant_id: int, *, customer_id: int | None = None) -> list[User]: ...
    def administrator_count(self, tenant_id: int) -> int:
        """How many users have the tenant's authority and the role of an administrator, or the system's authority."""

    def ended_logins(self, after_id: int) -> list[EndedLogin]:
        """Those with a greater number, in the order of their numbers."""

    def api_key(self, tenant_id: int, uuid: UUID) -> ApiKey | None: ...
    def api_key_by_name(self, tenant_id: int, name: str) -> ApiKey | None: ...
    def api_keys(self, tenant_id: int, page: Page) -> tuple[list[ApiKey], int]:
        """One page and the number of all that match."""

    def all_api_keys(self, tenant_id: int) -> list[ApiKey]: ...
    def api_key_count(self, tenant_id: int) -> int: ...
    def keys_in_use(self, after_id: int) -> list[tuple[ApiKey, bytes, UUID]]:
        """Of all tenants: (key, its keyed hash, the tenant's uuid), those with a greater number."""


class WritePeople(ReadPeople, Protocol):
    def insert_user(self, user: User) -> None: ...
    def update_user(self, user: User) -> None:
        """Writes name, password, role, generation and document."""

    def delete_user(self, user_id: int) -> None: ...
    def put_ended_login(self, ended: EndedLogin) -> None:
        """In place of any of the same subject; with a number of its own."""

    def trim_ended_logins(self, before_ms: int) -> None:
        """Forgets those that no token can outlive any more."""

    def insert_api_key(self, key: ApiKey, key_hash: bytes) -> None: ...
    def mark_api_key_used(self, key_id: int, *, used_ms: int) -> None: ...
    def delete_api_key(self, key_id: int) -> None: ...
