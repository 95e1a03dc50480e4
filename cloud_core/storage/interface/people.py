"""Users."""

from __future__ import annotations

from typing import Protocol

from cloud_core.model import User


class ReadPeople(Protocol):
    def user_by_name(self, username: str) -> User | None:
        """Over all tenants."""


class WritePeople(ReadPeople, Protocol):
    def insert_user(self, user: User) -> None: ...
    def update_password(self, username: str, password_hash: str) -> None: ...
