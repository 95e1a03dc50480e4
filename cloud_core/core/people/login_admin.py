"""Logins of people: passwords, tokens and sessions; the administrators of the first start."""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import UUID

from twisted.internet.threads import deferToThread

from cloud_core.core import inventory
from cloud_core.core.api import DeviceApi
from cloud_core.core.asking import Asking, to_the_end
from cloud_core.core.line_ration import LineRation
from cloud_core.core.names import MAX_NAME_CHARS
from cloud_core.core.people import audit
from cloud_core.core.people.access import ENDED, Access, end_login
from cloud_core.core.people.audit import Deed, Subject
from cloud_core.core.people.local_access import LocalAccess
from cloud_core.core.people.logins import Operator, Tokens, hash_password, is_password_right
from cloud_core.core.people.permissions import SYS_ADMIN
from cloud_core.core.people.tenants import first_system_administrator
from cloud_core.core.people.users import UsersApi, checked_password
from cloud_core.model import Customer, User
from cloud_core.storage.interface import Tx
from shared.errors import FAILED_ATTEMPTS_TEXT, InvalidArgument, NotAuthenticated, RateLimited, Unavailable

MAX_FAILED_LOGINS = 10  # in the audit, in LineRation's span: strangers cannot push out what operators did
MAX_LOGINS = 32  # whose passwords are being compared: each takes 19 MiB and a thread


