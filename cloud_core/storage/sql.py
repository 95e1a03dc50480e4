"""`ReadTx` and `Tx` over one DBAPI connection: rows to values and back. Runs off the reactor thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Dialect, func, or_, select

from cloud_core.model import (
    Attempt,
    AttributeEntry,
    Device,
    DeviceProfile,
    Identity,
    Login,
    Page,
    Peer,
    ProvisionConfiguration,
    ProvisionStrategy,
    Reprovisioning,
    Role,
    Scope,
    StoredCredentials,
    Transport,
    User,
)
from cloud_core.storage import schema
from cloud_core.storage.documents import (
    decode_document,
    decode_value,
    encode_document,
    encode_value,
    merge_documents,
)
from cloud_core.storage.interface import NewDevice, NewProfile, TimeSeriesQuery
from cloud_core.storage.schema import BUCKET_MS
from cloud_core.storage.statements import (
    Statement,
    Statements,
    compile_statement,
    device_rows,
    profile_rows,
)
from cloud_core.storage.vault import Vault
from shared.credentials import AccessToken, Credentials, MqttBasic, X509Certificate, credentials_id
from shared.errors import InvalidArgument, VersionConflict
from shared.messages import Attributes, Sample, Value

R = TypeVar("R")

_KIND = {"t": AccessToken, "m": MqttBasic, "x": X509Certificate}
_KEY_CACHE_ENTRIES = 200_000
_PROFILE_SORT = {"createdTime": schema.device_profile.c.created_ms, "name": schema.device_profile.c.name}
_DEVICE_SORT = {
    "createdTime": schema.device.c.created_ms,
    "name": schema.device.c.name,
    "label": schema.device.c.label,
    "type": schema.device_profile.c.name,
    "deviceProfileName": schema.device_profile.c.name,
}


def seal_credentials(vault: Vault, credentials: Credentials) -> bytes:
    """Encrypted form of the values."""
    match credentials:
        case AccessToken(token):
            parts = ["t", token]
        case MqttBasic(client_id, username, password):
            parts = ["m", client_id, username, password]
        case X509Certificate(certificate):
            parts = ["x", certificate]
    return vault.seal(msgspec.msgpack.encode(parts), context=b"credentials")


def unseal_credentials(vault: Vault, sealed: bytes) -> Credentials:
    """The credentials that `seal_credentials` encrypted."""
    kind, *parts = msgspec.msgpack.decode(vault.unseal(sealed, context=b"credentials"), type=list[str])
    credentials: Credentials = _KIND[kind](*parts)
    return credentials


class SqlReadTx:
    """Look-ups on one connection; not thread-safe, one instance for each lane."""

    def __init__(self, connection: Any, dialect: Dialect, statements: Statements, vault: Vault) -> None:
        # Any: a DBAPI connection (sqlite3 or psycopg); they share no common type.
        self._connection = connection
        self._cursor = connection.cursor()
        self._dialect = dialect
        self._s = statements
        self._vault = vault
        self._profiles: dict[bytes, ProvisionConfiguration] = {}

    # -- plumbing ---------------------------------------------------------------------------------

    def _rows(self, statement: Statement, **params: Any) -> list[Any]:
        self._cursor.execute(statement.sql, statement.values(params))
        rows: list[Any] = self._cursor.fetchall()
        return rows

    def _row(self, statement: Statement, **params: Any) -> Any:
        self._cursor.execute(statement.sql, statement.values(params))
        return self._cursor.fetchone()

    def _query(self, clause: Any) -> list[Any]:
        """Rows of a statement that is built for this call (lists with search and sorting)."""
        return self._rows(compile_statement(clause, self._dialect))

    def _page(self, rows: Any, page: Page, columns: dict[str, Any], search: Sequence[Any]) -> tuple[list[Any], int]:
        if page.sort_property not in columns:
            raise InvalidArgument(f"Unknown sort property '{page.sort_property}'; use one of {sorted(columns)}")
        if page.text_search:
            text = page.text_search.lower()
            rows = rows.where(or_(*(func.lower(column).contains(text, autoescape=True) for column in search)))
        total = self._query(select(func.count()).select_from(rows.subquery()))[0][0]
        order = columns[page.sort_property]
        rows = rows.order_by(order.desc() if page.descending else order.asc(), rows.selected_columns[0])
        return self._query(rows.limit(page.size).offset(page.page * page.size)), total

    def reading(self, query: Callable[..., R], args: tuple[Any, ...]) -> R:
        """Runs a look-up of several statements in one state of the database."""
        self._cursor.execute("BEGIN")
        try:
            return query(self, *args)
        finally:
            self._cursor.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    # -- tenants and users ------------------------------------------------------------------------

    def tenant_id(self, uuid: UUID) -> int | None:
        row = self._row(self._s.tenant_id, uuid=uuid.bytes)
        return None if row is None else row[0]

    def tenant_uuid(self, tenant_id: int) -> UUID | None:
        row = self._row(self._s.tenant_uuid, id=tenant_id)
        return None if row is None else UUID(bytes=bytes(row[0]))

    def user_by_name(self, username: str) -> User | None:
        row = self._row(self._s.user_by_name, username=username)
        if row is None:
            return None
        return User(
            id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], username=row[3],
            password_hash=row[4], authority=row[5], created_ms=row[6],
        )  # fmt: skip

    # -- profiles ---------------------------------------------------------------------------------

    def profile_by_key(self, provision_key: str) -> DeviceProfile | None:
        return self._profile(self._row(self._s.profile_by_key, key_hash=self._vault.hash_id(provision_key)))

    def profile(self, tenant_id: int, uuid: UUID) -> DeviceProfile | None:
        return self._profile(self._row(self._s.profile, tenant_id=tenant_id, uuid=uuid.bytes))

    def profile_by_name(self, tenant_id: int, name: str) -> DeviceProfile | None:
        return self._profile(self._row(self._s.profile_by_name, tenant_id=tenant_id, name=name))

    def default_profile(self, tenant_id: int) -> DeviceProfile | None:
        return self._profile(self._row(self._s.default_profile, tenant_id=tenant_id))

    def profiles(self, tenant_id: int, page: Page) -> tuple[list[DeviceProfile], int]:
        c = schema.device_profile.c
        rows, total = self._page(profile_rows.where(c.tenant_id == tenant_id), page, _PROFILE_SORT, [c.name])
        return [profile for row in rows if (profile := self._profile(row))], total

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
            known = ProvisionConfiguration(**members)
            if len(self._profiles) >= 1000:
                self._profiles.clear()
            self._profiles[sealed] = known
        return known

    # -- devices ----------------------------------------------------------------------------------

    def device(self, tenant_id: int, uuid: UUID) -> Device | None:
        return _device(self._row(self._s.device, tenant_id=tenant_id, uuid=uuid.bytes))

    def device_by_name(self, tenant_id: int, name: str) -> Device | None:
        return _device(self._row(self._s.device_by_name, tenant_id=tenant_id, name=name))

    def device_count(self, tenant_id: int) -> int:
        count: int = self._row(self._s.device_count, tenant_id=tenant_id)[0]
        return count

    def devices(self, tenant_id: int, page: Page, profile_name: str = "") -> tuple[list[Device], int]:
        c = schema.device.c
        wanted = device_rows.where(c.tenant_id == tenant_id)
        if profile_name:
            wanted = wanted.where(schema.device_profile.c.name == profile_name)
        rows, total = self._page(wanted, page, _DEVICE_SORT, [c.name, c.label, schema.device_profile.c.name])
        return [device for row in rows if (device := _device(row))], total

    # -- credentials ------------------------------------------------------------------------------

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
        identity = Identity(
            Role.GATEWAY if row[5] else Role.DEVICE, row[0], row[1], UUID(bytes=bytes(row[2])), row[3], row[4]
        )
        return Login(identity, unseal_credentials(self._vault, bytes(row[6])), row[7] is not None)

    # -- attributes and telemetry -----------------------------------------------------------------

    def attribute(self, device_id: int, scope: Scope, key: str) -> Value | None:
        row = self._row(self._s.attribute, device_id=device_id, scope=int(scope), name=key)
        return None if row is None else decode_value(row[0])

    def attributes(self, device_id: int, scope: Scope, keys: Sequence[str] | None = None) -> list[AttributeEntry]:
        rows = self._rows(self._s.attributes, device_id=device_id, scope=int(scope))
        wanted = None if keys is None else set(keys)
        return [
            AttributeEntry(name, decode_value(value), updated_ms)
            for name, value, updated_ms in rows
            if wanted is None or name in wanted
        ]

    def latest(self, device_id: int, keys: Sequence[str] | None = None) -> dict[str, tuple[int, Value]]:
        rows = self._rows(self._s.latest, device_id=device_id)
        wanted = None if keys is None else set(keys)
        return {name: (ts, decode_value(value)) for name, ts, value in rows if wanted is None or name in wanted}

    def history(self, device_id: int, query: TimeSeriesQuery) -> dict[str, list[tuple[int, Value]]]:
        names = {row[0]: key for key in query.keys if (row := self._row(self._s.key_id, name=key))}
        found: dict[str, list[tuple[int, Value]]] = {}
        buckets = self._rows(self._s.buckets, first=query.start_ms // BUCKET_MS, last=query.end_ms // BUCKET_MS)
        for (bucket,) in reversed(buckets) if query.descending else buckets:
            rows = self._rows(
                self._s.documents, b_bucket=bucket, b_device_id=device_id, start=query.start_ms, end=query.end_ms
            )
            for ts, document in reversed(rows) if query.descending else rows:
                for key_id, value in decode_document(document).items():
                    points = found.setdefault(names[key_id], []) if key_id in names else None
                    if points is not None and len(points) < query.limit:
                        points.append((ts, value))
            if len(found) == len(names) and all(len(points) >= query.limit for points in found.values()):
                break
        return found

    # -- provisioning log -------------------------------------------------------------------------

    def attempt(self, ref: str) -> Attempt | None:
        row = self._row(self._s.attempt, ref=ref)
        return None if row is None else _attempt(row)

    def attempts(self, limit: int = 100) -> list[Attempt]:
        return [_attempt(row) for row in self._rows(self._s.attempts, limit=limit)]


class SqlTx(SqlReadTx):
    """A decision's view of the database, and the batch of samples that goes with it."""

    def __init__(self, connection: Any, dialect: Dialect, statements: Statements, vault: Vault) -> None:
        super().__init__(connection, dialect, statements, vault)
        self._is_postgresql = dialect.name == "postgresql"
        self.writes = 0  # of the current transaction; the writer checks that refusals come before them
        self._key_ids: dict[str, int] = {}
        self._known_buckets: set[int] = set()
        self._rows_to_put: dict[tuple[int, int, int], dict[int, Value]] = {}
        self._latest_to_put: dict[int, dict[int, tuple[int, Value]]] = {}

    def _write(self, statement: Statement, **params: Any) -> None:
        self.writes += 1
        self._cursor.execute(statement.sql, statement.values(params))

    def begin(self) -> None:
        """Opens the transaction (immediately, so that no later lock can fail it)."""
        self.writes = 0
        self._cursor.execute("BEGIN" if self._is_postgresql else "BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Writes the samples and makes everything durable."""
        self._flush_samples()
        self._cursor.execute("COMMIT")

    def rollback(self) -> None:
        """Forgets everything since `begin`, cached numbers included."""
        self._rows_to_put.clear()
        self._latest_to_put.clear()
        self._key_ids.clear()
        self._known_buckets.clear()
        if self._is_postgresql or self._connection.in_transaction:
            self._cursor.execute("ROLLBACK")  # PostgreSQL only warns when there is none

    # -- devices and profiles ---------------------------------------------------------------------

    def insert_device(self, device: NewDevice) -> int:
        self.writes += 1
        row = self._row(
            self._s.insert_device, uuid=device.uuid.bytes, tenant_id=device.tenant_id,
            profile_id=device.profile_id, name=device.name, label=device.label, is_gateway=device.is_gateway,
            document=_json(device.document or {}), created_ms=device.created_ms, version=1,
        )  # fmt: skip
        number: int = row[0]
        return number

    def update_device(self, device: Device) -> None:
        self._write(
            self._s.update_device, b_id=device.id, b_version=device.version, name=device.name,
            label=device.label, profile_id=device.profile_id, is_gateway=device.is_gateway,
            document=_json(device.document),
        )  # fmt: skip
        if self._cursor.rowcount != 1:
            raise VersionConflict

    def delete_device(self, device_id: int) -> None:
        for (bucket,) in self._rows(self._s.buckets, first=-(2**62), last=2**62):
            self._write(self._s.delete_bucket_of_device, b_bucket=bucket, b_device_id=device_id)
        self._write(self._s.delete_latest, device_id=device_id)
        self._write(self._s.delete_device, id=device_id)

    def insert_profile(self, profile: NewProfile) -> int:
        self.writes += 1
        row = self._row(
            self._s.insert_profile, uuid=profile.uuid.bytes, tenant_id=profile.tenant_id, name=profile.name,
            is_default=profile.is_default, document=_json(profile.document), created_ms=profile.created_ms,
            version=1, **self._provision_columns(profile.provision),
        )  # fmt: skip
        number: int = row[0]
        return number

    def update_profile(self, profile: DeviceProfile) -> None:
        self._write(
            self._s.update_profile, b_id=profile.id, b_version=profile.version, name=profile.name,
            document=_json(profile.document), **self._provision_columns(profile.provision),
        )  # fmt: skip
        if self._cursor.rowcount != 1:
            raise VersionConflict

    def set_default_profile(self, tenant_id: int, profile_id: int) -> None:
        self._write(self._s.clear_default, b_tenant_id=tenant_id)
        self._write(self._s.set_default, b_id=profile_id)

    def delete_profile(self, profile_id: int) -> None:
        self._write(self._s.delete_profile, id=profile_id)

    def _provision_columns(self, provision: ProvisionConfiguration) -> dict[str, Any]:
        members = {name: getattr(provision, name) for name in ProvisionConfiguration.__slots__}
        return {
            "provision_key_hash": self._vault.hash_id(provision.key) if provision.key else None,
            "provision_sealed": self._vault.seal(msgspec.msgpack.encode(members), context=b"provision"),
        }

    # -- credentials ------------------------------------------------------------------------------

    def put_credentials(
        self,
        device_id: int,
        credentials: Credentials,
        *,
        now_ms: int,
        issued_ms: int | None = None,
        request_digest: bytes | None = None,
        is_new_device: bool = False,
    ) -> None:
        values = {
            "id_hash": self._vault.hash_id(credentials_id(credentials)),
            "sealed": seal_credentials(self._vault, credentials),
            "issued_ms": issued_ms,
            "request_digest": request_digest,
        }
        if not is_new_device:
            self._write(self._s.update_credentials, b_device_id=device_id, **values)
            if self._cursor.rowcount == 1:
                return
        self._write(
            self._s.insert_credentials, device_id=device_id, uuid=uuid4().bytes, created_ms=now_ms,
            confirmed_ms=None, version=1, **values,
        )  # fmt: skip

    def mark_issued(self, device_id: int, *, now_ms: int, request_digest: bytes | None) -> None:
        self._write(self._s.mark_issued, b_device_id=device_id, issued_ms=now_ms, request_digest=request_digest)

    def mark_confirmed(self, device_id: int, *, now_ms: int) -> None:
        self._write(self._s.mark_confirmed, b_device_id=device_id, confirmed_ms=now_ms)

    # -- attributes and telemetry -----------------------------------------------------------------

    def put_attributes(self, device_id: int, scope: Scope, values: Attributes, *, now_ms: int) -> None:
        self.writes += 1
        statement = self._s.put_attribute
        for key, value in values.items():
            self._cursor.execute(
                statement.sql,
                statement.values(
                    {
                        "device_id": device_id, "scope": int(scope), "key_id": self._key_id(key),
                        "value": encode_value(value), "updated_ms": now_ms,
                    }
                ),
            )  # fmt: skip

    def delete_attributes(self, device_id: int, scope: Scope, keys: Iterable[str]) -> None:
        for key in keys:
            self._write(self._s.delete_attribute, device_id=device_id, scope=int(scope), key_id=self._key_id(key))

    def append_samples(self, device_id: int, samples: Sequence[Sample]) -> None:
        rows = self._rows_to_put
        key_ids = self._key_ids
        latest = self._latest_to_put.get(device_id)
        if latest is None:
            latest = self._latest_to_put[device_id] = {}
        for ts, values in samples:
            document = {}
            for name, value in values.items():
                key_id = key_ids.get(name)
                if key_id is None:
                    key_id = self._key_id(name)
                document[key_id] = value
                newest = latest.get(key_id)
                if newest is None or ts >= newest[0]:
                    latest[key_id] = (ts, value)
            place = (ts // BUCKET_MS, device_id, ts)
            if place in rows:
                rows[place].update(document)
            else:
                rows[place] = document

    def _key_id(self, name: str) -> int:
        known = self._key_ids.get(name)
        if known is not None:
            return known
        row = self._row(self._s.key_id, name=name)
        if row is None:
            self._cursor.execute(self._s.insert_key.sql, (name,))
            row = self._row(self._s.key_id, name=name)
        if len(self._key_ids) >= _KEY_CACHE_ENTRIES:
            self._key_ids.clear()
        number: int = row[0]
        self._key_ids[name] = number
        return number

    def _flush_samples(self) -> None:
        """Set-based: one executemany for history, one for latest."""
        rows = self._rows_to_put
        if not rows:
            return
        for bucket in {place[0] for place in rows} - self._known_buckets:
            self._cursor.execute(self._s.insert_bucket.sql, (bucket,))
            self._known_buckets.add(bucket)
        # Sorted: neighbours share pages, and nodes that write the same rows lock them in one order.
        put = [(*place, encode_document(rows[place])) for place in sorted(rows)]
        self._cursor.executemany(self._s.put_telemetry.sql, put)
        if self._is_postgresql and self._cursor.rowcount < len(put):
            self._merge_existing(put)
        newest = [
            (device_id, key_id, ts, encode_value(value))
            for device_id, keys in sorted(self._latest_to_put.items())
            for key_id, (ts, value) in sorted(keys.items(), key=_by_key)
        ]
        self._cursor.executemany(self._s.put_latest.sql, newest)
        rows.clear()
        self._latest_to_put.clear()

    def _merge_existing(self, rows: list[tuple[int, int, int, bytes]]) -> None:
        """PostgreSQL has no function that merges documents: lock, merge here, write back."""
        for bucket, device_id, ts, document in rows:
            place = {"b_bucket": bucket, "b_device_id": device_id, "b_ts": ts}
            stored = bytes(self._row(self._s.lock_document, **place)[0])
            merged = merge_documents(stored, document)
            if merged != stored:
                self._write(self._s.update_document, document=merged, **place)

    def drop_buckets(self, before_ms: int) -> int:
        """Retention: removes whole buckets that ended before `before_ms`; returns how many."""
        old = self._rows(self._s.buckets, first=-(2**62), last=before_ms // BUCKET_MS - 1)
        for (bucket,) in old:
            self._write(self._s.drop_bucket, b_bucket=bucket)
            self._write(self._s.forget_bucket, b_bucket=bucket)
            self._known_buckets.discard(bucket)
        return len(old)

    # -- the rest ---------------------------------------------------------------------------------

    def log_attempt(self, attempt: Attempt) -> None:
        self._write(
            self._s.log_attempt, ref=attempt.ref or None, at_ms=attempt.at_ms, transport=attempt.peer.transport.value,
            source=attempt.peer.address, outcome=attempt.outcome, stage=attempt.stage, detail=attempt.detail,
            tenant_id=attempt.tenant_id, profile_id=attempt.profile_id, device_id=attempt.device_id,
            device_name=attempt.device_name, key_hint=attempt.key_hint, request=_json(attempt.request),
        )  # fmt: skip

    def trim_attempts(self, *, keep: int, before_ms: int) -> None:
        """Bounds the provisioning log: the newest `keep` lines that are not older than `before_ms`."""
        newest = self._row(self._s.newest_attempt)[0] or 0
        self._write(self._s.trim_attempts, last_id=newest - keep, before_ms=before_ms)

    def insert_tenant(self, uuid: UUID, name: str, *, now_ms: int) -> None:
        self._write(self._s.insert_tenant, uuid=uuid.bytes, name=name, created_ms=now_ms)

    def insert_user(self, user: User) -> None:
        self._write(
            self._s.insert_user, uuid=user.uuid.bytes, tenant_id=user.tenant_id, username=user.username,
            password_hash=user.password_hash, authority=user.authority, created_ms=user.created_ms,
        )  # fmt: skip

    def update_password(self, username: str, password_hash: str) -> None:
        self._write(self._s.update_password, b_username=username, password_hash=password_hash)


def _by_key(item: tuple[int, Any]) -> int:
    return item[0]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _device(row: Any) -> Device | None:
    if row is None:
        return None
    return Device(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], profile_id=row[3],
        profile_uuid=UUID(bytes=bytes(row[4])), type=row[5], name=row[6], label=row[7],
        is_gateway=bool(row[8]), document=msgspec.json.decode(row[9]), created_ms=row[10], version=row[11],
    )  # fmt: skip


def _attempt(row: Any) -> Attempt:
    return Attempt(
        ref=row[0] or "", at_ms=row[1], peer=Peer(Transport(row[2]), row[3]), outcome=row[4], stage=row[5],
        detail=row[6], tenant_id=row[7], profile_id=row[8], device_id=row[9], device_name=row[10],
        key_hint=row[11], request=msgspec.json.decode(row[12]),
    )  # fmt: skip
