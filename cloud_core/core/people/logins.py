"""Administrators' logins: argon2id passwords and JWTs (wire-contract.md section 6.1)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from cloud_core.core.people.permissions import TENANT_ADMIN, Act, operator_may
from cloud_core.model import DEFAULT_TENANT, NIL_CUSTOMER, Device, User, UserRole
from shared.errors import NotAuthenticated, NotAuthorized

TOKEN_S = 9_000
REFRESH_S = 604_800
ALGORITHM = "HS512"
EXPIRED = "Token has expired"
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# Verified when the user is unknown, so that the time taken tells nothing.
_NOBODY = _hasher.hash("nobody")


def hash_password(password: str) -> str:
    """argon2id, 19 MiB; takes about 20 ms, so call it in a thread."""
    return _hasher.hash(password)


def is_password_right(user: User | None, password: str) -> bool:
    """Takes as long for an unknown user as for a known one."""
    return is_hash_of(user.password_hash if user else _NOBODY, password) and user is not None


def is_hash_of(hashed: str, password: str) -> bool:
    """Whether `hash_password` may have made this of it."""
    try:
        _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Operator:
    """Who administers, as told by a verified token; for a customer's user also whose."""

    username: str
    authority: str
    tenant_id: int
    tenant_uuid: UUID
    user_uuid: UUID
    customer_id: int | None = None
    customer_uuid: UUID | None = None
    role: UserRole = UserRole.ADMINISTRATOR
    session: UUID | None = field(default=None, compare=False)  # of a token; stays the same over refreshes
    generation: int = field(default=0, compare=False)  # the user's, when the token was issued

    def may(self, act: Act) -> bool:
        return operator_may(self.authority, act, self.role)

    @property
    def shown_role(self) -> str | None:
        """None for whoever has none, since the role is within a tenant."""
        return self.role.value if self.authority == TENANT_ADMIN else None

    @property
    def sees_unassigned(self) -> bool:
        """Whether attempts with a key that nobody knows are shown: they are to the installation's first tenant."""
        return self.tenant_uuid == DEFAULT_TENANT

    def check_owner(self, device: Device) -> None:
        """A customer's user sees that customer's devices alone. Raises: NotAuthorized."""
        if self.authority != TENANT_ADMIN and (self.customer_id is None or device.customer_id != self.customer_id):
            raise NotAuthorized


MAX_VERIFIED = 10_000


class Tokens:
    """Signs and verifies; the key survives a restart because it is derived from the master key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._verified: dict[str, tuple[Operator, int]] = {}  # access token -> who, and until when (s since the epoch)

    def issue(self, operator: Operator, now_s: int) -> dict[str, str]:
        """`{"token", "refreshToken"}`."""
        claims: dict[str, Any] = {
            "sub": operator.username, "userId": str(operator.user_uuid), "iss": "muster", "enabled": True,
            "isPublic": False, "tenantId": str(operator.tenant_uuid), "tenantNumber": operator.tenant_id,
            "authority": operator.authority, "customerId": str(operator.customer_uuid or NIL_CUSTOMER),
            "customerNumber": operator.customer_id, "role": operator.shown_role,
            "sessionId": str(operator.session or uuid4()), "generation": operator.generation, "iat": now_s,
        }  # fmt: skip
        access = claims | {"scopes": [operator.authority], "exp": now_s + TOKEN_S}
        refresh = claims | {"scopes": ["REFRESH_TOKEN"], "exp": now_s + REFRESH_S, "jti": str(uuid4())}
        return {"token": self._sign(access), "refreshToken": self._sign(refresh)}

    def operator(self, token: str, *, is_refresh: bool = False) -> Operator:
        """Raises: NotAuthenticated, with the text EXPIRED for a token that was good.

        An access token is verified once and remembered until it expires: clients send it with every call.
        """
        known = None if is_refresh else self._verified.get(token)
        if known is not None and time.time() < known[1]:
            return known[0]
        operator, until_s = self._verify(token, is_refresh=is_refresh)
        if not is_refresh:
            if len(self._verified) >= MAX_VERIFIED:
                self._verified.clear()
            self._verified[token] = operator, until_s
        return operator

    def _verify(self, token: str, *, is_refresh: bool) -> tuple[Operator, int]:
        try:
            claims = jwt.decode(token, self._key, algorithms=[ALGORITHM], options={"require": ["exp", "sub"]})
            if ("REFRESH_TOKEN" in claims["scopes"]) != is_refresh:
                raise NotAuthenticated("this token is for another purpose")
            customer_id = claims.get("customerNumber")
            operator = Operator(
                claims["sub"], claims["authority"], claims["tenantNumber"],
                UUID(claims["tenantId"]), UUID(claims["userId"]), customer_id,
                None if customer_id is None else UUID(claims["customerId"]),
                UserRole(claims.get("role") or UserRole.ADMINISTRATOR),  # older tokens have none
                UUID(claims["sessionId"]), int(claims.get("generation", 0)),
            )  # fmt: skip
            return operator, int(claims["exp"])
        except jwt.ExpiredSignatureError as error:
            raise NotAuthenticated(EXPIRED) from error
        except (jwt.InvalidTokenError, KeyError, ValueError) as error:
            raise NotAuthenticated("Authentication failed") from error

    def _sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self._key, algorithm=ALGORITHM)