class LoginAdmin(Asking):
    """A part of `AdminApi`, which makes what is named here."""

    _api: DeviceApi
    _tokens: Tokens
    _failed_logins: LineRation
    access: Access
    users: UsersApi
    local_access: LocalAccess
    _login_count = 0  # under way

    async def ensure_admin(
        self, username: str, password: str, *, is_password_given: bool, is_password_anew: bool = True
    ) -> bool:
        """Makes the first administrator and the default profile; a password given anew replaces the old.

        Without a password of the configuration's nobody is made where the tenant has administrators: whoever was
        deleted or renamed would come back. Returns whether the administrator was made. Raises: InvalidArgument.
        """
        known, is_in_place, has_any = await self._read(inventory.first_administrator, username)
        if known is not None and not is_in_place and is_password_given:
            raise InvalidArgument(
                f"[admin] username: '{username}' is no user of the installation's own; choose another name."
            )
        if known is not None:
            if is_password_given and is_password_anew and not await deferToThread(is_password_right, known, password):
                await self.users.replace_password(known, await deferToThread(hash_password, password), by=None)
            return False
        if has_any and not is_password_given:
            return False
        hashed = await deferToThread(hash_password, password)
        await self._decide(inventory.first_start, username, hashed, self._api.now_ms())
        return True

    async def ensure_system_admin(self, username: str, password: str, *, is_password_anew: bool = True) -> None:
        """Makes the system administrator; a password given anew replaces the old. Raises: InvalidArgument."""
        known = await self._read(inventory.user, username)
        if known is None:
            hashed = await deferToThread(hash_password, checked_password(password))
            await self._decide(first_system_administrator, username, hashed, self._api.now_ms())
        elif known.authority != SYS_ADMIN:
            raise InvalidArgument(f"[admin] system_username: '{username}' is a user of a tenant; choose another name.")
        elif is_password_anew and not await deferToThread(is_password_right, known, password):
            hashed = await deferToThread(hash_password, checked_password(password))
            await self.users.replace_password(known, hashed, by=None)

    async def open_local_access(self, token: str = "") -> str:
        """A new token for commands on this machine, or that of all workers; the one of before ends."""
        return self.local_access.open(await self._read(inventory.default_tenant_id), token)

    async def login(self, username: str, password: str, address: str = "") -> dict[str, str]:
        """Tokens for the right password. Who fails too often from an address has to wait, right or wrong.

        Raises: NotAuthenticated, RateLimited; Unavailable where too many log in at once.
        """
        known = await self._shown(username, password, address)
        if known is None:
            raise NotAuthenticated("Invalid username or password")
        operator = _operator_of(*known)
        deed = Deed("LOGIN", "USER", lambda _: Subject(operator.user_uuid, operator.username, f"from {address}"))
        await self._decide_by(operator, deed, _nothing)
        return self._tokens.issue(operator, int(time.time()))

    async def _shown(self, username: str, password: str, address: str) -> inventory.UserInPlace | None:
        """The user whose password this is; None for a wrong one. Raises: RateLimited, Unavailable."""
        source, key = f"login {address}", username[:MAX_NAME_CHARS]
        failed, now_s = self._api.failed_attempts, self._api.now_ms() / 1000
        wait_s = failed.wait_s(source, key, now_s)
        if wait_s > 0:
            raise RateLimited(FAILED_ATTEMPTS_TEXT, retry_after_s=wait_s)
        if self._login_count >= MAX_LOGINS:
            raise Unavailable(retry_after_s=1.0)
        self._login_count += 1
        try:
            known = await self._read(inventory.user_with_places, username)
            is_right = await deferToThread(is_password_right, known[0] if known else None, password)
        finally:
            self._login_count -= 1
        if known is None or not is_right:
            failed.record(source, key, now_s)
            is_due, left_out = self._failed_logins.take(now_s)
            if is_due:
                await self._decide(audit.record_failed_login, key, address, self._api.now_ms(), left_out)
            return None
        return known

    async def refresh(self, refresh_token: str) -> dict[str, str]:
        """New tokens for a refresh token, as long as its user exists. Raises: NotAuthenticated."""
        claimed = self._tokens.operator(refresh_token, is_refresh=True)
        known = await self._read(inventory.user_with_places, claimed.username)
        self.access.check(claimed)
        if known is None or known[0].uuid != claimed.user_uuid:
            raise NotAuthenticated("The user of this token does not exist any more")
        if known[0].generation != claimed.generation:  # ended by another node a moment ago
            raise NotAuthenticated(ENDED)
        return self._tokens.issue(replace(_operator_of(*known), session=claimed.session), int(time.time()))

    async def user(self, operator: Operator) -> User:
        """As it is stored. Raises: NotFound."""
        return inventory.found(await self._read(inventory.user, operator.username), "User", operator.user_uuid)

    def operator(self, token: str) -> Operator:
        """Who this token stands for. Raises: NotAuthenticated."""
        operator = self._tokens.operator(token)
        self.access.check(operator)
        return operator

    @to_the_end
    async def logout(self, operator: Operator) -> None:
        """Ends the session with all its tokens; an API key has none, and stays."""
        if operator.session is not None:
            deed = Deed("LOGOUT", "USER", lambda _: Subject(operator.user_uuid, operator.username))
            self.access.end(await self._decide_by(operator, deed, end_login, operator.session, self._api.now_ms()))

    @to_the_end
    async def change_password(self, operator: Operator, current: str, new: object, address: str) -> dict[str, str]:
        """Tokens of a new login; all others of the user end. Raises: InvalidArgument, RateLimited, Unavailable."""
        password = checked_password(new)
        known = await self._shown(operator.username, current, address) if operator.session is not None else None
        if known is None or known[0].uuid != operator.user_uuid:
            raise InvalidArgument("Current password doesn't match!")
        changed = await self.users.replace_password(known[0], await deferToThread(hash_password, password), by=operator)
        return self._tokens.issue(_operator_of(changed, *known[1:]), int(time.time()))


def _operator_of(user: User, tenant: UUID | None, customer: Customer | None) -> Operator:
    assert tenant is not None, "a user's tenant exists"
    return Operator(
        user.username, user.authority, user.tenant_id, tenant, user.uuid, user.customer_id,
        customer.uuid if customer is not None else None, user.role, generation=user.generation,
    )  # fmt: skip


def _nothing(_tx: Tx) -> None:
    """What a login changes."""
