"""REST calls in memory by people of every authority."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from twisted.internet.defer import maybeDeferred, succeed

from cloud_core.core import admin, packages
from cloud_core.core.bulk import imports
from cloud_core.core.certificates import authority_admin
from cloud_core.core.labels import labels
from cloud_core.core.people import users
from cloud_core.core.people.logins import Operator, Tokens
from cloud_core.model import DEFAULT_TENANT
from cloud_core.transports.http.rest import bulk_routes, docs_routes, package_routes
from cloud_core.transports.http.ui import import_pages, profile_wizard_pages
from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer
from tests.support.stores import TENANT, StoreUnderTest

ADMINISTRATOR = Operator("admin@test", "TENANT_ADMIN", TENANT, DEFAULT_TENANT, uuid4())


def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to a thread is done at once: the tests have no reactor for it to come back to."""
    for module in (
        admin, authority_admin, packages, users, imports, package_routes, docs_routes, bulk_routes, import_pages,
        profile_wizard_pages,
    ):  # fmt: skip
        monkeypatch.setattr(module, "deferToThread", lambda work, *args: succeed(work(*args)))
    monkeypatch.setattr(labels, "deferToThread", lambda work, *args, **named: maybeDeferred(work, *args, **named))


class Rest(HttpPeer):
    """Calls as an administrator unless told otherwise; answers are (status, decoded JSON or None)."""

    def __init__(self, store: StoreUnderTest, **options: Any) -> None:
        super().__init__(ApiUnderTest(store, **options))
        self.caller = self.token_of(ADMINISTRATOR)

    @staticmethod
    def token_of(operator: Operator) -> str:
        return Tokens(b"j" * 64).issue(operator, int(time.time()))["token"]

    def customer_user(self, customer: dict[str, Any]) -> str:
        """The token of a user of this customer."""
        uuid = UUID(customer["id"]["id"])
        number = self.api.store.read(lambda tx: tx.customer(TENANT, uuid)).id
        return self.token_of(Operator("u@x", "CUSTOMER_USER", TENANT, DEFAULT_TENANT, uuid4(), number, uuid))

    def another_caller(self) -> Rest:
        """The same caller on a connection of its own."""
        other = Rest.__new__(Rest)
        HttpPeer.__init__(other, self.api, server=self.server)
        other.caller = self.caller
        return other

    def headers(self, by: str | None) -> str:
        token = self.caller if by is None else by
        return f"X-Authorization: Bearer {token}\r\n" if token else ""

    def call(self, method: str, path: str, body: Any = None, *, by: str | None = None) -> tuple[int, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: h\r\n{self.headers(by)}Content-Length: {len(content)}\r\n\r\n"
        self.send(head.encode() + content)
        ((status, _, answer),) = self.responses()
        return status, json.loads(answer) if answer else None

    def made(self, path: str, body: Any) -> dict[str, Any]:
        """The entity that a POST makes."""
        status, answer = self.call("POST", path, body)
        assert status == 200, answer
        entity: dict[str, Any] = answer
        return entity


def id_of(entity: dict[str, Any]) -> str:
    identifier: str = entity["id"]["id"]
    return identifier
