"""`AdminApi`: what operators can do. Decisions are plain functions of a transaction, as for devices."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from twisted.internet.threads import deferToThread

from cloud_core.core import device_credentials, device_rows, histories, inventory, relations
from cloud_core.core.api import DeviceApi
from cloud_core.core.asking import Asking, to_the_end
from cloud_core.core.asking import answered as answered  # others find it here
from cloud_core.core.attributes import check_writable
from cloud_core.core.bulk.imports import ImportsApi
from cloud_core.core.bulk.manifests import ManifestsApi
from cloud_core.core.certificates import chain_profiles
from cloud_core.core.certificates.authority_admin import AuthoritiesApi
from cloud_core.core.downlinks import Ending
from cloud_core.core.histories import AggregateQuery, Removal
from cloud_core.core.keys.approvals import ApprovalsApi
from cloud_core.core.keys.key_admin import KeysApi
from cloud_core.core.labels.labels import LabelsApi
from cloud_core.core.line_ration import LineRation
from cloud_core.core.lists import ListsApi
from cloud_core.core.names import MAX_NAME_CHARS
from cloud_core.core.overview import OverviewApi
from cloud_core.core.people import audit
from cloud_core.core.people.access import ENDED, Access, end_login
from cloud_core.core.people.api_keys import ApiKeysApi
from cloud_core.core.people.audit import Deed, Subject
from cloud_core.core.people.audit_admin import AuditApi
from cloud_core.core.people.customers import CustomersApi
from cloud_core.core.people.local_access import LocalAccess
from cloud_core.core.people.logins import Operator, Tokens, hash_password, is_password_right
from cloud_core.core.people.permissions import SYS_ADMIN
from cloud_core.core.people.tenants import TenantsApi, first_system_administrator
from cloud_core.core.people.users import UsersApi, checked_password
from cloud_core.core.relations import DeviceSearch
from cloud_core.core.replacement import ReplacementApi
from cloud_core.core.system_view import SystemView
from cloud_core.core.trials import TrialsApi
from cloud_core.core.unique_names import REFUSE, Naming
from cloud_core.model import (
    EVERY_DEVICE,
    Attempt,
    AttributeEntry,
    Customer,
    Device,
    DeviceFilter,
    DeviceProfile,
    Page,
    ProvisionConfiguration,
    Relation,
    Scope,
    StoredCredentials,
    User,
)
from cloud_core.proto_schemas import check_schemas, has_schemas
from cloud_core.storage.interface import Store, TimeSeriesQuery, Tx
from shared.credentials import AccessToken, Credentials, credentials_type
from shared.errors import (
    FAILED_ATTEMPTS_TEXT,
    InvalidArgument,
    NotAuthenticated,
    NotFound,
    RateLimited,
    Unavailable,
)
from shared.messages import Attributes, Sample, Value

MAX_BULK_ROWS = 10_000
MAX_FAILED_LOGINS = 10  # in the audit, in LineRation's span: strangers cannot push out what operators did
MAX_LOGINS = 32  # whose passwords are being compared: each takes 19 MiB and a thread


class AdminApi(Asking):
    """Users, profiles, devices, credentials, data and the provisioning log of a tenant."""

    def __init__(self, *, store: Store, api: DeviceApi, jwt_key: bytes) -> None:
        super().__init__(store, api.audit)
        self._api = api
        self.now_ms = api.now_ms
        self.access = Access(store=store, now_ms=api.now_ms)
        self.users = UsersApi(store=store, access=self.access, now_ms=api.now_ms, audit=api.audit)
        self.api_keys = ApiKeysApi(store=store, access=self.access, now_ms=api.now_ms, audit=api.audit)
        self.tenants = TenantsApi(
            store=store, access=self.access, now_ms=api.now_ms, audit=api.audit,
            tenant_deleted=self._tenant_deleted,
            device_deleted=lambda device_id: api.device_changed(device_id, Ending.DEVICE_DELETED),
        )  # fmt: skip
        self.customers = CustomersApi(store=store, access=self.access, now_ms=api.now_ms, audit=api.audit)
        self.authorities = AuthoritiesApi(
            store=store, now_ms=api.now_ms, device_changed=api.device_changed, public_url=api.public_url,
            on_new_authority=api.certificates.anchors_changed, audit=api.audit,
        )  # fmt: skip
        self.imports = ImportsApi(store=store, api=api)
        self.manifests = ManifestsApi(store=store, audit=api.audit, now_ms=api.now_ms)
        self.labels = LabelsApi(store=store, manifests=self.manifests)
        self.local_access = LocalAccess()
        self.lists = ListsApi(store)
        self.replacements = ReplacementApi(store=store, api=api, now_ms=api.now_ms)
        self.trials = TrialsApi(store=store, api=api, now_ms=api.now_ms)
        self.audit = AuditApi(store)
        self.overview = OverviewApi(
            store=store, now_ms=api.now_ms, events=api.events,
            system=SystemView(metrics=api.metrics, health=api.health, now_ms=api.now_ms),
        )  # fmt: skip
        self.events = api.events
        self.rpc = api.rpc
        self.downlinks = api.downlinks
        self.keys = KeysApi(store=store, audit=api.audit, now_ms=api.now_ms)
        self.approvals = ApprovalsApi(store=store, audit=api.audit, now_ms=api.now_ms)
        self._tokens = Tokens(jwt_key)
        self._login_count = 0  # under way
        self._failed_logins = LineRation(MAX_FAILED_LOGINS)

    # -- logins -----------------------------------------------------------------------------------

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

    def _tenant_deleted(self) -> None:
        self._api.profile_changed()
        self._api.certificates.anchors_changed()

    async def open_local_access(self) -> str:
        """A new token for commands on this machine; the one of before ends."""
        return self.local_access.open(await self._read(inventory.default_tenant_id))

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

    # -- profiles ---------------------------------------------------------------------------------

    @to_the_end
    async def save_profile(
        self, operator: Operator, uuid: UUID | None, name: str, provision: ProvisionConfiguration,
        document: dict[str, Any], version: int | None,
    ) -> DeviceProfile:  # fmt: skip
        """Creates (no uuid) or updates; key and secret are generated where the strategy needs them."""
        if has_schemas(document):
            await deferToThread(check_schemas, document)
        is_by_chain = chain_profiles.is_by_chain(provision)
        if is_by_chain:
            provision = await deferToThread(chain_profiles.checked, provision, document, self._api.now_ms())
        deed = Deed("CREATED" if uuid is None else "UPDATED", "DEVICE_PROFILE", _of_profile)
        saved = await self._decide_by(
            operator, deed, inventory.save_profile, operator.tenant_id, uuid, name, provision, document, version,
            self._api.now_ms(),
        )  # fmt: skip
        if uuid is not None or is_by_chain:
            self._api.profile_changed()
        if uuid is not None:
            self._api.packages.roll_out()
        return saved

    async def profile(self, operator: Operator, uuid: UUID) -> DeviceProfile:
        return inventory.found(await self._read(inventory.profile, operator.tenant_id, uuid), "Device profile", uuid)

    async def default_profile(self, operator: Operator) -> DeviceProfile:
        return inventory.found(
            await self._read(inventory.default_profile, operator.tenant_id), "Default device profile", ""
        )

    async def profiles(self, operator: Operator, page: Page, transport: str = "") -> tuple[list[DeviceProfile], int]:
        return await self._read(inventory.profiles, operator.tenant_id, page, transport)

    async def profile_names(self, operator: Operator, *, is_used: bool = False) -> list[tuple[UUID, str]]:
        """Uuid and name of every profile, or of those that have devices, by name."""
        return await self._read(inventory.profile_names, operator.tenant_id, is_used)

    @to_the_end
    async def make_default_profile(self, operator: Operator, uuid: UUID) -> DeviceProfile:
        deed = Deed("MADE_DEFAULT", "DEVICE_PROFILE", _of_profile)
        return await self._decide_by(operator, deed, inventory.make_default, operator.tenant_id, uuid)

    @to_the_end
    async def delete_profile(self, operator: Operator, uuid: UUID) -> None:
        deed = Deed("DELETED", "DEVICE_PROFILE", _of_profile)
        await self._decide_by(operator, deed, inventory.delete_profile, operator.tenant_id, uuid)
        self._api.profile_changed()

    # -- devices ----------------------------------------------------------------------------------

    @to_the_end
    async def save_device(
        self,
        operator: Operator,
        members: dict[str, Any],
        access_token: str = "",
        *,
        credentials: Credentials | None = None,
        naming: Naming = REFUSE,
    ) -> Device:
        """Creates or updates from REST members (`id`, `name`, `type`, `label`, `deviceProfileId`, …)."""
        brought = credentials or (AccessToken(access_token) if access_token else None)
        deed = Deed("UPDATED" if members.get("id") else "CREATED", "DEVICE", lambda saved: _of_device(saved, brought))
        saved = await self._decide_by(
            operator, deed, inventory.write_device, operator.tenant_id, members, brought, self._api.now_ms(), naming
        )
        self._tell(operator, saved)
        return saved.device

    def _tell(self, operator: Operator, saved: inventory.SavedDevice) -> None:
        """Sessions and gateways hear of what is on disk now."""
        self._api.attributes.changed(saved.device.id, saved.news)
        if saved.ends_sessions:
            self._api.device_changed(saved.device.id, Ending.DEVICE_CHANGED)
        if saved.gateway_id:
            self._api.gateways.renamed(operator.tenant_id, saved.gateway_id, saved.former_name, saved.device.name)

    @to_the_end
    async def save_devices(self, operator: Operator, rows: Sequence[Any], *, is_plan: bool) -> list[dict[str, Any]]:
        """One outcome per row: `{index, name, status, id, error}` (product.md section 5, REST)."""
        if len(rows) > MAX_BULK_ROWS:
            raise InvalidArgument(f"At most {MAX_BULK_ROWS} devices at once; split the list")
        told: list[dict[str, Any]] = []
        wanted, at_once = device_rows.rows_of(rows), device_rows.SAVED_AT_ONCE
        for start in range(0, len(wanted), at_once):
            args = (operator.tenant_id, wanted[start : start + at_once], is_plan, self._api.now_ms())
            if is_plan:
                outcomes = await self._decide(device_rows.save_rows, *args)
            else:
                deed = Deed("SAVED", "DEVICE", _of_rows)
                outcomes = await self._decide_by(operator, deed, device_rows.save_rows, *args)
            for outcome in outcomes:
                told.append(outcome.told)
                if outcome.saved is not None:
                    self._tell(operator, outcome.saved)
        return told

    async def device(self, operator: Operator, uuid: UUID) -> Device:
        """NotFound; NotAuthorized for the user of a customer that it does not belong to."""
        device = inventory.found(await self._read(inventory.device, operator.tenant_id, uuid), "Device", uuid)
        operator.check_owner(device)
        return device

    async def device_by_name(self, operator: Operator, name: str) -> Device:
        return inventory.found(await self._read(inventory.device_by_name, operator.tenant_id, name), "Device", name)

    async def devices(
        self, operator: Operator, page: Page, wanted: DeviceFilter = EVERY_DEVICE
    ) -> tuple[list[Device], int]:
        return await self._read(inventory.devices, operator.tenant_id, page, wanted)

    async def devices_by_ids(self, operator: Operator, uuids: Sequence[UUID]) -> list[Device]:
        """Those that exist, in the order given."""
        return await self._read(inventory.devices_by_ids, operator.tenant_id, uuids)

    @to_the_end
    async def delete_device(self, operator: Operator, uuid: UUID) -> None:
        deed = Deed("DELETED", "DEVICE", lambda deleted: Subject(uuid, deleted.name))
        deleted = await self._decide_by(
            operator, deed, inventory.delete_device, operator.tenant_id, uuid, self._api.now_ms()
        )
        self._api.device_changed(deleted.device_id, Ending.DEVICE_DELETED)
        if deleted.gateway_id:
            self._api.gateways.deleted(operator.tenant_id, deleted.gateway_id, deleted.name)

    async def credentials(self, operator: Operator, uuid: UUID) -> StoredCredentials:
        device = await self.device(operator, uuid)
        return inventory.found(await self._read(device_credentials.find, device.id), "Device credentials", uuid)

    @to_the_end
    async def save_credentials(
        self, operator: Operator, uuid: UUID, credentials: Credentials, *,
        known_uuid: UUID | None = None, version: int | None = None,
    ) -> StoredCredentials:  # fmt: skip
        """Replaces a device's credentials; its session ends.

        InvalidArgument and VersionConflict where the device's are not those of `known_uuid` and `version`.
        """
        kind = credentials_type(credentials).value
        deed = Deed("UPDATED", "CREDENTIALS", lambda _: Subject(uuid, "", f"of a device, now {kind}"))
        stored = await self._decide_by(
            operator, deed, device_credentials.save, operator.tenant_id, uuid, credentials, known_uuid, version,
            self._api.now_ms(),
        )  # fmt: skip
        self._api.device_changed(stored.device_id, Ending.CREDENTIALS_CHANGED)
        return stored

    # -- relations --------------------------------------------------------------------------------

    async def save_relation(self, operator: Operator, relation: Relation) -> None:
        await self._decide_by(operator, _of_relation("UPDATED", relation), relations.save, relation)

    async def relation(self, relation: Relation) -> Relation:
        """The stored one with the same ends, type and group. Raises: NotFound."""
        return await self._read(relations.find, relation)

    async def delete_relation(self, operator: Operator, relation: Relation) -> None:
        await self._decide_by(operator, _of_relation("DELETED", relation), relations.delete, relation)

    async def relations(
        self, operator: Operator, from_uuid: UUID | None, to_uuid: UUID | None, type_: str, type_group: str
    ) -> list[Relation]:
        return await self._read(relations.of_end, operator.tenant_id, from_uuid, to_uuid, type_, type_group)

    async def related_devices(self, operator: Operator, wanted: DeviceSearch) -> list[Device]:
        return await self._read(relations.search, operator.tenant_id, wanted)

    # -- data -------------------------------------------------------------------------------------

    async def latest(self, operator: Operator, uuid: UUID, keys: Sequence[str] | None) -> dict[str, tuple[int, Value]]:
        device = await self.device(operator, uuid)
        return await self._read(inventory.latest, device.id, keys)

    async def history(
        self, operator: Operator, uuid: UUID, query: TimeSeriesQuery
    ) -> dict[str, list[tuple[int, Value]]]:
        device = await self.device(operator, uuid)
        return await self._read(inventory.history, device.id, query)

    async def aggregated(
        self, operator: Operator, uuid: UUID, query: AggregateQuery
    ) -> dict[str, list[tuple[int, Value]]]:
        device = await self.device(operator, uuid)
        return await self._read(histories.aggregated, device.id, query)

    async def remove_samples(self, operator: Operator, uuid: UUID, removal: Removal) -> None:
        """Part by part, so that devices are served in between."""
        device = await self.device(operator, uuid)
        from_ms: int | None = removal.start_ms
        while from_ms is not None:
            deed = Deed("TELEMETRY_DELETED", "DEVICE", _of_part(device, is_first=from_ms == removal.start_ms))
            from_ms = await self._decide_by(operator, deed, histories.remove, device.id, removal, from_ms)

    async def attributes(
        self, operator: Operator, uuid: UUID, scopes: Sequence[Scope], keys: Sequence[str] | None
    ) -> list[AttributeEntry]:
        device = await self.device(operator, uuid)
        return await self._read(inventory.attributes, device.id, scopes, keys)

    async def put_attributes(self, operator: Operator, uuid: UUID, scope: Scope, values: Attributes) -> None:
        device = await self.device(operator, uuid)
        await answered(
            lambda done: self._api.attributes.put(device.id, scope, values, done, by=operator, device=device)
        )

    async def put_attributes_of(
        self, operator: Operator, uuids: Sequence[UUID], scope: Scope, values: Attributes
    ) -> None:
        """The same attributes for many devices; all must exist. Raises: NotFound, InvalidArgument."""
        check_writable(scope, values)
        numbers = await self._read(inventory.device_ids, operator.tenant_id, uuids)
        await answered(lambda done: self._api.attributes.put_all(numbers, scope, values, done, by=operator))

    async def delete_attributes(self, operator: Operator, uuid: UUID, scope: Scope, keys: Sequence[str]) -> None:
        device = await self.device(operator, uuid)
        await answered(
            lambda done: self._api.attributes.delete(device.id, scope, keys, done, by=operator, device=device)
        )

    async def append_samples(self, operator: Operator, uuid: UUID, samples: list[Sample]) -> None:
        device = await self.device(operator, uuid)
        await answered(lambda done: self._store.append(device.id, samples, done))

    # -- provisioning log -------------------------------------------------------------------------

    async def attempt(self, operator: Operator, ref: str) -> Attempt:
        attempt = await self._decide(inventory.attempt, ref.upper())  # through the writer: it may just be on its way
        if attempt is None or attempt.tenant_id not in (None, operator.tenant_id):
            raise NotFound(f"No attempt has the reference '{ref}'; it is mistyped, or expired from the log")
        return attempt

    async def attempts(self, operator: Operator, limit: int) -> list[Attempt]:
        """The tenant's, and those of nobody's keys for whom `Operator.sees_unassigned`."""
        return await self._read(inventory.attempts, operator.tenant_id, operator.sees_unassigned, limit)


def _operator_of(user: User, tenant: UUID | None, customer: Customer | None) -> Operator:
    assert tenant is not None, "a user's tenant exists"
    return Operator(
        user.username, user.authority, user.tenant_id, tenant, user.uuid, user.customer_id,
        customer.uuid if customer is not None else None, user.role, generation=user.generation,
    )  # fmt: skip


def _nothing(_tx: Tx) -> None:
    """What a login changes."""


def _of_part(device: Device, *, is_first: bool) -> Callable[[Any], Subject | None]:
    """A deletion in parts is one deed, recorded with the first of them."""
    return lambda _: Subject(device.uuid, device.name) if is_first else None


def _of_profile(profile: DeviceProfile) -> Subject:
    return Subject(profile.uuid, profile.name, f"strategy {profile.provision.strategy.value}")


def _of_device(saved: inventory.SavedDevice, brought: Credentials | None) -> Subject:
    detail = f"with credentials {credentials_type(brought).value}" if brought is not None else ""
    return Subject(saved.device.uuid, saved.device.name, detail)


def _of_rows(outcomes: list[device_rows.Outcome]) -> Subject:
    counts = Counter(one.told["status"] for one in outcomes)
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return Subject(None, f"{len(outcomes)} devices", said)


def _of_relation(action: str, relation: Relation) -> Deed:
    said = f"{relation.from_type} {relation.from_uuid} to {relation.to_type} {relation.to_uuid}"
    return Deed(action, "RELATION", lambda _: Subject(None, relation.type, said))
