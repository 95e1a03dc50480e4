"""`AdminApi`: what operators can do. Decisions are plain functions of a transaction, as for devices."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from cloud_core.core.api import DeviceApi
from cloud_core.core.logins import Operator, Tokens, hash_password, is_password_right
from cloud_core.core.names import fault_of
from cloud_core.core.tokens import new_secret, new_uuid
from cloud_core.model import (
    DEFAULT_TENANT,
    Attempt,
    AttributeEntry,
    Device,
    DeviceProfile,
    Page,
    ProvisionConfiguration,
    ProvisionStrategy,
    Scope,
    StoredCredentials,
    User,
)
from cloud_core.storage.interface import NewDevice, NewProfile, ReadTx, Store, TimeSeriesQuery, Tx
from shared.credentials import AccessToken, Credentials, check_credentials, credentials_id
from shared.errors import (
    InvalidArgument,
    InvalidCredentials,
    NotAuthenticated,
    NotFound,
    PlatformError,
    VersionConflict,
)
from shared.messages import Attributes, Sample, Value

R = TypeVar("R")
DEFAULT_PROFILE = "default"
MAX_BULK_ROWS = 10_000
_GENERATED = (ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES, ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES)


class AdminApi:
    """Users, profiles, devices, credentials, data and the provisioning log of a tenant."""

    def __init__(self, *, store: Store, api: DeviceApi, jwt_key: bytes) -> None:
        self._store = store
        self._api = api
        self._tokens = Tokens(jwt_key)

    # -- logins -----------------------------------------------------------------------------------

    async def ensure_admin(self, username: str, password: str, *, is_password_given: bool) -> bool:
        """Makes the first administrator and the default profile; a password given anew replaces the old.

        Returns whether the administrator was made.
        """
        known = await self._read(_user, username)
        if known is not None:
            if is_password_given and not await deferToThread(is_password_right, known, password):
                await self._decide(_set_password, username, await deferToThread(hash_password, password))
            return False
        hashed = await deferToThread(hash_password, password)
        await self._decide(_first_start, username, hashed, self._api.now_ms())
        return True

    async def login(self, username: str, password: str) -> dict[str, str]:
        """Tokens for the right password. Raises: NotAuthenticated."""
        user, tenant = await self._read(_user_and_tenant, username)
        is_right = await deferToThread(is_password_right, user, password)
        if user is None or tenant is None or not is_right:
            raise NotAuthenticated("Invalid username or password")
        return self._tokens.issue(
            Operator(user.username, user.authority, user.tenant_id, tenant, user.uuid), int(time.time())
        )

    def refresh(self, refresh_token: str) -> dict[str, str]:
        """New tokens for a refresh token. Raises: NotAuthenticated."""
        return self._tokens.issue(self._tokens.operator(refresh_token, is_refresh=True), int(time.time()))

    def operator(self, token: str) -> Operator:
        """Who this token stands for. Raises: NotAuthenticated."""
        return self._tokens.operator(token)

    # -- profiles ---------------------------------------------------------------------------------

    async def save_profile(
        self, operator: Operator, uuid: UUID | None, name: str, provision: ProvisionConfiguration,
        document: dict[str, Any], version: int | None,
    ) -> DeviceProfile:  # fmt: skip
        """Creates (no uuid) or updates; key and secret are generated where the strategy needs them."""
        return await self._decide(
            _save_profile, operator.tenant_id, uuid, name, provision, document, version, self._api.now_ms()
        )

    async def profile(self, operator: Operator, uuid: UUID) -> DeviceProfile:
        return _found(await self._read(_profile, operator.tenant_id, uuid), "Device profile", uuid)

    async def default_profile(self, operator: Operator) -> DeviceProfile:
        return _found(await self._read(_default_profile, operator.tenant_id), "Default device profile", "")

    async def profiles(self, operator: Operator, page: Page) -> tuple[list[DeviceProfile], int]:
        return await self._read(_profiles, operator.tenant_id, page)

    async def delete_profile(self, operator: Operator, uuid: UUID) -> None:
        await self._decide(_delete_profile, operator.tenant_id, uuid)

    # -- devices ----------------------------------------------------------------------------------

    async def save_device(
        self,
        operator: Operator,
        members: dict[str, Any],
        access_token: str = "",
        *,
        credentials: Credentials | None = None,
    ) -> Device:
        """Creates or updates from REST members (`id`, `name`, `type`, `label`, `deviceProfileId`, …)."""
        brought = credentials or (AccessToken(access_token) if access_token else None)
        device, is_new = await self._decide(_save_device, operator.tenant_id, members, brought, self._api.now_ms())
        if not is_new or brought is not None:
            self._api.device_changed(device.id, "device changed")
        return device

    async def save_devices(self, operator: Operator, rows: Sequence[Any], *, is_plan: bool) -> list[dict[str, Any]]:
        """One outcome per row: `{index, name, status, id, error}` (product.md section 5, REST)."""
        if len(rows) > MAX_BULK_ROWS:
            raise InvalidArgument(f"At most {MAX_BULK_ROWS} devices at once; split the list")
        return await self._decide(_save_devices, operator.tenant_id, list(rows), is_plan, self._api.now_ms())

    async def device(self, operator: Operator, uuid: UUID) -> Device:
        return _found(await self._read(_device, operator.tenant_id, uuid), "Device", uuid)

    async def device_by_name(self, operator: Operator, name: str) -> Device:
        return _found(await self._read(_device_by_name, operator.tenant_id, name), "Device", name)

    async def devices(self, operator: Operator, page: Page, kind: str = "") -> tuple[list[Device], int]:
        return await self._read(_devices, operator.tenant_id, page, kind)

    async def delete_device(self, operator: Operator, uuid: UUID) -> None:
        device_id = await self._decide(_delete_device, operator.tenant_id, uuid)
        self._api.device_changed(device_id, "device deleted")

    async def credentials(self, operator: Operator, uuid: UUID) -> StoredCredentials:
        device = await self.device(operator, uuid)
        return _found(await self._read(_credentials, device.id), "Device credentials", uuid)

    async def save_credentials(self, operator: Operator, uuid: UUID, credentials: Credentials) -> StoredCredentials:
        """Replaces a device's credentials; its session ends."""
        stored = await self._decide(_save_credentials, operator.tenant_id, uuid, credentials, self._api.now_ms())
        self._api.device_changed(stored.device_id, "credentials changed")
        return stored

    # -- data -------------------------------------------------------------------------------------

    async def latest(self, operator: Operator, uuid: UUID, keys: Sequence[str] | None) -> dict[str, tuple[int, Value]]:
        device = await self.device(operator, uuid)
        return await self._read(_latest, device.id, keys)

    async def history(
        self, operator: Operator, uuid: UUID, query: TimeSeriesQuery
    ) -> dict[str, list[tuple[int, Value]]]:
        device = await self.device(operator, uuid)
        return await self._read(_history, device.id, query)

    async def attributes(
        self, operator: Operator, uuid: UUID, scopes: Sequence[Scope], keys: Sequence[str] | None
    ) -> list[AttributeEntry]:
        device = await self.device(operator, uuid)
        return await self._read(_attributes, device.id, scopes, keys)

    async def put_attributes(self, operator: Operator, uuid: UUID, scope: Scope, values: Attributes) -> None:
        device = await self.device(operator, uuid)
        await self._decide(_put_attributes, device.id, scope, values, self._api.now_ms())

    async def delete_attributes(self, operator: Operator, uuid: UUID, scope: Scope, keys: Sequence[str]) -> None:
        device = await self.device(operator, uuid)
        await self._decide(_delete_attributes, device.id, scope, keys)

    async def append_samples(self, operator: Operator, uuid: UUID, samples: list[Sample]) -> None:
        device = await self.device(operator, uuid)
        await _answer(lambda done: self._store.append(device.id, samples, done))

    # -- provisioning log -------------------------------------------------------------------------

    async def attempt(self, operator: Operator, ref: str) -> Attempt:
        attempt = await self._decide(_attempt, ref.upper())  # through the writer: it may just be on its way
        if attempt is None or attempt.tenant_id not in (None, operator.tenant_id):
            raise NotFound(f"No attempt has the reference '{ref}'; it is mistyped, or expired from the log")
        return attempt

    async def attempts(self, operator: Operator, limit: int) -> list[Attempt]:
        attempts = await self._read(_attempts, limit)
        return [one for one in attempts if one.tenant_id in (None, operator.tenant_id)]

    # -- plumbing ---------------------------------------------------------------------------------

    async def _decide(self, work: Callable[..., R], *args: Any) -> R:
        result: R = await _answer(lambda done: self._store.submit(work, args, done))
        return result

    async def _read(self, query: Callable[..., R], *args: Any) -> R:
        result: R = await _answer(lambda done: self._store.read(query, args, done))
        return result


