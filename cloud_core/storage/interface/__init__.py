"""What the core may ask of storage: run a decision in a transaction, append telemetry, read.

A *decision* is a plain function of a transaction that checks first and writes last: a refusal is
raised before its first write. The writer runs many decisions in one database transaction and
answers all of them after its commit has reached the disk; when one fails otherwise, the batch is
rolled back and its members run again one by one. Decisions therefore may run twice and must not
have effects outside the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

from cloud_core.model import (
    Attempt,
    AttributeEntry,
    Change,
    Device,
    DeviceProfile,
    Login,
    Page,
    ProvisionConfiguration,
    Scope,
    StoredCredentials,
)
from cloud_core.storage.interface.attempts import ReadAttempts
from cloud_core.storage.interface.audit import ReadAudit, WriteAudit
from cloud_core.storage.interface.batches import ReadBatches, WriteBatches
from cloud_core.storage.interface.certificates import ReadCertificates, WriteCertificates
from cloud_core.storage.interface.changes import ReadChanges, WriteChanges
from cloud_core.storage.interface.claims import ReadClaims, WriteClaims
from cloud_core.storage.interface.commands import ReadCommands, WriteCommands
from cloud_core.storage.interface.customers import ReadCustomers, WriteCustomers
from cloud_core.storage.interface.device_lists import ReadDeviceLists
from cloud_core.storage.interface.gateway_lists import ReadGatewayLists
from cloud_core.storage.interface.gateways import ReadGateways, WriteGateways
from cloud_core.storage.interface.keys import ReadKeys, WriteKeys
from cloud_core.storage.interface.manifests import ReadManifests, WriteManifests
from cloud_core.storage.interface.overview import ReadOverview
from cloud_core.storage.interface.packages import ReadPackages, WritePackages
from cloud_core.storage.interface.pending import ReadPending, WritePending
from cloud_core.storage.interface.people import ReadPeople, WritePeople
from cloud_core.storage.interface.presence import ReadPresence, WritePresence
from cloud_core.storage.interface.tenants import ReadTenants, WriteTenants
from cloud_core.storage.interface.time_series import ReadTimeSeries, WriteTimeSeries
from shared.credentials import Credentials
from shared.errors import PlatformError
from shared.messages import Attributes, Sample, Value

R = TypeVar("R")

# Called in the reactor thread with the result, or with the refusal; any other failure has been
# logged and arrives as `Unavailable`.
Done = Callable[[R | PlatformError], None]


@dataclass(slots=True, kw_only=True)
class NewDevice:
    """A device to be inserted; the store gives it its number."""

    uuid: UUID
    tenant_id: int
    profile_id: int
    name: str
    created_ms: int
    label: str = ""
    is_gateway: bool = False
    document: dict[str, Any] | None = None  # JSON members kept for REST
    customer_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProfile:
    """A device profile to be inserted."""

    uuid: UUID
    tenant_id: int
    name: str
    provision: ProvisionConfiguration
    document: dict[str, Any]  # JSON members kept for REST
    created_ms: int
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class TimeSeriesQuery:
    """Which history is asked for; times in ms since the epoch, `start_ms` ≤ ts < `end_ms`."""

    keys: tuple[str, ...]
    start_ms: int
    end_ms: int
    limit: int = 100
    descending: bool = True


class ReadTx(
    ReadDeviceLists,
    ReadTimeSeries,
    ReadCustomers,
    ReadCommands,
    ReadClaims,
    ReadPackages,
    ReadGateways,
    ReadPresence,
    ReadCertificates,
    ReadPeople,
    ReadTenants,
    ReadBatches,
    ReadManifests,
    ReadAttempts,
    ReadGatewayLists,
    ReadAudit,
    ReadKeys,
    ReadPending,
    ReadOverview,
    ReadChanges,
    Protocol,
):
    """Look-ups, in a consistent state of the database."""

    def tenant_id(self, uuid: UUID) -> int | None: ...
    def tenant_uuid(self, tenant_id: int) -> UUID | None: ...

    def profile_by_key(self, provision_key: str) -> DeviceProfile | None:
        """The profile whose provision key this is, over all tenants."""

    def profile(self, tenant_id: int, uuid: UUID) -> DeviceProfile | None: ...
    def profile_by_name(self, tenant_id: int, name: str) -> DeviceProfile | None: ...
    def default_profile(self, tenant_id: int) -> DeviceProfile | None: ...
    def all_profiles(self, tenant_id: int) -> list[DeviceProfile]: ...
    def profile_users(self, profile_id: int) -> int:
        """How many devices have this profile."""

    def profiles(self, tenant_id: int, page: Page, transport: str = "") -> tuple[list[DeviceProfile], int]:
        """One page and the number of all that match; with `transport` of this transport type."""

    def device(self, tenant_id: int, uuid: UUID) -> Device | None: ...
    def device_by_id(self, device_id: int) -> Device | None: ...
    def device_by_name(self, tenant_id: int, name: str) -> Device | None: ...
    def device_count(self, tenant_id: int) -> int: ...
    def credentials(self, device_id: int) -> StoredCredentials | None: ...
    def credentials_owner(self, credentials_id: str) -> int | None:
        """The device that holds credentials of this id, over all tenants and kinds."""

    def logins(self, credentials_ids: Sequence[str]) -> list[Login | None]:
        """For each id the stored credentials and the identity they open, in the order asked."""

    def attribute(self, device_id: int, scope: Scope, key: str) -> Value | None: ...
    def attributes(self, device_id: int, scope: Scope, keys: Sequence[str] | None = None) -> list[AttributeEntry]: ...

    def latest(self, device_id: int, keys: Sequence[str] | None = None) -> dict[str, tuple[int, Value]]:
        """Newest value of each key: {key: (ts_ms, value)}."""

    def history(self, device_id: int, query: TimeSeriesQuery) -> dict[str, list[tuple[int, Value]]]:
        """Values per key in the order asked, at most `limit` each; keys without data are absent."""

    def sample_rows(self, device_id: int, *, at_most: int) -> int:
        """At how many times the device has data; counts no further than `at_most`."""

    def attempt(self, ref: str) -> Attempt | None: ...
    def attempts(
        self, limit: int = 100, *, tenant_id: int | None = None, with_unassigned: bool = False
    ) -> list[Attempt]:
        """The newest lines of the provisioning log, newest first: of all tenants, or of one, and with
        `with_unassigned` those whose key nobody knows."""


class Tx(
    ReadTx, WriteTimeSeries, WriteCustomers, WriteCommands, WriteClaims, WritePackages, WriteGateways, WritePresence,
    WriteCertificates, WritePeople, WriteTenants, WriteBatches, WriteManifests, WriteAudit, WriteKeys, WritePending,
    WriteChanges, Protocol,
):  # fmt: skip
    """Everything a decision may do. Constraint violations surface when the batch is replayed."""

    def insert_device(self, device: NewDevice) -> int:
        """Returns the device's number."""

    def update_device(self, device: Device) -> None:
        """Writes name, label, profile, gateway flag and document; raises VersionConflict."""

    def delete_device(self, device_id: int) -> None:
        """Removes the device, its credentials, attributes, latest values, history and relations."""

    def insert_profile(self, profile: NewProfile) -> int: ...
    def update_profile(self, profile: DeviceProfile) -> None: ...
    def set_default_profile(self, tenant_id: int, profile_id: int) -> None: ...
    def delete_profile(self, profile_id: int) -> None: ...

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
        """Gives the device these credentials in place of any it had; unconfirmed.

        `is_new_device` spares the look for old ones. A certificate in use so far opens the device's door until
        `former_until_ms`, beside the new credentials. What is known of a new certificate is kept (`certificate`),
        with the authority of ours that has issued it.
        """

    def lock_device(self, device_id: int) -> None:
        """Nobody else, on whichever node, decides about the device's credentials or owner before this transaction ends.
        What is read behind it is how it stands then; what was read before may have changed."""

    def mark_issued(self, device_id: int, *, now_ms: int, request_digest: bytes | None) -> None: ...
    def mark_confirmed(self, device_id: int, *, now_ms: int) -> None: ...

    def put_attributes(self, device_id: int, scope: Scope, values: Attributes, *, now_ms: int) -> None: ...
    def delete_attributes(self, device_id: int, scope: Scope, keys: Iterable[str]) -> None: ...

    def append_samples(self, device_id: int, samples: Sequence[Sample]) -> None:
        """Adds samples to history and latest; same (key, ts) merges, newest latest wins."""

    def move_samples(self, from_device_id: int, to_device_id: int) -> None:
        """Adds all samples of one device to those of another, as `append_samples` would."""

    def log_attempt(self, attempt: Attempt) -> None: ...
    def trim_attempts(self, *, keep: int, before_ms: int) -> None:
        """Bounds the provisioning log: the newest `keep` lines that are not older than `before_ms`."""

    def drop_buckets(self, before_ms: int) -> int:
        """Retention: removes the oldest history buckets that ended before `before_ms`, a day of them at once
        so that nobody waits long; returns how many."""


