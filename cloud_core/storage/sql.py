"""`Tx` over one DBAPI connection: what a decision writes, and the batch of samples that goes with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Dialect

from cloud_core.entropy import random_bytes
from cloud_core.model import (
    INACTIVITY_TIMEOUT,
    Attempt,
    Change,
    ChangeKind,
    Device,
    DeviceProfile,
    ProvisionConfiguration,
    ProvisionStrategy,
    Scope,
)
from cloud_core.storage.audit import WritesAudit
from cloud_core.storage.batches import WritesBatches
from cloud_core.storage.certificates import WritesCertificates
from cloud_core.storage.changes import WritesChanges
from cloud_core.storage.claims import WritesClaims
from cloud_core.storage.commands import WritesCommands
from cloud_core.storage.customers import WritesCustomers
from cloud_core.storage.documents import decode_document, decode_value, encode_document, encode_value
from cloud_core.storage.gateways import WritesGateways
from cloud_core.storage.interface import NewDevice, NewProfile
from cloud_core.storage.keys import WritesKeys
from cloud_core.storage.manifests import WritesManifests
from cloud_core.storage.packages import WritesPackages
from cloud_core.storage.pending import WritesPending
from cloud_core.storage.people import WritesPeople
from cloud_core.storage.presence import WritesPresence
from cloud_core.storage.reading import SqlReadTx
from cloud_core.storage.schema import BUCKET_MS
from cloud_core.storage.statements import Statements
from cloud_core.storage.tenants import WritesTenants
from cloud_core.storage.time_series import WritesTimeSeries
from cloud_core.storage.vault import Vault
from shared.credentials import AccessToken, Credentials, MqttBasic, X509Certificate, credentials_id
from shared.errors import VersionConflict
from shared.messages import Attributes, Sample, Value

_KEY_CACHE_ENTRIES = 200_000
DROPPED_AT_ONCE = 24  # buckets; maintenance comes every minute


class OutcomeUnknown(Exception):
    """The connection was lost while it committed: nobody can say whether that is durable."""


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


class SqlTx(
    SqlReadTx, WritesTimeSeries, WritesCustomers, WritesCommands, WritesClaims, WritesPackages, WritesGateways,
    WritesPresence, WritesCertificates, WritesPeople, WritesTenants, WritesBatches, WritesManifests, WritesAudit,
    WritesKeys, WritesPending, WritesChanges,
):  # fmt: skip
    """A decision's view of the database, and the batch of samples that goes with it."""

    def __init__(
        self, connection: Any, dialect: Dialect, statements: Statements, vault: Vault, node: str | None = None
    ) -> None:
        super().__init__(connection, dialect, statements, vault)
        self.node = node
        self._begin_changes()
        self._committed: list[Change] = []  # until somebody takes them
        self._key_ids: dict[str, int] = {}
        self._rows_to_put: dict[tuple[int, int, int], dict[int, Value]] = {}
        self._latest_to_put: dict[int, dict[int, tuple[int, Value]]] = {}

    def begin(self) -> None:
        """Opens the transaction (immediately, so that no later lock can fail it)."""
        self.writes = 0
        self._begin()

    def commit(self) -> None:
        """Writes the samples and makes everything durable.

        Raises: OutcomeUnknown when the connection was lost meanwhile.
        """
        self._flush_samples()
        if self.node is None:
            self._commit()
            return
        made = self._write_changes() if self._changes else []
        self._commit()
        self._committed += made
        self._begin_changes()

    def take_committed(self) -> list[Change]:
        """What has been recorded for other nodes since this was asked last, and is on disk."""
        if not self._committed:
            return []
        taken, self._committed = self._committed, []
        return taken

    def rollback(self) -> None:
        """Forgets everything since `begin`, cached numbers included."""
        self._rows_to_put.clear()
        self._latest_to_put.clear()
        self._key_ids.clear()
        self._begin_changes()
        self._roll_back()

    def _begin(self) -> None:
        self._cursor.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        self._cursor.execute("COMMIT")

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            self._cursor.execute("ROLLBACK")

    # -- devices and profiles ---------------------------------------------------------------------

    def insert_device(self, device: NewDevice) -> int:
        self.writes += 1
        row = self._row(
            self._s.insert_device, uuid=device.uuid.bytes, tenant_id=device.tenant_id,
            profile_id=device.profile_id, name=device.name, label=device.label, is_gateway=device.is_gateway,
            document=_json(device.document or {}), created_ms=device.created_ms, version=1,
            customer_id=device.customer_id,
        )  # fmt: skip
        number: int = row[0]
        if self.node is not None:
            self._new_devices.add(number)
        return number

    def update_device(self, device: Device) -> None:
        if self.node is not None:
            self._record_other_device(device)
        self._write(
            self._s.update_device, b_id=device.id, b_version=device.version, name=device.name,
            label=device.label, profile_id=device.profile_id, is_gateway=device.is_gateway,
            document=_json(device.document),
        )  # fmt: skip
        if self._cursor.rowcount != 1:
            raise VersionConflict
        self._name_certificates(device.id, device.name)

    def _record_other_device(self, device: Device) -> None:
        """Sessions copy no more of a device than this; label and document are read when they are asked for."""
        stored = self.device_by_id(device.id)
        if stored is not None and _as_in_sessions(stored) != _as_in_sessions(device):
            self.record_change(ChangeKind.DEVICE, device.id)

    def delete_device(self, device_id: int) -> None:
        for (bucket,) in self._rows(self._s.buckets, first=-(2**62), last=2**62):
            self._write(self._s.delete_bucket_of_device, b_bucket=bucket, b_device_id=device_id)
        self._write(self._s.delete_latest, device_id=device_id)
        self.delete_presence(device_id)
        self._forget_packages_of_device(device_id)
        self._clear_relations(device_id)
        self._name_certificates(device_id, "")
        self._write(self._s.delete_device, id=device_id)
        self.record_change(ChangeKind.DELETED, device_id)

    def insert_profile(self, profile: NewProfile) -> int:
        self.writes += 1
        row = self._row(
            self._s.insert_profile, uuid=profile.uuid.bytes, tenant_id=profile.tenant_id, name=profile.name,
            is_default=profile.is_default, document=_json(profile.document), created_ms=profile.created_ms,
            version=1, **self._provision_columns(profile.provision),
        )  # fmt: skip
        number: int = row[0]
        if profile.provision.strategy is ProvisionStrategy.X509_CERTIFICATE_CHAIN:
            self._put_anchors(number, profile.provision)
            self.record_change(ChangeKind.PROFILE)  # of others nothing can be remembered yet
        return number

    def update_profile(self, profile: DeviceProfile) -> None:
        self._write(
            self._s.update_profile, b_id=profile.id, b_version=profile.version, name=profile.name,
            document=_json(profile.document), **self._provision_columns(profile.provision),
        )  # fmt: skip
        if self._cursor.rowcount != 1:
            raise VersionConflict
        self._put_anchors(profile.id, profile.provision)
        self.record_change(ChangeKind.PROFILE)

    def set_default_profile(self, tenant_id: int, profile_id: int) -> None:
        self._write(self._s.clear_default, b_tenant_id=tenant_id)
        self._write(self._s.set_default, b_id=profile_id)

    def delete_profile(self, profile_id: int) -> None:
        self._delete_packages_of_profile(profile_id)
        self._write(self._s.delete_profile, id=profile_id)
        self.record_change(ChangeKind.PROFILE)

    def _provision_columns(self, provision: ProvisionConfiguration) -> dict[str, Any]:
        members = {name: getattr(provision, name) for name in ProvisionConfiguration.__slots__}
        key = provision.key
        if key and provision.strategy is ProvisionStrategy.X509_CERTIFICATE_CHAIN:
            # Profiles may share a CA and be told apart by the names they take; by a request none of them is found.
            key = f"{key}\n{provision.certificate_pattern}"
        return {
            "provision_key_hash": self._vault.hash_id(key) if key else None,
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
        former_until_ms: int = 0,
        authority_id: int | None = None,
    ) -> None:
        values = {
            "id_hash": self._vault.hash_id(credentials_id(credentials)),
            "sealed": seal_credentials(self._vault, credentials),
            "issued_ms": issued_ms,
            "request_digest": request_digest,
        }
        if self.node is not None:
            self._record_credentials_change(device_id, credentials, former_until_ms)
        is_there = False
        if not is_new_device:
            self._write(self._s.update_credentials, b_device_id=device_id, **values)
            is_there = self._cursor.rowcount == 1
            self._close_certificates(device_id, former_until_ms)
        if not is_there:
            self._write(
                self._s.insert_credentials, device_id=device_id, uuid=random_bytes(16), created_ms=now_ms,
                confirmed_ms=None, version=1, **values,
            )  # fmt: skip
        if isinstance(credentials, X509Certificate):
            tenant_id = self._row(self._s.tenant_of_device, id=device_id)[0]
            self._record_credentials(tenant_id, device_id, credentials, authority_id, now_ms)

    def _record_credentials_change(self, device_id: int, credentials: Credentials, former_until_ms: int) -> None:
        """Before they are written. A token that nobody has used yet is in nobody's memory."""
        stored = self.credentials(device_id) if device_id not in self._new_devices else None
        if stored is None:
            if not isinstance(credentials, AccessToken):
                self.record_change(ChangeKind.NEW_CREDENTIALS, device_id)
        elif stored.credentials == credentials or former_until_ms:
            self.record_change(ChangeKind.LOGIN, device_id)
        else:
            self.record_change(ChangeKind.CREDENTIALS, device_id)

    def _sealed(self, credentials: Credentials) -> bytes:
        return seal_credentials(self._vault, credentials)

    def lock_device(self, device_id: int) -> None:
        if self.node is not None:  # else there is but one writer
            self._row(self._s.lock_credentials, device_id=device_id)

    def mark_issued(self, device_id: int, *, now_ms: int, request_digest: bytes | None) -> None:
        self._write(self._s.mark_issued, b_device_id=device_id, issued_ms=now_ms, request_digest=request_digest)

    def mark_confirmed(self, device_id: int, *, now_ms: int) -> None:
        self._write(self._s.mark_confirmed, b_device_id=device_id, confirmed_ms=now_ms)

    # -- attributes and telemetry -----------------------------------------------------------------

    def put_attributes(self, device_id: int, scope: Scope, values: Attributes, *, now_ms: int) -> None:
        for key, value in values.items():
            self._write(
                self._s.put_attribute, device_id=device_id, scope=int(scope), key_id=self._key_id(key),
                value=encode_value(value), updated_ms=now_ms,
            )  # fmt: skip
        if self.node is not None:
            self._record_attributes(device_id, scope, values)

    def delete_attributes(self, device_id: int, scope: Scope, keys: Iterable[str]) -> None:
        gone = list(keys)
        for key in gone:
            self._write(self._s.delete_attribute, device_id=device_id, scope=int(scope), key_id=self._key_id(key))
        if self.node is not None:
            self._record_attributes(device_id, scope, gone)

    def _record_attributes(self, device_id: int, scope: Scope, keys: Iterable[str]) -> None:
        if scope is Scope.SHARED and (names := list(keys)):
            self.record_change(ChangeKind.SHARED, device_id, names)
        elif scope is Scope.SERVER and INACTIVITY_TIMEOUT in keys:
            self.record_change(ChangeKind.INACTIVITY, device_id)

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

    def move_samples(self, from_device_id: int, to_device_id: int) -> None:
        self._flush_samples()  # what came in just now moves, too
        for (bucket,) in self._rows(self._s.buckets, first=-(2**62), last=2**62):
            rows = self._rows(self._s.documents, b_bucket=bucket, b_device_id=from_device_id, start=-(2**62), end=2**62)
            for ts, document in rows:
                self._rows_to_put[bucket, to_device_id, ts] = decode_document(document)
        newest = self._rows(self._s.latest_ids, device_id=from_device_id)
        if newest:
            self._latest_to_put[to_device_id] = {key_id: (ts, decode_value(value)) for key_id, ts, value in newest}
        self._flush_samples()

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
        for bucket in {place[0] for place in rows}:  # each time: another process may have dropped it meanwhile
            self._cursor.execute(self._s.insert_bucket.sql, (bucket,))
        # Sorted: neighbours share pages, and nodes that write the same rows lock them in one order.
        put = [(*place, encode_document(rows[place])) for place in sorted(rows)]
        self._cursor.executemany(self._s.put_telemetry.sql, put)
        newest = [
            (device_id, key_id, ts, encode_value(value))
            for device_id, keys in sorted(self._latest_to_put.items())
            for key_id, (ts, value) in sorted(keys.items(), key=_by_key)
        ]
        self._cursor.executemany(self._s.put_latest.sql, newest)
        rows.clear()
        self._latest_to_put.clear()

    def drop_buckets(self, before_ms: int) -> int:
        """Retention: removes the oldest buckets that ended before `before_ms`, some at once; returns how many."""
        old = self._rows(self._s.buckets, first=-(2**62), last=before_ms // BUCKET_MS - 1)[:DROPPED_AT_ONCE]
        for (bucket,) in old:
            self._write(self._s.drop_bucket, b_bucket=bucket)
            self._write(self._s.forget_bucket, b_bucket=bucket)
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


def _as_in_sessions(device: Device) -> tuple[str, int, bool]:
    return device.name, device.profile_id, device.is_gateway


def _by_key(item: tuple[int, Any]) -> int:
    return item[0]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