async def _answer(start: Callable[[Callable[[Any], None]], None]) -> Any:  # Any: whatever the work returns
    answered: Deferred[Any] = Deferred()
    start(answered.callback)
    outcome = await answered
    if isinstance(outcome, PlatformError):
        raise outcome
    return outcome


def _found(entity: R | None, kind: str, which: object) -> R:
    if entity is None:
        raise NotFound(f"{kind} with id [{which}] is not found")
    return entity


# -- decisions and queries: plain functions of a transaction ------------------------------------------


def _user(tx: ReadTx, username: str) -> User | None:
    return tx.user_by_name(username)


def _user_and_tenant(tx: ReadTx, username: str) -> tuple[User | None, UUID | None]:
    user = tx.user_by_name(username)
    return user, tx.tenant_uuid(user.tenant_id) if user else None


def _set_password(tx: Tx, username: str, hashed: str) -> None:
    tx.update_password(username, hashed)


def _first_start(tx: Tx, username: str, hashed: str, now_ms: int) -> None:
    tenant_id = tx.tenant_id(DEFAULT_TENANT)
    assert tenant_id is not None, "the store makes the default tenant"
    has_default = tx.default_profile(tenant_id) is not None
    tx.insert_user(
        User(
            id=0, uuid=new_uuid(now_ms), tenant_id=tenant_id, username=username, password_hash=hashed,
            authority="TENANT_ADMIN", created_ms=now_ms,
        )
    )  # fmt: skip
    if not has_default:
        tx.insert_profile(
            NewProfile(
                uuid=new_uuid(now_ms), tenant_id=tenant_id, name=DEFAULT_PROFILE, provision=ProvisionConfiguration(),
                document={"description": "Default device profile"}, created_ms=now_ms, is_default=True,
            )
        )  # fmt: skip


