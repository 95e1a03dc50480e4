"""Administration on the core's own machine without a login: a token that whoever may read the data directory has.

The token is made at each start and stands for an administrator of the default tenant. It is accepted from loopback
alone, and from there only of a caller that speaks for itself: a proxy on this machine hands on what comes from
elsewhere. Only a digest is kept, so that no dump of the process's objects shows the token.

Source: product.md section 5, "CLI".
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from uuid import UUID

from twisted.logger import Logger

from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import TENANT_ADMIN
from cloud_core.model import DEFAULT_TENANT
from shared.errors import NotAuthenticated

log = Logger()
PREFIX = "local-"
TOKEN_BYTES = 32
USERNAME = "local administrator"
USER_UUID = UUID("6c6f6361-6c20-4061-8c6d-696e00000000")  # of nobody in the database


class LocalAccess:
    """Closed until `open`."""

    def __init__(self) -> None:
        self._digest = b""
        self._operator: Operator | None = None

    def open(self, tenant_id: int, token: str = "") -> str:
        """A new token, for the default tenant's number, or that of all workers; one of before ends."""
        token = token or new_token()
        self._digest = _digest_of(token)
        self._operator = Operator(USERNAME, TENANT_ADMIN, tenant_id, DEFAULT_TENANT, USER_UUID)
        return token

    def close(self) -> None:
        self._digest, self._operator = b"", None

    def operator(self, token: str, address: str, *, is_handed_on: bool) -> Operator | None:
        """Who a token of this kind stands for; None for another kind, which others look at.

        Raises: NotAuthenticated, in the same words whatever is wrong.
        """
        if not token.startswith(PREFIX):
            return None
        is_right = hmac.compare_digest(_digest_of(token), self._digest) if self._digest else False
        if is_right and (is_handed_on or not is_loopback(address)):
            log.warn(
                "The token of this machine was shown from {address}{proxy} and refused; whoever has it can read the"
                " data directory. Restart the core to change it.",
                address=address, proxy=" through a proxy" if is_handed_on else "",
            )  # fmt: skip
            is_right = False
        if not is_right or self._operator is None:
            raise NotAuthenticated("Authentication failed")
        return self._operator


def new_token() -> str:
    return PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped.is_loopback
    return parsed.is_loopback


def _digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
