"""The fixed statements of the store: built with SQLAlchemy Core, compiled once for one dialect.

Executing them as driver SQL on tuples is what makes a decision cheap (7.8 k/s through Core for each
statement, 35 k/s compiled).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Dialect, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.sql import ClauseElement

from cloud_core.model import Device
from cloud_core.storage.schema import (
    attribute,
    credentials,
    customer,
    device,
    device_profile,
    latest,
    provisioning_log,
    telemetry,
    telemetry_bucket,
    tenant,
    ts_key,
)

p = bindparam


class SqliteCompiler(SQLiteCompiler):
    """SQLAlchemy's own leaves out the hints behind a table's name, without a word."""

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:
        return text


@dataclass(frozen=True, slots=True)
class Statement:
    """Driver SQL, the order in which it takes its named parameters, and those with a fixed value."""

    sql: str
    names: tuple[str, ...]
    constants: dict[str, Any]

    def values(self, params: dict[str, Any]) -> tuple[Any, ...]:
        """Positional parameters for one execution."""
        if self.constants:
            params = self.constants | params
        return tuple([params[name] for name in self.names])


def compile_statement(clause: ClauseElement, dialect: Dialect) -> Statement:
    """`clause` as driver SQL with positional parameters."""
    compiled: Any = clause.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    names = tuple(compiled.positiontup or ())
    fixed = {name: compiled.params[name] for name in names if not compiled.binds[name].required}
    return Statement(str(compiled), names, fixed)


_device_columns = (
    device.c.id, device.c.uuid, device.c.tenant_id, device.c.profile_id, device_profile.c.uuid,
    device_profile.c.name, device.c.name, device.c.label, device.c.is_gateway, device.c.document,
    device.c.created_ms, device.c.version, device.c.customer_id, customer.c.uuid,
)  # fmt: skip
device_rows = (
    select(*_device_columns)
    .join(device_profile, device.c.profile_id == device_profile.c.id)
    .outerjoin(customer, device.c.customer_id == customer.c.id)
)


def device_of(row: Any) -> Device | None:
    if row is None:
        return None
    return Device(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], profile_id=row[3],
        profile_uuid=UUID(bytes=bytes(row[4])), type=row[5], name=row[6], label=row[7],
        is_gateway=bool(row[8]), document=msgspec.json.decode(row[9]), created_ms=row[10], version=row[11],
        customer_id=row[12], customer_uuid=None if row[13] is None else UUID(bytes=bytes(row[13])),
    )  # fmt: skip


profile_rows = select(
    device_profile.c.id, device_profile.c.uuid, device_profile.c.tenant_id, device_profile.c.name,
    device_profile.c.is_default, device_profile.c.provision_sealed, device_profile.c.document,
    device_profile.c.created_ms, device_profile.c.version,
)  # fmt: skip
_credentials_rows = select(
    credentials.c.device_id, credentials.c.uuid, credentials.c.sealed, credentials.c.created_ms,
    credentials.c.issued_ms, credentials.c.confirmed_ms, credentials.c.request_digest, credentials.c.version,
)  # fmt: skip
attempt_rows = select(
    provisioning_log.c.ref, provisioning_log.c.at_ms, provisioning_log.c.transport, provisioning_log.c.source,
    provisioning_log.c.outcome, provisioning_log.c.stage, provisioning_log.c.detail, provisioning_log.c.tenant_id,
    provisioning_log.c.profile_id, provisioning_log.c.device_id, provisioning_log.c.device_name,
    provisioning_log.c.key_hint, provisioning_log.c.request,
)  # fmt: skip


# The device and its profile that credentials open, and those credentials.
login_columns = (
    device.c.tenant_id, device.c.id, device.c.uuid, device.c.name, device.c.profile_id, device.c.is_gateway,
    device_profile.c.document,
)  # fmt: skip


class Statements:
    """All fixed statements, compiled for `dialect`; attribute names say what each does."""

    def __init__(self, dialect: Dialect) -> None:
        upsert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

        def fixed(clause: ClauseElement) -> Statement:
            return compile_statement(clause, dialect)

        self.tenant_id = fixed(select(tenant.c.id).where(tenant.c.uuid == p("uuid")))
        self.tenant_uuid = fixed(select(tenant.c.uuid).where(tenant.c.id == p("id")))
        self._profiles(fixed)
        self._devices(fixed)
        self._credentials(fixed)
        self._attributes(fixed, upsert)
        self._telemetry(fixed, upsert)
        self._log(fixed)

    def _profiles(self, fixed: Any) -> None:
        c = device_profile.c
        self.profile_by_key = fixed(profile_rows.where(c.provision_key_hash == p("key_hash")))
        self.profile = fixed(profile_rows.where(c.tenant_id == p("tenant_id"), c.uuid == p("uuid")))
        self.profile_by_name = fixed(profile_rows.where(c.tenant_id == p("tenant_id"), c.name == p("name")))
        self.default_profile = fixed(profile_rows.where(c.tenant_id == p("tenant_id"), c.is_default.is_(True)).limit(1))
        self.insert_profile = fixed(_insert(device_profile).returning(c.id))
        self.update_profile = fixed(
            update(device_profile)
            .where(c.id == p("b_id"), c.version == p("b_version"))
            .values(
                name=p("name"), provision_key_hash=p("provision_key_hash"), document=p("document"),
                provision_sealed=p("provision_sealed"), version=p("b_version") + 1,
            )
        )  # fmt: skip
        self.clear_default = fixed(
            update(device_profile).where(c.tenant_id == p("b_tenant_id")).values(is_default=False)
        )
        self.set_default = fixed(update(device_profile).where(c.id == p("b_id")).values(is_default=True))
        self.delete_profile = fixed(delete(device_profile).where(c.id == p("id")))
        self.profile_users = fixed(
            select(func.count()).select_from(device).where(device.c.profile_id == p("profile_id"))
        )

    def _devices(self, fixed: Any) -> None:
        c = device.c
        self.device = fixed(device_rows.where(c.tenant_id == p("tenant_id"), c.uuid == p("uuid")))
        self.device_by_id = fixed(device_rows.where(c.id == p("id")))
        self.device_by_name = fixed(device_rows.where(c.tenant_id == p("tenant_id"), c.name == p("name")))
        self.tenant_of_device = fixed(select(c.tenant_id).where(c.id == p("id")))
        self.device_count = fixed(select(func.count()).select_from(device).where(c.tenant_id == p("tenant_id")))
        self.insert_device = fixed(_insert(device).returning(c.id))
        self.update_device = fixed(
            update(device)
            .where(c.id == p("b_id"), c.version == p("b_version"))
            .values(
                name=p("name"), label=p("label"), profile_id=p("profile_id"), is_gateway=p("is_gateway"),
                document=p("document"), version=p("b_version") + 1,
            )
        )  # fmt: skip
        self.delete_device = fixed(delete(device).where(c.id == p("id")))

    def _credentials(self, fixed: Any) -> None:
        c = credentials.c
        self.credentials = fixed(_credentials_rows.where(c.device_id == p("device_id")))
        self.lock_credentials = fixed(
            select(c.device_id).where(c.device_id == p("device_id")).with_for_update(key_share=True)
        )
        self.credentials_owner = fixed(select(c.device_id).where(c.id_hash == p("id_hash")))
        self.login = fixed(
            select(*login_columns, c.sealed, c.confirmed_ms)
            .select_from(credentials)
            .join(device, c.device_id == device.c.id)
            .join(device_profile, device.c.profile_id == device_profile.c.id)
            .where(c.id_hash == p("id_hash"))
        )
        self.insert_credentials = fixed(_insert(credentials))
        self.update_credentials = fixed(
            update(credentials)
            .where(c.device_id == p("b_device_id"))
            .values(
                id_hash=p("id_hash"), sealed=p("sealed"), issued_ms=p("issued_ms"), confirmed_ms=None,
                request_digest=p("request_digest"), version=c.version + 1,
            )
        )  # fmt: skip
        self.mark_issued = fixed(
            update(credentials)
            .where(c.device_id == p("b_device_id"))
            .values(issued_ms=p("issued_ms"), request_digest=p("request_digest"))
        )
        self.mark_confirmed = fixed(
            update(credentials)
            .where(c.device_id == p("b_device_id"), c.confirmed_ms.is_(None))
            .values(confirmed_ms=p("confirmed_ms"))
        )

    def _attributes(self, fixed: Any, upsert: Any) -> None:
        self.key_id = fixed(select(ts_key.c.id).where(ts_key.c.name == p("name")))
        self.insert_key = fixed(upsert(ts_key).values(name=p("name")).on_conflict_do_nothing())
        c = attribute.c
        mine = (c.device_id == p("device_id"), c.scope == p("scope"))
        self.attribute = fixed(
            select(c.value).join(ts_key, ts_key.c.id == c.key_id).where(*mine, ts_key.c.name == p("name"))
        )
        self.attributes = fixed(
            select(ts_key.c.name, c.value, c.updated_ms)
            .join(ts_key, ts_key.c.id == c.key_id)
            .where(*mine)
            .order_by(ts_key.c.name)
        )
        put = upsert(attribute).values(
            {name: p(name) for name in ("device_id", "scope", "key_id", "value", "updated_ms")}
        )
        self.put_attribute = fixed(
            put.on_conflict_do_update(
                index_elements=[c.device_id, c.scope, c.key_id],
                set_={"value": put.excluded.value, "updated_ms": put.excluded.updated_ms},
            )
        )
        self.delete_attribute = fixed(delete(attribute).where(*mine, c.key_id == p("key_id")))

    def _telemetry(self, fixed: Any, upsert: Any) -> None:
        self.insert_bucket = fixed(upsert(telemetry_bucket).values(bucket=p("bucket")).on_conflict_do_nothing())
        self.buckets = fixed(
            select(telemetry_bucket.c.bucket)
            .where(telemetry_bucket.c.bucket >= p("first"), telemetry_bucket.c.bucket <= p("last"))
            .order_by(telemetry_bucket.c.bucket)
        )
        put = upsert(telemetry).values({name: p(name) for name in ("bucket", "device_id", "ts", "document")})
        key = [telemetry.c.bucket, telemetry.c.device_id, telemetry.c.ts]
        merged = func.merge_documents(
            telemetry.c.document, put.excluded.document
        )  # SQLite; PostgreSQL: `postgresql.py`
        self.put_telemetry = fixed(put.on_conflict_do_update(index_elements=key, set_={"document": merged}))
        one = (telemetry.c.bucket == p("b_bucket"), telemetry.c.device_id == p("b_device_id"))
        self.documents = fixed(
            select(telemetry.c.ts, telemetry.c.document)
            .where(*one, telemetry.c.ts >= p("start"), telemetry.c.ts < p("end"))
            .order_by(telemetry.c.ts)
        )
        self.count_documents = fixed(select(func.count()).select_from(telemetry).where(*one))
        self.delete_bucket_of_device = fixed(delete(telemetry).where(*one))
        self.drop_bucket = fixed(delete(telemetry).where(telemetry.c.bucket == p("b_bucket")))
        self.forget_bucket = fixed(delete(telemetry_bucket).where(telemetry_bucket.c.bucket == p("b_bucket")))
        lput = upsert(latest).values({name: p(name) for name in ("device_id", "key_id", "ts", "value")})
        self.put_latest = fixed(
            lput.on_conflict_do_update(
                index_elements=[latest.c.device_id, latest.c.key_id],
                set_={"ts": lput.excluded.ts, "value": lput.excluded.value},
                where=lput.excluded.ts >= latest.c.ts,  # wire-contract.md section 7.1, "Latest value"
            )
        )
        self.latest = fixed(
            select(ts_key.c.name, latest.c.ts, latest.c.value)
            .join(ts_key, ts_key.c.id == latest.c.key_id)
            .where(latest.c.device_id == p("device_id"))
            .order_by(ts_key.c.name)
        )
        self.latest_ids = fixed(
            select(latest.c.key_id, latest.c.ts, latest.c.value).where(latest.c.device_id == p("device_id"))
        )
        self.delete_latest = fixed(delete(latest).where(latest.c.device_id == p("device_id")))

    def _log(self, fixed: Any) -> None:
        c = provisioning_log.c
        self.log_attempt = fixed(_insert(provisioning_log))
        self.attempt = fixed(attempt_rows.where(c.ref == p("ref")))
        self.attempts = fixed(attempt_rows.order_by(c.id.desc()).limit(p("limit")))
        mine = c.tenant_id == p("tenant_id")
        newest_of = attempt_rows.order_by(c.id.desc()).limit(p("limit"))
        self.attempts_of = fixed(newest_of.where(mine))
        self.attempts_of_and_unassigned = fixed(newest_of.where(mine | c.tenant_id.is_(None)))
        self.newest_attempt = fixed(select(func.max(c.id)))
        self.trim_attempts = fixed(delete(provisioning_log).where((c.id <= p("last_id")) | (c.at_ms < p("before_ms"))))


def _insert(table: Any) -> Any:  # Any: Insert's type differs with and without RETURNING
    names = [column.name for column in table.columns if column.name != "id"]
    return insert(table).values({name: p(name) for name in names})