def _profile(tx: ReadTx, tenant_id: int, uuid: UUID) -> DeviceProfile | None:
    return tx.profile(tenant_id, uuid)


def _default_profile(tx: ReadTx, tenant_id: int) -> DeviceProfile | None:
    return tx.default_profile(tenant_id)


def _profiles(tx: ReadTx, tenant_id: int, page: Page) -> tuple[list[DeviceProfile], int]:
    return tx.profiles(tenant_id, page)


def _save_profile(
    tx: Tx, tenant_id: int, uuid: UUID | None, name: str, provision: ProvisionConfiguration,
    document: dict[str, Any], version: int | None, now_ms: int,
) -> DeviceProfile:  # fmt: skip
    if not name.strip():
        raise InvalidArgument("Device profile name should be specified!")
    fault = fault_of("name", name)
    if fault:
        raise InvalidArgument(f"Validation error: {fault}")
    stored = _found(tx.profile(tenant_id, uuid), "Device profile", uuid) if uuid else None
    same_name = tx.profile_by_name(tenant_id, name)
    if same_name is not None and (stored is None or same_name.id != stored.id):
        raise InvalidArgument("Device profile with such name already exists!")
    if provision.strategy in _GENERATED:
        provision = replace(provision, key=provision.key or new_secret(), secret=provision.secret or new_secret())
    same_key = tx.profile_by_key(provision.key) if provision.key else None
    if same_key is not None and (stored is None or same_key.id != stored.id):
        raise InvalidArgument("Device profile with such provision device key already exists!")
    if stored is None:
        profile = NewProfile(
            uuid=new_uuid(now_ms),
            tenant_id=tenant_id,
            name=name,
            provision=provision,
            document=document,
            created_ms=now_ms,
        )
        tx.insert_profile(profile)
        return _found(tx.profile(tenant_id, profile.uuid), "Device profile", profile.uuid)
    if version is not None and version != stored.version:
        raise VersionConflict
    tx.update_profile(replace(stored, name=name, provision=provision, document=document))
    return _found(tx.profile(tenant_id, stored.uuid), "Device profile", stored.uuid)


def _delete_profile(tx: Tx, tenant_id: int, uuid: UUID) -> None:
    profile = _found(tx.profile(tenant_id, uuid), "Device profile", uuid)
    if profile.is_default:
        raise InvalidArgument("Deletion of Default Device Profile is prohibited!")
    if tx.profile_users(profile.id):
        raise InvalidArgument("The device profile referenced by the devices cannot be deleted!")
    tx.delete_profile(profile.id)