class Store(Protocol):
    """Runs work off the reactor thread and answers in it, in the order of submission."""

    @property
    def node(self) -> str | None:
        """Who writes here, where several nodes share the database; None for the only one."""

    def submit(self, work: Callable[..., R], args: tuple[Any, ...], done: Done[R]) -> None:
        """Runs `work(tx, *args)` in the next group commit; `done` after it is durable.

        Answers `Unavailable` at once when the queue is full.
        """

    def append(self, device_id: int, samples: list[Sample], done: Done[None]) -> None:
        """Stores samples in the next group commit; `done(None)` after they are durable."""

    def append_all(self, rows: list[tuple[int, list[Sample]]], done: Done[None]) -> None:
        """As `append` for several devices at once: [(device number, samples), …]."""

    def read(self, query: Callable[..., R], args: tuple[Any, ...], done: Done[R]) -> None:
        """Runs `query(read_tx, *args)` on a reading connection: look-ups of devices, each some microseconds."""

    def survey(self, query: Callable[..., R], args: tuple[Any, ...], done: Done[R]) -> None:
        """As `read`, for what may take long (lists, histories): devices' look-ups do not wait behind it."""

    def digest(self, *parts: str) -> bytes:
        """Keyed hash of the parts (each delimited), stable for this installation."""

    @property
    def is_congested(self) -> bool:
        """Whether producers should pause reading until the next delivery."""

    def on_changes(self, callback: Callable[[list[Change]], None]) -> None:
        """`callback` gets what a batch has recorded for other nodes (`WriteChanges`), in the reactor thread, after
        its COMMIT and just before its answers are handed out."""

    def on_unknown(self, callback: Callable[[int], None]) -> None:
        """`callback(since_ms)` in the reactor thread, after a commit whose answer was lost: its units were answered
        with Unavailable and may be durable all the same. Not before the database serves again."""

    def on_delivered(self, callback: Callable[[], None]) -> None:
        """`callback` runs in the reactor thread after the answers of each batch were handed out."""
