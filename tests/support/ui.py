"""A browser in memory, without scripts: cookies, forms with their token, redirects."""

from __future__ import annotations

import re
import time
from html import unescape
from typing import NamedTuple
from urllib.parse import urlencode
from uuid import uuid4

from cloud_core.core.people.logins import Operator, Tokens
from cloud_core.model import DEFAULT_TENANT, UserRole
from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer
from tests.support.stores import TENANT, StoreUnderTest


class Shown(NamedTuple):
    """A response. `text`: the page's HTML; `location`: of a redirect."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def location(self) -> str:
        return self.headers.get("location", "")

    @property
    def words(self) -> str:
        """What people read, blanks made one."""
        return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", self.text)))


def somebody(role: UserRole = UserRole.ADMINISTRATOR) -> Operator:
    return Operator(
        f"{role.value.lower()}@test", "TENANT_ADMIN", TENANT, DEFAULT_TENANT, uuid4(), role=role, session=uuid4()
    )


class Browser(HttpPeer):
    """Logged in as an administrator unless told otherwise; `cookies` are kept as a browser does."""

    def __init__(self, store: StoreUnderTest, operator: Operator | None = None) -> None:
        super().__init__(ApiUnderTest(store))
        self.cookies: dict[str, str] = {}
        self.log_in_as(operator or somebody())

    def log_in_as(self, operator: Operator) -> None:
        tokens = Tokens(b"j" * 64).issue(operator, int(time.time()))
        self.cookies = {"muster_token": tokens["token"], "muster_refresh": tokens["refreshToken"]}

    def open(self, path: str, headers: str = "") -> Shown:
        self.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n{self._cookie_header()}{headers}\r\n".encode())
        return self._shown()

    def submit(
        self, path: str, fields: dict[str, str] | None = None, *, token: str | None = None, headers: str = ""
    ) -> Shown:
        """Sends a form with the token that the account's page carries, unless another is given."""
        if token is None:
            found = re.search(r'name="form_token" value="(\w+)"', self.open("/ui/account").text)
            token = found[1] if found else ""
        body = urlencode({"form_token": token, **(fields or {})}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            f"{self._cookie_header()}{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        self.send(head.encode() + body)
        return self._shown()

    def _cookie_header(self) -> str:
        if not self.cookies:
            return ""
        return f"Cookie: {'; '.join(f'{name}={value}' for name, value in self.cookies.items())}\r\n"

    def _shown(self) -> Shown:
        """Keeps what `Set-Cookie` says; several of them stand in one response."""
        self.settle()
        head = self.transport.value().partition(b"\r\n\r\n")[0].decode()
        for name, value, rest in re.findall(r"(?im)^set-cookie: ([^=]+)=([^;\r]*)(.*)$", head):
            if "max-age=0" in rest.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        ((status, headers, body),) = self.received()
        return Shown(status, headers, body.decode())