def _device(tx: ReadTx, tenant_id: int, uuid: UUID) -> Device | None:
    return tx.device(tenant_id, uuid)


def _device_by_name(tx: ReadTx, tenant_id: int, name: str) -> Device | None:
    return tx.device_by_name(tenant_id, name)


def _devices(tx: ReadTx, tenant_id: int, page: Page, kind: str) -> tuple[list[Device], int]:
    return tx.devices(tenant_id, page, kind)


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgument(f"Validation error: {name} must be a string")
    return value


def _entity_uuid(value: Any, name: str) -> UUID | None:
    text = value.get("id") if isinstance(value, dict) else value
    if text is None:
        return None
    try:
        return UUID(str(text))
    except ValueError as error:
        raise InvalidArgument(f"Validation error: {name} is no valid id") from error


_OWN_MEMBERS = frozenset(
    ("id", "createdTime", "tenantId", "name", "type", "label", "deviceProfileId", "version", "customerId")
)


def _save_device(
    tx: Tx, tenant_id: int, members: dict[str, Any], credentials: Credentials | None, now_ms: int
) -> tuple[Device, bool]:
    """The device and whether it is new; all checks before the first write."""
    name, kind, label = (_text(members, one) for one in ("name", "type", "label"))
    _check_texts(name, kind, label)
    uuid = _entity_uuid(members.get("id"), "id")
    stored = _found(tx.device(tenant_id, uuid), "Device", uuid) if uuid else None
    same_name = tx.device_by_name(tenant_id, name)
    if same_name is not None and (stored is None or same_name.id != stored.id):
        raise InvalidArgument("Device with such name already exists!")
    if credentials is not None:
        credentials = _checked(credentials)
        if tx.credentials_owner(credentials_id(credentials)) not in (None, stored.id if stored else None):
            raise InvalidArgument("Specified credentials are already registered!")
    document = {key: value for key, value in members.items() if key not in _OWN_MEMBERS}
    info = document.get("additionalInfo")
    is_gateway = isinstance(info, dict) and info.get("gateway") is True
    version = members.get("version")
    if stored is not None and version is not None and version != stored.version:
        raise VersionConflict
    profile_id = _profile_for(tx, tenant_id, members, kind, stored, now_ms)
    if stored is None:
        device = NewDevice(
            uuid=new_uuid(now_ms), tenant_id=tenant_id, profile_id=profile_id, name=name, created_ms=now_ms, label=label,
            is_gateway=is_gateway, document=document,
        )  # fmt: skip
        device_id = tx.insert_device(device)
        token = credentials or AccessToken(new_secret())
        tx.put_credentials(device_id, token, now_ms=now_ms, is_new_device=True)
        return _found(tx.device(tenant_id, device.uuid), "Device", device.uuid), True
    tx.update_device(
        replace(stored, name=name, label=label, profile_id=profile_id, is_gateway=is_gateway, document=document)
    )
    if credentials is not None:
        tx.put_credentials(stored.id, credentials, now_ms=now_ms)
    return _found(tx.device(tenant_id, stored.uuid), "Device", stored.uuid), False


def _check_texts(name: str, kind: str, label: str) -> None:
    if not name.strip():
        raise InvalidArgument("Device name should be specified!")
    for field, value in (("name", name), ("type", kind), ("label", label)):
        fault = fault_of(field, value)
        if fault:
            raise InvalidArgument(f"Validation error: {fault}")


def _checked(credentials: Credentials) -> Credentials:
    try:
        return check_credentials(credentials)
    except InvalidCredentials as error:
        raise InvalidArgument(str(error)) from error


def _profile_for(tx: Tx, tenant_id: int, members: dict[str, Any], kind: str, stored: Device | None, now_ms: int) -> int:
    """By id, else by type (found or created), else as it was, else the tenant's default."""
    uuid = _entity_uuid(members.get("deviceProfileId"), "deviceProfileId")
    if uuid is not None:
        profile = tx.profile(tenant_id, uuid)
        if profile is None:
            raise InvalidArgument("Device is referencing to non-existent device profile!")
        return profile.id
    if not kind:
        if stored is not None:
            return stored.profile_id
        default = tx.default_profile(tenant_id)
        if default is not None:
            return default.id
    name = kind or DEFAULT_PROFILE
    known = tx.profile_by_name(tenant_id, name)
    if known is not None:
        return known.id
    return tx.insert_profile(
        NewProfile(
            uuid=new_uuid(now_ms), tenant_id=tenant_id, name=name, provision=ProvisionConfiguration(), document={},
            created_ms=now_ms,
        )
    )  # fmt: skip


