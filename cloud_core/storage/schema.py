"""Tables and constraints. Times are ms since the Unix epoch (UTC); uuids are 16 bytes.

Uniqueness lives here: the constraints decide every race, the checks in `core` only give the nicer
message. `telemetry` and `latest` carry no foreign key (a look-up per row on the hottest path);
`delete_device` clears them and device numbers are never used twice.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite numbers rows automatically only for a column of type INTEGER.
Id = BigInteger().with_variant(Integer(), "sqlite")


def _numbered(name: str, *columns: Column[object] | UniqueConstraint | Index) -> Table:
    """A table with a number as primary key that is never used twice."""
    return Table(
        name, metadata, Column("id", Id, primary_key=True, autoincrement=True), *columns, sqlite_autoincrement=True
    )


tenant = _numbered(
    "tenant",
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("max_devices", BigInteger, nullable=False, server_default="0"),  # 0: without limit
    Column("document", Text, nullable=False, server_default="{}"),  # JSON: REST members kept as given
)

admin_user = _numbered(
    "admin_user",
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("username", Text, nullable=False, unique=True),
    Column("password_hash", Text, nullable=False),  # argon2id
    Column("authority", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("customer_id", Id, ForeignKey("customer.id", ondelete="CASCADE")),
    Column("role", Text, nullable=False, server_default="ADMINISTRATOR"),  # `UserRole`
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("document", Text, nullable=False, server_default="{}"),  # JSON: REST members kept as given
)

customer = _numbered(
    "customer",
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("title", Text, nullable=False),
    Column("document", Text, nullable=False),  # JSON: REST members kept as given
    Column("created_ms", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "title", name="customer_title_unq_key"),
)

device_profile = _numbered(
    "device_profile",
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("provision_key_hash", LargeBinary(16), unique=True),  # over all tenants: a request names no tenant
    Column("provision_sealed", LargeBinary, nullable=False),  # provision configuration with key and secret
    Column("document", Text, nullable=False),  # JSON: REST members kept as given
    Column("created_ms", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "name", name="device_profile_name_unq_key"),
)

device = _numbered(
    "device",
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("profile_id", Id, ForeignKey("device_profile.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("is_gateway", Boolean, nullable=False),
    Column("document", Text, nullable=False),  # JSON: REST members kept as given
    Column("created_ms", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("customer_id", Id, ForeignKey("customer.id", ondelete="SET NULL")),
    UniqueConstraint("tenant_id", "name", name="device_name_unq_key"),
)
_is_owned = device.c.customer_id.is_not(None)  # most are not: they cost this index nothing
device_by_customer = Index(
    "device_by_customer", device.c.customer_id, sqlite_where=_is_owned, postgresql_where=_is_owned
)

credentials = Table(
    "credentials",
    metadata,
    Column("device_id", Id, ForeignKey("device.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("uuid", LargeBinary(16), nullable=False),
    Column("id_hash", LargeBinary(16), nullable=False, unique=True),  # over all tenants and kinds
    Column("sealed", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("issued_ms", BigInteger),
    Column("confirmed_ms", BigInteger),
    Column("request_digest", LargeBinary(16)),
    Column("version", BigInteger, nullable=False),
    sqlite_with_rowid=True,
)

ts_key = _numbered("ts_key", Column("name", Text, nullable=False, unique=True))

attribute = Table(
    "attribute",
    metadata,
    Column("device_id", Id, ForeignKey("device.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("scope", SmallInteger, primary_key=True, autoincrement=False),
    Column("key_id", Id, ForeignKey("ts_key.id"), primary_key=True, autoincrement=False),
    Column("value", LargeBinary, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

latest = Table(
    "latest",
    metadata,
    Column("device_id", Id, primary_key=True, autoincrement=False),
    Column("key_id", Id, primary_key=True, autoincrement=False),
    Column("ts", BigInteger, nullable=False),
    Column("value", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# An hour: the rows that are being written stay few enough to share pages and cache.
BUCKET_MS = 3_600_000

telemetry_bucket = Table(
    "telemetry_bucket", metadata, Column("bucket", BigInteger, primary_key=True, autoincrement=False)
)

# On PostgreSQL a partition for each day holds the rows: `partitions.py`, since step 0012.
telemetry = Table(
    "telemetry",
    metadata,
    Column("bucket", BigInteger, primary_key=True, autoincrement=False),  # ts // BUCKET_MS
    Column("device_id", Id, primary_key=True, autoincrement=False),
    Column("ts", BigInteger, primary_key=True, autoincrement=False),
    Column("document", LargeBinary, nullable=False),  # `documents.encode_document`
    sqlite_with_rowid=False,
)

provisioning_log = _numbered(
    "provisioning_log",
    Column("ref", Text, unique=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("transport", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("tenant_id", Id),
    Column("profile_id", Id),
    Column("device_id", Id),
    Column("device_name", Text, nullable=False),
    Column("key_hint", Text, nullable=False),
    Column("request", Text, nullable=False),  # JSON, redacted
)

command = _numbered(
    "command",  # persistent RPC
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("device_id", Id, ForeignKey("device.id", ondelete="CASCADE"), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("status", Text, nullable=False),  # `model.RpcStatus`
    Column("is_oneway", Boolean, nullable=False),
    Column("retries_left", Integer, nullable=False),
    Column("request", Text, nullable=False),  # JSON: method, params, additionalInfo
    Column("response", Text),  # JSON
    Column("sent_ms", BigInteger),  # the last time; None while it never was
    Column("sent_by", Text),  # the node that did it; None where there is but one
    Index("command_by_device", "device_id", "status"),
    Index("command_by_status", "status", "expires_ms"),
)

server_method = Table(
    "server_method",
    metadata,
    Column("tenant_id", Id, ForeignKey("tenant.id"), primary_key=True, autoincrement=False),
    Column("method", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret_sealed", LargeBinary, nullable=False),
    Column("timeout_ms", BigInteger, nullable=False),
)

claim_offer = Table(
    "claim_offer",
    metadata,
    Column("device_id", Id, ForeignKey("device.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("secret_hash", LargeBinary(16), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)

package = _numbered(
    "package",  # firmware or software (OTA)
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("profile_id", Id, ForeignKey("device_profile.id"), nullable=False),
    Column("kind", Text, nullable=False),  # `PackageKind`
    Column("title", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("tag", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("checksum_algorithm", Text, nullable=False),
    Column("checksum", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("has_data", Boolean, nullable=False),
    Column("document", Text, nullable=False),  # JSON: REST members kept as given
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "title", "version", name="package_title_version_unq_key"),
)

package_block = Table(
    "package_block",
    metadata,
    Column("package_id", Id, ForeignKey("package.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

# To a device or to a profile: the other number is 0. No foreign keys for that reason; deletions clear it.
package_assignment = Table(
    "package_assignment",
    metadata,
    Column("device_id", Id, primary_key=True, autoincrement=False),
    Column("profile_id", Id, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("package_id", Id, ForeignKey("package.id"), nullable=False, index=True),
)

# A profile's package has changed and not all of its devices have been told: survives a restart.
package_rollout = Table(
    "package_rollout",
    metadata,
    Column("profile_id", Id, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("after_device_id", Id, nullable=False),
)

sub_device = Table(
    "sub_device",
    metadata,
    Column("device_id", Id, ForeignKey("device.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("gateway_id", Id, nullable=False, index=True),
    Column("connected_ms", BigInteger, nullable=False),
    Column("is_created_by_gateway", Boolean, nullable=False),
    Column("is_type_guessed", Boolean, nullable=False),
)

device_alias = Table(
    "device_alias",
    metadata,
    Column("gateway_id", Id, ForeignKey("device.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("device_id", Id, ForeignKey("device.id", ondelete="CASCADE"), nullable=False, index=True),
)

tombstone = Table(
    "tombstone",
    metadata,
    Column("tenant_id", Id, ForeignKey("tenant.id"), primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("deleted_ms", BigInteger, nullable=False),
)

relation = Table(
    "relation",
    metadata,
    Column("tenant_id", Id, ForeignKey("tenant.id"), primary_key=True, autoincrement=False),
    Column("from_uuid", LargeBinary(16), primary_key=True),
    Column("to_uuid", LargeBinary(16), primary_key=True),
    Column("type", Text, primary_key=True),
    Column("type_group", Text, primary_key=True),
    Column("from_type", Text, nullable=False),
    Column("to_type", Text, nullable=False),
    Column("document", Text, nullable=False),  # JSON: additionalInfo
    Index("relation_by_end", "tenant_id", "to_uuid"),
)

# Written every few seconds for all devices that were heard of: no foreign key, as for `latest`.
presence = Table(
    "presence",
    metadata,
    Column("device_id", Id, primary_key=True, autoincrement=False),
    Column("is_active", Boolean, nullable=False),
    Column("last_connect_ms", BigInteger, nullable=False),
    Column("last_disconnect_ms", BigInteger, nullable=False),
    Column("last_activity_ms", BigInteger, nullable=False),
    Column("inactivity_alarm_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

authority = _numbered(
    "authority",  # a small CA
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("chain", LargeBinary, nullable=False),  # MessagePack: DER of its own certificate, then of its issuers
    Column("key_sealed", LargeBinary, nullable=False),  # PKCS#8 DER
    Column("created_ms", BigInteger, nullable=False),
    Column("crl_number", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "name", name="authority_name_unq_key"),
)

# Of devices, current and former, and all that an authority of ours has issued: those outlive their device.
certificate = _numbered(
    "certificate",
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("device_id", Id, ForeignKey("device.id", ondelete="SET NULL"), index=True),
    Column("authority_id", Id, ForeignKey("authority.id")),
    Column("fingerprint", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of the DER
    Column("serial", Text, nullable=False),  # hex
    Column("subject", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("not_before_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger),  # of a former one: so long it still opens the device's door
    Column("revoked_ms", BigInteger),
    Column("revocation_reason", Text, nullable=False),
    Column("device_name", Text, nullable=False, server_default=""),  # what a search looks at; kept as the device's
    Index("certificate_by_serial", "authority_id", "serial"),
    Index("certificate_by_end", "tenant_id", "not_after_ms"),
)

# Which profiles hold a certificate of this name: an issuer is looked up by it.
trust_anchor = Table(
    "trust_anchor",
    metadata,
    Column("name_hash", LargeBinary(32), primary_key=True),
    Column("fingerprint", LargeBinary(32), primary_key=True),
    Column(
        "profile_id", Id, ForeignKey("device_profile.id", ondelete="CASCADE"), primary_key=True, autoincrement=False,
        index=True,
    ),
)  # fmt: skip

# Pages of devices in the order of these are found in an index, however far into the fleet they lie.
device_by_creation = Index("device_by_creation", device.c.tenant_id, device.c.created_ms)
# A search in the order of labels reads this index alone.
device_by_label = Index("device_by_label", device.c.tenant_id, device.c.label, device.c.name, device.c.profile_id)

# Gateways are few among many devices: they cost this index alone something.
is_gateway = device.c.is_gateway.is_(True)
device_gateways = Index(
    "device_gateways", device.c.tenant_id, device.c.created_ms,
    sqlite_where=is_gateway, postgresql_where=is_gateway,
)  # fmt: skip
# What a device has asked for, by its name.
attempt_by_name = Index("attempt_by_name", provisioning_log.c.device_name)
# Devices that have not logged in yet.
credentials_unconfirmed = Index(
    "credentials_unconfirmed", credentials.c.device_id, credentials.c.issued_ms,
    sqlite_where=credentials.c.confirmed_ms.is_(None), postgresql_where=credentials.c.confirmed_ms.is_(None),
)  # fmt: skip

# Logins that have ended before their tokens do. Nodes read what is new every few seconds.
ended_login = _numbered(
    "ended_login",
    Column("subject", LargeBinary(16), nullable=False, index=True),  # uuid of a session, of a user or of an API key
    Column("generation", BigInteger, nullable=False),  # tokens of the subject with a smaller one are refused
    Column("until_ms", BigInteger, nullable=False, index=True),  # no token lives longer
)

api_key = _numbered(
    "api_key",
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),  # `UserRole`
    Column("key_hash", LargeBinary(16), nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("ends_ms", BigInteger),
    Column("used_ms", BigInteger),
    UniqueConstraint("tenant_id", "name", name="api_key_name_unq_key"),
)

batch = _numbered(
    "batch",  # an import of devices
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("touched_ms", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # `BatchState`
    Column("is_atomic", Boolean, nullable=False),
    Column("options", Text, nullable=False),  # JSON
    Column("idempotency_key", Text),
    Column("digest", LargeBinary(32), nullable=False),  # of the file and the options, for the idempotency key
    Column("row_count", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),  # number of the last row that the step under way is done with
    Column("counts", Text, nullable=False),  # JSON: {status: rows}
    Column("problem", Text, nullable=False),
    UniqueConstraint("tenant_id", "idempotency_key", name="batch_idempotency_key_unq_key"),
    Index("batch_by_state", "state"),
)

# Cleared piece by piece: no cascade, which would hold the writer up for a hundred thousand rows.
batch_row = Table(
    "batch_row",
    metadata,
    Column("batch_id", Id, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("status", Text, nullable=False),  # `RowStatus`
    Column("name", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("device_uuid", LargeBinary(16)),
    Column("source_sealed", LargeBinary),  # MessagePack: {column: cell}, credentials among them; None when done
    Index("batch_row_by_status", "batch_id", "status", "number"),
    sqlite_with_rowid=False,
)

# What operators decided. `digest` is SHA-256 over the digest before it and the row (`core.audit`).
audit = Table(
    "audit",
    metadata,
    Column("tenant_id", Id, ForeignKey("tenant.id"), primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("entity_type", Text, nullable=False),
    Column("entity_uuid", LargeBinary(16), nullable=False),  # nil where the entity has none
    Column("name", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Index("audit_by_time", "tenant_id", "at_ms"),
)

# The end of a tenant's chain, locked by whoever appends; and what is left of entries that were removed for their age.
audit_head = Table(
    "audit_head",
    metadata,
    Column("tenant_id", Id, ForeignKey("tenant.id"), primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("first_number", BigInteger, nullable=False),  # the last one removed, 0 for none
    Column("first_digest", LargeBinary(32), nullable=False),
)

# How often a secret of a profile was used, by a keyed hash of it: gathered in memory, added every few seconds.
secret_use = Table(
    "secret_use",
    metadata,
    Column(
        "profile_id", Id, ForeignKey("device_profile.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("tag", LargeBinary(16), primary_key=True),
    Column("attempts", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
)

provision_key = _numbered(
    "provision_key",  # of a profile, beside its own
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("profile_id", Id, ForeignKey("device_profile.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("key_hash", LargeBinary(16), nullable=False, unique=True),  # over all tenants: a request names no tenant
    Column("sealed", LargeBinary, nullable=False),  # key and secret
    Column("rules", Text, nullable=False),  # JSON: what `model.KeyRules` has
    Column("used", BigInteger, nullable=False),  # devices that it has let in
    Column("is_enabled", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("profile_id", "name", name="provision_key_name_unq_key"),
)

# Requests that wait for an operator's word, or have it. The digest is that of the whole request.
pending_request = _numbered(
    "pending_request",
    Column("uuid", LargeBinary(16), nullable=False, unique=True),
    Column("tenant_id", Id, ForeignKey("tenant.id"), nullable=False),
    Column("profile_id", Id, ForeignKey("device_profile.id", ondelete="CASCADE"), nullable=False),
    Column("digest", LargeBinary(16), nullable=False),
    Column("status", Text, nullable=False),  # `model.RequestStatus`
    Column("name", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("transport", Text, nullable=False),
    Column("key_name", Text, nullable=False),  # of a further provision key; empty for the profile's own
    Column("is_gateway", Boolean, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False, index=True),  # then it is forgotten
    UniqueConstraint("profile_id", "digest", name="pending_request_digest_unq_key"),
)

# Beside the batch, which the worker writes as a whole.
batch_manifest = Table(
    "batch_manifest",
    metadata,
    Column("batch_id", Id, ForeignKey("batch.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("ticket", LargeBinary(16), nullable=False),
    Column("holder", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("held_ms", BigInteger, nullable=False),
    Column("taken_ms", BigInteger),  # None while it is being received
    sqlite_with_rowid=True,
)

# What nodes tell each other, written in the transaction of the change itself; kept for an hour. One node alone writes
# none.
change = Table(
    "change",
    metadata,
    Column("number", Id, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False, index=True),
    Column("node", Text, nullable=False),
    Column("kind", SmallInteger, nullable=False),  # `model.ChangeKind`
    Column("device_id", BigInteger),  # no foreign key: it outlives the device
    Column("body", LargeBinary),  # MessagePack
    sqlite_autoincrement=True,
)

# What one node alone does for all, and until when.
lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
)
