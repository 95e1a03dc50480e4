"""Devices on HTTP/1.1: a connection for each request, as those that sleep between reports do it."""

from __future__ import annotations

from OpenSSL import SSL

from cloud_core.simulator.links import Listener
from cloud_core.simulator.network import Network
from shared.credentials import AccessToken

MAX_ANSWER_BYTES = 262_144
_OK, _UNAUTHORIZED, _FORBIDDEN = 200, 401, 403


class HttpLink:
    """One request at a time."""

    __slots__ = ("_asks", "_device", "_line", "_network", "_received", "_request")
    stays = awaits_more = False

    def __init__(self, network: Network, device: Listener, identity: SSL.Context | None = None) -> None:
        self._network = network
        self._device = device
        self._line = network.tcp(self, device.plan, identity)
        self._request = self._received = b""
        self._asks = False

    def ask(self, body: bytes) -> None:
        self._asks = True
        self._start("/api/v1/provision", body)

    def connect(self, report: bytes) -> None:
        self.post(report)

    def post(self, report: bytes) -> None:
        credentials = self._device.credentials
        token = f"{credentials.token}/" if isinstance(credentials, AccessToken) else ""
        self._start(f"/api/v1/{token}telemetry", report)

    def close(self, *, abruptly: bool = False) -> None:
        self._line.close(abruptly=abruptly)

    def ping(self) -> None:
        """Nobody waits for one."""

    def line_up(self) -> None:
        self._network.send(self._line, self._request, self._device.plan)

    def line_lost(self, why: str) -> None:
        self._device.broken(why)

    def received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            if len(self._received) > MAX_ANSWER_BYTES:
                self._fail("an answer without an end")
            return
        try:
            status, headers = read_head(head)
            length = int(headers.get("content-length", "0"))
        except ValueError:
            self._fail("not HTTP")
            return
        if length > MAX_ANSWER_BYTES:
            self._fail("an answer without an end")
        elif len(body) >= length:
            self._line.close()
            self._answer(status, body[:length], _seconds(headers.get("retry-after")))

    def _start(self, path: str, body: bytes) -> None:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._network.http_host}\r\nUser-Agent: muster-simulator\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._request = head.encode() + body
        self._network.open(self._line, self._device.plan)

    def _answer(self, status: int, body: bytes, retry_after_s: float | None) -> None:
        if self._asks:
            self._device.answered(body, retry_after_s)
        elif status == _OK:
            self._device.accepted()
            self._device.acknowledged()
        else:
            is_final = status in (_UNAUTHORIZED, _FORBIDDEN)
            self._device.turned_away(f"HTTP {status}", retry_after_s=retry_after_s, is_final=is_final)

    def _fail(self, why: str) -> None:
        self._line.close()
        self._device.broken(why)


def read_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers, their names in lower case. Raises: ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status), headers


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; dates are nobody's habit here."""
    return float(text) if text and text.isdecimal() else None
