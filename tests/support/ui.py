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

    def another_window(self) -> Browser:
        """A connection of its own to the same server, with the same cookies."""
        other = Browser.__new__(Browser)
        HttpPeer.__init__(other, self.api, server=self.server)
        other.cookies = dict(self.cookies)
        return other

    def open(self, path: str, headers: str = "") -> Shown:
        self.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n{self._cookie_header()}{headers}\r\n".encode())
        return self._shown()

    def submit(
        self, path: str, fields: dict[str, str] | None = None, *, token: str | None = None, headers: str = ""
    ) -> Shown:
        """Sends a form with the token that the account's page carries, unless another is given."""
        sent = {"form_token": self._form_token() if token is None else token, **(fields or {})}
        return self._post(path, "application/x-www-form-urlencoded", urlencode(sent).encode(), headers)

    def upload(
        self, path: str, content: bytes | str, name: str = "devices.csv", fields: dict[str, str] | None = None,
        *, token: str | None = None, headers: str = "",
    ) -> Shown:  # fmt: skip
        """As `submit`, with a file in the field `file` behind the others."""
        sent = {"form_token": self._form_token() if token is None else token, **(fields or {})}
        parts = [f'Content-Disposition: form-data; name="{key}"\r\n\r\n{value}'.encode() for key, value in sent.items()]
        data = content.encode() if isinstance(content, str) else content
        about = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/csv\r\n\r\n'
        parts.append(about.encode() + data)
        body = b"".join(b"--edge\r\n" + one + b"\r\n" for one in parts) + b"--edge--\r\n"
        return self._post(path, "multipart/form-data; boundary=edge", body, headers)

    def _form_token(self) -> str:
        found = re.search(r'name="form_token" value="(\w+)"', self.open("/ui/account").text)
        return found[1] if found else ""

    def _post(self, path: str, content_type: str, body: bytes, headers: str) -> Shown:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {content_type}\r\n"
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
