"""`ReadTx` over one DBAPI connection: rows to values. Runs off the reactor thread."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy import JSON, Dialect, cast, func

from cloud_core.model import (
    PRESENCE_KEYS,
    Approval,
    Attempt,
    AttributeEntry,
    Device,
    DeviceProfile,
    Identity,
    Login,
    Page,
    ProvisionConfiguration,
    ProvisionStrategy,
    Renewal,
    Reprovisioning,
    Revocation,
    Role,
    Scope,
    StoredCredentials,
)
from cloud_core.profile_options import ProfileOptions, options_of
from cloud_core.storage import schema
from cloud_core.storage.attempts import ReadsAttempts, attempt_of
from cloud_core.storage.audit import ReadsAudit
from cloud_core.storage.batches import ReadsBatches
from cloud_core.storage.certificates import ReadsCertificates
from cloud_core.storage.changes import ReadsChanges
from cloud_core.storage.claims import ReadsClaims
from cloud_core.storage.commands import ReadsCommands
from cloud_core.storage.customers import ReadsCustomers
from cloud_core.storage.device_lists import ReadsDeviceLists
from cloud_core.storage.documents import (
    decode_value,
)
from cloud_core.storage.gateway_lists import ReadsGatewayLists
from cloud_core.storage.gateways import ReadsGateways
from cloud_core.storage.keys import ReadsKeys
from cloud_core.storage.manifests import ReadsManifests
from cloud_core.storage.overview import ReadsOverview
from cloud_core.storage.packages import ReadsPackages
from cloud_core.storage.pending import ReadsPending
from cloud_core.storage.people import ReadsPeople
from cloud_core.storage.presence import ReadsPresence
from cloud_core.storage.statements import (
    Statements,
    device_of,
    profile_rows,
)
from cloud_core.storage.tenants import ReadsTenants
from cloud_core.storage.time_series import ReadsTimeSeries
from cloud_core.storage.vault import Vault
from shared.credentials import AccessToken, Credentials, MqttBasic, X509Certificate
from shared.messages import Value

R = TypeVar("R")

FORMER = X509Certificate("")  # stands for a former certificate, of which only the fingerprint is kept
_KIND = {"t": AccessToken, "m": MqttBasic, "x": X509Certificate}
_KEY_CACHE_ENTRIES = 200_000
_PROFILE_SORT = {"createdTime": schema.device_profile.c.created_ms, "name": schema.device_profile.c.name}


def unseal_credentials(vault: Vault, sealed: bytes) -> Credentials:
    """The credentials that `seal_credentials` encrypted."""
    kind, *parts = msgspec.msgpack.decode(vault.unseal(sealed, context=b"credentials"), type=list[str])
    credentials: Credentials = _KIND[kind](*parts)
    return credentials


class SqlReadTx(
    ReadsDeviceLists,
    ReadsTimeSeries,
    ReadsCustomers,
    ReadsCommands,
    ReadsClaims,
    ReadsPackages,
    ReadsGateways,
    ReadsPresence,
    ReadsCertificates,
    ReadsPeople,
    ReadsTenants,
    ReadsBatches,
    ReadsManifests,
    ReadsAttempts,
    ReadsGatewayLists,
    ReadsAudit,
    ReadsKeys,
    ReadsPending,
    ReadsOverview,
    ReadsChanges,
):
    """Look-ups on one connection; not thread-safe, one instance for each lane."""

    def __init__(self, connection: Any, dialect: Dialect, statements: Statements, vault: Vault) -> None:
        super().__init__(connection, dialect, vault)
        self._s = statements
        self._profiles: dict[bytes, ProvisionConfiguration] = {}
        self._options: dict[str, ProfileOptions] = {}

    # -- tenants ----------------------------------------------------------------------------------

    def tenant_id(self, uuid: UUID) -> int | None:
        row = self._row(self._s.tenant_id, uuid=uuid.bytes)
        return None if row is None else row[0]

    def tenant_uuid(self, tenant_id: int) -> UUID | None:
        row = self._row(self._s.tenant_uuid, id=tenant_id)
        return None if row is None else UUID(bytes=bytes(row[0]))

    # -- profiles ---------------------------------------------------------------------------------

    def profile_by_key(self, provision_key: str) -> DeviceProfile | None:
        return self._profile(self._row(self._s.profile_by_key, key_hash=self._vault.hash_id(provision_key)))

    def profile(self, tenant_id: int, uuid: UUID) -> DeviceProfile | None:
        return self._profile(self._row(self._s.profile, tenant_id=tenant_id, uuid=uuid.bytes))

    def profile_by_name(self, tenant_id: int, name: str) -> DeviceProfile | None:
        return self._profile(self._row(self._s.profile_by_name, tenant_id=tenant_id, name=name))

    def default_profile(self, tenant_id: int) -> DeviceProfile | None:
        return self._profile(self._row(self._s.default_profile, tenant_id=tenant_id))

    def profiles(self, tenant_id: int, page: Page, transport: str = "") -> tuple[list[DeviceProfile], int]:
        c = schema.device_profile.c
        wanted = profile_rows.where(c.tenant_id == tenant_id)
        if transport:
            is_postgresql = self._dialect.name == "postgresql"
            said = (
                cast(c.document, JSON).op("->>")("transportType")
                if is_postgresql
                else func.json_extract(c.document, "$.transportType")
            )
            wanted = wanted.where(func.coalesce(said, "DEFAULT") == transport)
        rows, total = self._page(wanted, page, _PROFILE_SORT, [c.name])
        return [profile for row in rows if (profile := self._profile(row))], total

    def all_profiles(self, tenant_id: int) -> list[DeviceProfile]:
        rows = self._query(profile_rows.where(schema.device_profile.c.tenant_id == tenant_id))
        return [profile for row in rows if (profile := self._profile(row))]

    def profile_users(self, profile_id: int) -> int:
        count: int = self._row(self._s.profile_users, profile_id=profile_id)[0]
        return count

    def _profile(self, row: Any) -> DeviceProfile | None:
        if row is None:
            return None
        return DeviceProfile(
            id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], name=row[3], is_default=bool(row[4]),
            provision=self._configuration(bytes(row[5])), document=msgspec.json.decode(row[6]),
            created_ms=row[7], version=row[8],
        )  # fmt: skip

    def _configuration(self, sealed: bytes) -> ProvisionConfiguration:
        """Unsealed once for each stored content, so that another node's change is never missed."""
        known = self._profiles.get(sealed)
        if known is None:
            members = msgspec.msgpack.decode(self._vault.unseal(sealed, context=b"provision"))
            members["strategy"] = ProvisionStrategy(members["strategy"])
            members["reprovisioning"] = Reprovisioning(members["reprovisioning"])
            members["approval"] = Approval(members.get("approval", Approval.NONE))
            if "renewal" in members:  # configurations of before certificates have none
                members["renewal"] = Renewal(members["renewal"])
                members["revocation"] = Revocation(**members["revocation"])
            known = ProvisionConfiguration(**members)
            if len(self._profiles) >= 1000:
                self._profiles.clear()
            self._profiles[sealed] = known
        return known

    # -- devices ----------------------------------------------------------------------------------

    def device(self, tenant_id: int, uuid: UUID) -> Device | None:
        return device_of(self._row(self._s.device, tenant_id=tenant_id, uuid=uuid.bytes))

    def device_by_id(self, device_id: int) -> Device | None:
        return device_of(self._row(self._s.device_by_id, id=device_id))

    def device_by_name(self, tenant_id: int, name: str) -> Device | None:
        return device_of(self._row(self._s.device_by_name, tenant_id=tenant_id, name=name))

    def device_count(self, tenant_id: int) -> int:
        count: int = self._row(self._s.device_count, tenant_id=tenant_id)[0]
        return count

    def _found_device(self, row: Any) -> Device:
        device = device_of(row)
        assert device is not None, "there is a row"
        return device

    # -- credentials ------------------------------------------------------------------------------

    def _unsealed(self, sealed: bytes) -> Credentials:
        return unseal_credentials(self._vault, sealed)

    def credentials(self, device_id: int) -> StoredCredentials | None:
        row = self._row(self._s.credentials, device_id=device_id)
        if row is None:
            return None
        return StoredCredentials(
            device_id=row[0], uuid=UUID(bytes=bytes(row[1])),
            credentials=unseal_credentials(self._vault, bytes(row[2])), created_ms=row[3], issued_ms=row[4],
            confirmed_ms=row[5], request_digest=None if row[6] is None else bytes(row[6]), version=row[7],
        )  # fmt: skip

    def credentials_owner(self, credentials_id: str) -> int | None:
        row = self._row(self._s.credentials_owner, id_hash=self._vault.hash_id(credentials_id))
        return None if row is None else row[0]

    def logins(self, credentials_ids: Sequence[str]) -> list[Login | None]:
        return [self._login(one) for one in credentials_ids]

    def _login(self, credentials_id: str) -> Login | None:
        row = self._row(self._s.login, id_hash=self._vault.hash_id(credentials_id))
        if row is None:
            return None
        return Login(self._identity(row), unseal_credentials(self._vault, bytes(row[7])), row[8] is not None)

    def _former_login(self, row: Any) -> Login:
        return Login(self._identity(row), FORMER, is_confirmed=True)

    def _identity(self, row: Any) -> Identity:
        """Of a row that begins with `login_columns`."""
        return Identity(
            Role.GATEWAY if row[5] else Role.DEVICE, row[0], row[1], UUID(bytes=bytes(row[2])), row[3], row[4],
            self._options_of(row[6]),
        )  # fmt: skip

    def _profile_of(self, row: Any) -> DeviceProfile:
        profile = self._profile(row)
        assert profile is not None, "there is a row"
        return profile

    def _options_of(self, document: str) -> ProfileOptions:
        """Read once for each content of a profile, and shared by its devices."""
        known = self._options.get(document)
        if known is None:
            if len(self._options) >= 1000:
                self._options.clear()
            known = self._options[document] = options_of(msgspec.json.decode(document))
        return known

    # -- attributes and telemetry -----------------------------------------------------------------

    def attribute(self, device_id: int, scope: Scope, key: str) -> Value | None:
        if scope is Scope.SERVER and key in PRESENCE_KEYS:
            return next((entry.value for entry in self.presence_entries(device_id) if entry.key == key), None)
        row = self._row(self._s.attribute, device_id=device_id, scope=int(scope), name=key)
        return None if row is None else decode_value(row[0])

    def attributes(self, device_id: int, scope: Scope, keys: Sequence[str] | None = None) -> list[AttributeEntry]:
        rows = self._rows(self._s.attributes, device_id=device_id, scope=int(scope))
        stored = [AttributeEntry(name, decode_value(value), updated_ms) for name, value, updated_ms in rows]
        if scope is Scope.SERVER:
            kept = [entry for entry in stored if entry.key not in PRESENCE_KEYS]
            stored = sorted(kept + self.presence_entries(device_id), key=attrgetter("key"))
        wanted = None if keys is None else set(keys)
        return [entry for entry in stored if wanted is None or entry.key in wanted]

    def latest(self, device_id: int, keys: Sequence[str] | None = None) -> dict[str, tuple[int, Value]]:
        rows = self._rows(self._s.latest, device_id=device_id)
        wanted = None if keys is None else set(keys)
        return {name: (ts, decode_value(value)) for name, ts, value in rows if wanted is None or name in wanted}

    def sample_rows(self, device_id: int, *, at_most: int) -> int:
        count = 0
        for (bucket,) in self._rows(self._s.buckets, first=-(2**62), last=2**62):
            count += self._row(self._s.count_documents, b_bucket=bucket, b_device_id=device_id)[0]
            if count >= at_most:
                return at_most
        return count

    # -- provisioning log -------------------------------------------------------------------------

    def attempt(self, ref: str) -> Attempt | None:
        row = self._row(self._s.attempt, ref=ref)
        return None if row is None else attempt_of(row)

    def attempts(
        self, limit: int = 100, *, tenant_id: int | None = None, with_unassigned: bool = False
    ) -> list[Attempt]:
        if tenant_id is None:
            return [attempt_of(row) for row in self._rows(self._s.attempts, limit=limit)]
        wanted = self._s.attempts_of_and_unassigned if with_unassigned else self._s.attempts_of
        return [attempt_of(row) for row in self._rows(wanted, limit=limit, tenant_id=tenant_id)]