def _save_devices(tx: Tx, tenant_id: int, rows: list[Any], is_plan: bool, now_ms: int) -> list[dict[str, Any]]:
    outcomes: list[dict[str, Any]] = []
    seen: set[str] = set()
    for index, row in enumerate(rows):
        name = str(row.get("name") or "") if isinstance(row, dict) else ""
        outcome: dict[str, Any] = {"index": index, "name": name, "status": "ERROR", "id": None, "error": None}
        outcomes.append(outcome)
        try:
            if not isinstance(row, dict):
                raise InvalidArgument('Each row must be an object such as {"name": "SN-1", "type": "sensor"}')
            if name in seen:
                outcome["status"] = "CONFLICT"
                raise InvalidArgument(f"The name '{name}' stands in the list twice")
            seen.add(name)
            outcome["status"], outcome["id"] = _save_row(tx, tenant_id, row, is_plan, now_ms)
        except PlatformError as error:
            outcome["error"] = str(error)
    return outcomes


def _save_row(tx: Tx, tenant_id: int, row: dict[str, Any], is_plan: bool, now_ms: int) -> tuple[str, str | None]:
    name, kind, label = (_text(row, one) for one in ("name", "type", "label"))
    _check_texts(name, kind, label)
    stored = tx.device_by_name(tenant_id, name)
    if stored is None:
        if is_plan:
            return "CREATED", None
        device, _ = _save_device(tx, tenant_id, {k: v for k, v in row.items() if k != "id"}, None, now_ms)
        return "CREATED", str(device.uuid)
    is_same = (not kind or kind == stored.type) and ("label" not in row or label == stored.label)
    if is_same:
        return "UNCHANGED", str(stored.uuid)
    if not is_plan:
        members = {**stored.document, "label": stored.label, **row, "id": str(stored.uuid)}
        _save_device(tx, tenant_id, members, None, now_ms)
    return "UPDATED", str(stored.uuid)


def _delete_device(tx: Tx, tenant_id: int, uuid: UUID) -> int:
    device = _found(tx.device(tenant_id, uuid), "Device", uuid)
    tx.delete_device(device.id)
    return device.id


def _credentials(tx: ReadTx, device_id: int) -> StoredCredentials | None:
    return tx.credentials(device_id)


def _save_credentials(tx: Tx, tenant_id: int, uuid: UUID, credentials: Credentials, now_ms: int) -> StoredCredentials:
    device = tx.device(tenant_id, uuid)
    if device is None:
        raise NotFound("Can't assign device credentials to non-existent device!")
    checked = _checked(credentials)
    if tx.credentials_owner(credentials_id(checked)) not in (None, device.id):
        raise InvalidArgument("Specified credentials are already registered!")
    tx.put_credentials(device.id, checked, now_ms=now_ms)
    return _found(tx.credentials(device.id), "Device credentials", uuid)


def _latest(tx: ReadTx, device_id: int, keys: Sequence[str] | None) -> dict[str, tuple[int, Value]]:
    return tx.latest(device_id, keys)


def _history(tx: ReadTx, device_id: int, query: TimeSeriesQuery) -> dict[str, list[tuple[int, Value]]]:
    return tx.history(device_id, query)


def _attributes(
    tx: ReadTx, device_id: int, scopes: Sequence[Scope], keys: Sequence[str] | None
) -> list[AttributeEntry]:
    return [entry for scope in scopes for entry in tx.attributes(device_id, scope, keys)]


def _put_attributes(tx: Tx, device_id: int, scope: Scope, values: Attributes, now_ms: int) -> None:
    tx.put_attributes(device_id, scope, values, now_ms=now_ms)


def _delete_attributes(tx: Tx, device_id: int, scope: Scope, keys: Sequence[str]) -> None:
    tx.delete_attributes(device_id, scope, keys)


def _attempt(tx: ReadTx, ref: str) -> Attempt | None:
    return tx.attempt(ref)


def _attempts(tx: ReadTx, limit: int) -> list[Attempt]:
    return tx.attempts(limit)
