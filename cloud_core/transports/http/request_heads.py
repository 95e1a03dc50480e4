"""What the head of a device request asks for, where the fast front can answer it."""

from __future__ import annotations

from typing import Any, NamedTuple

import httptools

from cloud_core.transports.http.adapter import MAX_BODY_BYTES
from cloud_core.transports.http.long_polls import INTERESTS
from cloud_core.transports.proxies import FORWARDING

POST, PROVISION, READ, WAIT = range(4)  # what is called
_ODD_HEADERS = frozenset((b"expect", b"transfer-encoding", b"upgrade"))  # want more than the short cut offers
_POSTS = {one.encode(): one for one in ("telemetry", "attributes", "claim", "rpc")}


class Call(NamedTuple):
    """What a request's head asks for. `length` is that of the body; behind a last request the connection ends.

    Without a token in the path the certificate of the connection says who asks.
    """

    kind: int
    token: str | None = None
    feature: str = ""
    query: str = ""
    length: int = 0
    is_last: bool = False


class Head:
    """What a request's head says; filled by httptools' callbacks."""

    __slots__ = ("_is_last", "_is_odd", "_length", "_parser", "_url")

    def __init__(self, data: bytes) -> None:
        self._url = b""
        self._length = -1
        self._is_odd = self._is_last = False
        self._parser: Any = httptools.HttpRequestParser(self)  # untyped
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._is_odd = True

    def on_url(self, url: bytes) -> None:
        self._is_odd = self._is_odd or bool(self._url)  # a second request: the head ended before we thought
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            is_good = self._length < 0 and value.isdigit() and len(value) <= 7
            self._length = int(value) if is_good else MAX_BODY_BYTES + 1
        elif name in _ODD_HEADERS:
            self._is_odd = True

    def on_headers_complete(self) -> None:
        self._is_last = not self._parser.should_keep_alive()  # later it is forgotten where there is no body

    def on_body(self, body: bytes) -> None:
        self._is_odd = True  # the head ended before we thought

    def call(self) -> Call | None:
        """None when the request is not for the short cut."""
        if self._is_odd or self._length > MAX_BODY_BYTES or not self._url.isascii():
            return None
        if self._parser.get_http_version() != "1.1":
            return None
        if self._parser.get_method() == b"GET":
            return self._get() if self._length <= 0 else None
        return self._post() if self._length >= 0 else None

    def _post(self) -> Call | None:
        if b"?" in self._url:
            return None
        if self._url == b"/api/v1/provision":
            return Call(PROVISION, length=self._length, is_last=self._is_last)
        token, words = _without_token(self._url.split(b"/"))
        feature = _POSTS.get(words[0]) if words else None
        if len(words) == 2 and feature == "rpc" and words[1].isdigit():
            feature = f"rpc/{words[1].decode()}"
        elif len(words) != 1:
            return None
        return Call(POST, token, feature, "", self._length, self._is_last) if feature else None

    def _get(self) -> Call | None:
        path, _, query = self._url.partition(b"?")
        token, words = _without_token(path.split(b"/"))
        feature = b"/".join(words).decode()
        if feature in INTERESTS:
            return Call(WAIT, token, feature, query.decode(), 0, self._is_last)
        return Call(READ, token, feature, query.decode(), 0, self._is_last) if feature == "attributes" else None


class ForwardedHead(Head):
    """One of a trusted proxy, which says for whom it speaks."""

    __slots__ = ("told",)

    def __init__(self, data: bytes) -> None:
        self.told: dict[bytes, list[bytes]] = {name: [] for name in FORWARDING}
        super().__init__(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if (told := self.told.get(name.lower())) is not None:
            told.append(value)


def _without_token(parts: list[bytes]) -> tuple[str | None, list[bytes]]:
    """Of a path under /api/v1/: its token, if there is one, and the rest; no rest where it is none of ours."""
    if parts[3] in _POSTS and (len(parts) == 4 or parts[4] == b"updates" or parts[4].isdigit()):
        return None, parts[3:]
    return parts[3].decode(), parts[4:] if parts[3] else []
