"""Presented credentials to identity, and the bounded cache that spares the look-up.

Source: wire-contract.md section 2.6 (order of decisions) and 2.4 (refusals).
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Sequence

from cloud_core.model import Login, PresentedCredentials
from cloud_core.storage.interface import Tx
from shared.certificates import certificate_text, fingerprint_texts
from shared.credentials import AccessToken, Credentials, MqttBasic, mqtt_basic_id, sha3_id
from shared.errors import NotAuthenticated

MAX_CACHED_LOGINS = 200_000


def candidate_ids(presented: PresentedCredentials) -> list[str]:
    """Credential ids to look up, most specific first; none for a certificate, whose door is `certificate_logins`."""
    if presented.chain is not None:
        return []
    if not presented.username:
        return [mqtt_basic_id(presented.client_id, "")] if presented.client_id else []
    ids = [presented.username]
    if presented.client_id:
        ids.insert(0, mqtt_basic_id(presented.client_id, presented.username))
    return ids


def certificate_ids(leaf: bytes) -> list[str]:
    """Credential ids that a certificate (DER) may be registered under: by itself, or by its fingerprint alone."""
    return [sha3_id(certificate_text(leaf)), *map(sha3_id, fingerprint_texts(leaf))]


def choose(presented: PresentedCredentials, logins: Sequence[Login | None]) -> Login | None:
    """The login that the presented credentials open, or None.

    `logins` answers `candidate_ids(presented)` in its order. A wrong password ends the search: there
    is no fall-back to the token of the same name.
    """
    for login in logins:
        if login is None:
            continue
        stored = login.credentials
        if isinstance(stored, MqttBasic):
            if not _parts_match(stored.client_id, presented.client_id) or not _parts_match(
                stored.username, presented.username
            ):
                continue
            return login if _parts_match(stored.password, presented.password) else None
        if isinstance(stored, AccessToken) and presented.username == stored.token:
            return login
    return None


def _parts_match(stored: str, presented: str) -> bool:
    """An empty stored part matches anything; a stored password with none presented does not match."""
    return not stored or hmac.compare_digest(stored.encode(), presented.encode("utf-8", "surrogateescape"))


def confirm(tx: Tx, device_id: int, credentials: Credentials, now_ms: int) -> None:
    """The first login with these credentials: they have arrived.

    Raises: NotAuthenticated where they were replaced, or the device deleted, meanwhile.
    """
    stored = tx.credentials(device_id)
    if stored is None or stored.credentials != credentials:
        raise NotAuthenticated
    tx.mark_confirmed(device_id, now_ms=now_ms)


class LookUp:
    """A look-up of credentials under way, and what administration has changed since it began."""

    __slots__ = ("changed", "is_all_changed")

    def __init__(self) -> None:
        self.changed: set[int] = set()  # device numbers
        self.is_all_changed = False

    def is_overtaken(self, found: Sequence[Login | None]) -> bool:
        """Whether what was found may be of before the change."""
        if self.is_all_changed:
            return True
        return any(login is not None and self.concerns(login.identity.device_id) for login in found)

    def concerns(self, device_id: int) -> bool:
        """Whether something of this device has changed."""
        return self.is_all_changed or device_id in self.changed


class LookUps:
    """Those under way. One that a change overtakes is made again: what has been revoked must neither be let in
    nor be remembered."""

    def __init__(self) -> None:
        self._under_way: set[LookUp] = set()

    def begin(self) -> LookUp:
        look_up = LookUp()
        self._under_way.add(look_up)
        return look_up

    def end(self, look_up: LookUp) -> None:
        self._under_way.discard(look_up)

    def device_changed(self, device_id: int) -> None:
        for look_up in self._under_way:
            look_up.changed.add(device_id)

    def profile_changed(self) -> None:
        for look_up in self._under_way:
            look_up.is_all_changed = True


class LoginCache:
    """Logins by credential id; forgets the oldest first, and a device's when it changes."""

    def __init__(self, max_entries: int = MAX_CACHED_LOGINS) -> None:
        self._max_entries = max_entries
        self._by_id: OrderedDict[str, Login] = OrderedDict()
        self._ids_of_device: dict[int, set[str]] = {}
        self._absent: set[str] = set()
        self.generation = 0  # changes when something is forgotten: a look-up under way is then not kept

    def get(self, credentials_id: str) -> Login | None:
        return self._by_id.get(credentials_id)

    def knows(self, credentials_id: str) -> bool:
        """Whether `get` can be believed: the credential is cached, or known not to exist."""
        return credentials_id in self._by_id or credentials_id in self._absent

    def put_absent(self, credentials_id: str) -> None:
        """There is no such credential. A token login looks for client id and user name first: mostly in vain."""
        if len(self._absent) >= self._max_entries:
            self._absent.clear()
        self._absent.add(credentials_id)

    def forget_absent(self) -> None:
        """Call when credentials of any device were added or changed."""
        self.generation += 1
        self._absent.clear()

    def put(self, credentials_id: str, login: Login) -> None:
        self._by_id[credentials_id] = login
        self._ids_of_device.setdefault(login.identity.device_id, set()).add(credentials_id)
        if len(self._by_id) > self._max_entries:
            oldest, dropped = self._by_id.popitem(last=False)
            self._drop_id(dropped.identity.device_id, oldest)

    def forget(self, device_id: int) -> None:
        """Call when a device's credentials, name, role or existence changed."""
        self.forget_absent()
        for credentials_id in self._ids_of_device.pop(device_id, ()):
            self._by_id.pop(credentials_id, None)

    def tables(self) -> tuple[dict[str, Login], dict[int, set[str]]]:
        """What holds memory, for whoever gives the whole cache up."""
        return self._by_id, self._ids_of_device

    def _drop_id(self, device_id: int, credentials_id: str) -> None:
        ids = self._ids_of_device.get(device_id)
        if ids is not None:
            ids.discard(credentials_id)
            if not ids:
                del self._ids_of_device[device_id]
