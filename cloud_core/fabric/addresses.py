"""Where a fabric is: `nats://user:password@host:4222`, several separated by commas. Secrets stay out of every text."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

PORT = 4222
_WRITTEN = "An address of the fabric is written nats://user:password@host:4222, or tls://user:password@host:4222."


class BadAddress(ValueError):
    """`str()` is one sentence that holds no secret."""


@dataclass(frozen=True, slots=True)
class Address:
    """One server. Its text, and its `repr`, are without user, password and token."""

    host: str
    port: int
    is_secure: bool
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.is_secure else 'nats'}://{host}:{self.port}"


def addresses_of(text: str) -> list[Address]:
    """All that stand in a configured value. Raises: BadAddress."""
    return [_address(one.strip()) for one in text.split(",") if one.strip()]


def _address(text: str) -> Address:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadAddress(_WRITTEN) from None  # the cause would show the address
    if not host or parts.scheme not in ("nats", "tls") or parts.path.strip("/") or parts.query or parts.fragment:
        raise BadAddress(_WRITTEN)
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password is not None else None
    secret = {"user": user, "password": password} if password is not None else {"token": user}
    return Address(host, port or PORT, parts.scheme == "tls", **secret)
