"""The configuration: TOML file, environment and command line into one frozen tree, checked once.

Later sources win: defaults, file, environment (`CLOUD_CORE__SECTION__KEY`), command line. All
problems are reported together. Imports nobody; nobody else reads the environment.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

import msgspec

ENVIRONMENT_PREFIX = "CLOUD_CORE__"
_PORTS = ("port", "tls_port", "dtls_port")
_URL = re.compile(r"(https?://[!-~]{1,500})?")
# As SQLAlchemy takes it apart: a password may hold all but @.
_DATABASE = re.compile(
    r"sqlite://.*|postgresql\+psycopg://([^:/]*(:[^@]*)?@)?"
    r"((\[[^/?]+\]|[^/:?]+)?(:[0-9]*)?|(\[[^/?]+\]|[^/:?,]+)(:[0-9]+)?(,(\[[^/?]+\]|[^/:?,]+)(:[0-9]+)?)+)"
    r"(/[^?]*)?(\?.*)?",
    re.DOTALL,
)
# What is special in a user or password is escaped, so a comma always parts two addresses.
_NATS = r"(nats|tls)://([^\s,/@]+@)?(\[[0-9a-fA-F:.]+\]|[^\s,/@:\[\]?#]+)(:[0-9]{1,5})?/?"
_FABRIC = re.compile(rf"\s*{_NATS}(\s*,\s*{_NATS})*\s*")
_CLUSTER = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RATE = re.compile(r"[1-9][0-9]{0,8}:[1-9][0-9]{0,8}(,[1-9][0-9]{0,8}:[1-9][0-9]{0,8}){0,9}")


MAX_WORKERS = 64


class ConfigError(Exception):
    """One sentence for each problem, one a line."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the sections."""


class Http(Section, frozen=True, kw_only=True):
    port: int = 8080  # 0 picks a free one
    tls_port: int = 8443  # HTTPS, where [tls] names a certificate
    bind: str = "127.0.0.1"
    fast_path: bool = True  # short-cut for device requests; the answers are the same without it
    trusted_proxies: tuple[str, ...] = ()  # addresses and networks of proxies, which say for whom they speak
    proxy_protocol: bool = False  # connections from [http] trusted_proxies begin with a PROXY header


class Mqtt(Section, frozen=True, kw_only=True):
    port: int = 1883
    tls_port: int = 8883
    bind: str = ""  # empty: as [http] bind
    anonymous_provisioning: bool = True
    max_payload_bytes: int = 65_536
    max_whole_package_bytes: int = 16_777_216  # of firmware that is asked for without a chunk size; 0: only in chunks
    disconnect_after_s_above_rate: float = 60.0  # of sending above its rate limit, where slowing down is no help
    proxy_protocol: bool = False  # as in [http]
    repeat_refusal: bool = False  # MQTT 5: a DISCONNECT behind the CONNACK that refuses, as ThingsBoard sends it


class Coap(Section, frozen=True, kw_only=True):
    port: int = 5683
    dtls_port: int = 5684
    bind: str = ""


class Tls(Section, frozen=True, kw_only=True):
    certificate: str = ""  # PEM file: the server's own, then those of its CAs without the root; opens the TLS ports
    private_key: str = ""  # PEM file, without a password
    client_certificates: Literal["want", "strict"] = "want"  # strict: others than those of CAs known here are refused
    development: bool = False  # opens the TLS ports with a certificate of a CA made for that; not for real devices


class Ca(Section, frozen=True, kw_only=True):
    public_url: str = ""  # where others reach the HTTP port, as http://core.example:8080: certificates name its CRL
    warn_days: int = 30  # so long before a certificate ends the log warns, once a day


class Database(Section, frozen=True, kw_only=True):
    url: str = ""  # empty: SQLite in the data directory; or postgresql+psycopg://user:password@host/name
    key: str = ""  # 64 hex digits; empty: from key_file
    key_file: str = ""  # empty: master.key in the data directory, made at first start


class Provisioning(Section, frozen=True, kw_only=True):
    max_devices_per_tenant: int = 0  # 0: without limit
    keep_attempts: int = 100_000
    keep_attempts_days: int = 30


class Audit(Section, frozen=True, kw_only=True):
    keep_entries: int = 1_000_000  # 0: all
    keep_days: int = 730  # 0: for ever


class Claims(Section, frozen=True, kw_only=True):
    allowed_by_default: bool = True  # false: only devices whose server attribute claimingAllowed is true


class Packages(Section, frozen=True, kw_only=True):
    max_bytes: int = 536_870_912  # of one firmware or software package


class Gateway(Section, frozen=True, kw_only=True):
    adopts_foreign_devices: bool = True
    tombstone_s: float = 86_400.0
    late_type_s: float = 30.0
    max_sub_devices: int = 50_000
    report_s: float = 60.0  # how often latencies become telemetry and a gateway's activity is passed on


class Telemetry(Section, frozen=True, kw_only=True):
    retention_days: int = 0  # 0: keep for ever


class Rpc(Section, frozen=True, kw_only=True):
    submit_strategy: Literal["BURST", "SEQUENTIAL_ON_ACK_FROM_DEVICE", "SEQUENTIAL_ON_RESPONSE_FROM_DEVICE"] = (
        "BURST"  # when a device's next persistent command is sent
    )
    ack_timeout_s: float = 10.0  # so long a device may take to acknowledge a command
    close_session_on_delivery_timeout: bool = False
    max_retries: int = 5  # of a persistent command that is not acknowledged
    max_waiting_per_device: int = 1_000


class Presence(Section, frozen=True, kw_only=True):
    inactivity_s: float = (
        600.0  # silent for longer: not active; a device's server attribute inactivityTimeout (ms) wins
    )
    flush_s: float = 3.0  # how often what was gathered is written


class Rates(Section, frozen=True, kw_only=True):
    """Message rates, each "count:seconds,count:seconds,…"; empty: without limit."""

    device_messages: str = ""  # of a device that is connected directly, all that is no telemetry
    device_telemetry_messages: str = ""
    device_telemetry_data_points: str = ""
    gateway_messages: str = ""  # of a gateway's own traffic
    gateway_telemetry_messages: str = ""
    gateway_telemetry_data_points: str = ""
    sub_device_messages: str = ""  # of all devices behind a gateway together
    sub_device_telemetry_messages: str = ""
    sub_device_telemetry_data_points: str = ""


class Limits(Section, frozen=True, kw_only=True):
    failed_attempts_per_source_and_key: int = 20  # at once; 0: without limit
    failed_attempts_per_source_and_key_every_s: float = 5.0  # then one in so many seconds
    failed_attempts_per_source: int = 100
    failed_attempts_per_source_every_s: float = 1.0
    tls_handshakes_per_address: int = 250  # under way at a time; the newest is turned away. 0: without limit
    tls_handshakes: int = 4_000  # of all addresses; the oldest is given up
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 20.0
    provision_session_s: float = 60.0
    inactivity_s: float = 600.0
    drain_s: float = 10.0


class Admin(Section, frozen=True, kw_only=True):
    username: str = ""  # of the first administrator; empty: admin@localhost
    password: str = ""  # empty: random, printed once and kept in the data directory
    system_username: str = ""  # of the first system administrator, who makes tenants; empty: there is none
    system_password: str = ""  # at least 8 characters
    local_access: bool = True  # commands with --data-dir on this machine need no login


class Log(Section, frozen=True, kw_only=True):
    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warn", "error"] = "info"


class Metrics(Section, frozen=True, kw_only=True):
    token: str = ""  # whoever asks for /metrics with it as bearer; empty: callers on this machine alone


class Tracing(Section, frozen=True, kw_only=True):
    endpoint: str = ""  # of a collector for OTLP over HTTP, as http://collector:4318/v1/traces; empty: no traces
    sampled: float = 1.0  # the share of provision attempts, logins and REST calls that is traced
    sampled_messages: float = 0.01  # the share of devices' messages over MQTT and CoAP


class Cluster(Section, frozen=True, kw_only=True):
    fabric: str = ""  # of several nodes on one database: nats://user:password@host:4222, or tls://…, commas between
    name: str = "muster"  # the same at all nodes of a cluster, another for each that shares the NATS servers
    workers: int = 1  # processes of this machine that share the ports; more than one needs PostgreSQL


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be configured."""

    data_dir: str = "data"
    http: Http = msgspec.field(default_factory=Http)
    mqtt: Mqtt = msgspec.field(default_factory=Mqtt)
    coap: Coap = msgspec.field(default_factory=Coap)
    tls: Tls = msgspec.field(default_factory=Tls)
    ca: Ca = msgspec.field(default_factory=Ca)
    database: Database = msgspec.field(default_factory=Database)
    provisioning: Provisioning = msgspec.field(default_factory=Provisioning)
    audit: Audit = msgspec.field(default_factory=Audit)
    claims: Claims = msgspec.field(default_factory=Claims)
    packages: Packages = msgspec.field(default_factory=Packages)
    gateway: Gateway = msgspec.field(default_factory=Gateway)
    telemetry: Telemetry = msgspec.field(default_factory=Telemetry)
    rpc: Rpc = msgspec.field(default_factory=Rpc)
    presence: Presence = msgspec.field(default_factory=Presence)
    rates: Rates = msgspec.field(default_factory=Rates)
    limits: Limits = msgspec.field(default_factory=Limits)
    admin: Admin = msgspec.field(default_factory=Admin)
    log: Log = msgspec.field(default_factory=Log)
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    tracing: Tracing = msgspec.field(default_factory=Tracing)
    cluster: Cluster = msgspec.field(default_factory=Cluster)


SECTIONS: dict[str, type[Section]] = {
    "http": Http, "mqtt": Mqtt, "coap": Coap, "tls": Tls, "ca": Ca, "database": Database,
    "provisioning": Provisioning, "audit": Audit, "claims": Claims, "packages": Packages, "gateway": Gateway,
    "telemetry": Telemetry,
    "rpc": Rpc, "presence": Presence, "rates": Rates, "limits": Limits, "admin": Admin, "log": Log,
    "metrics": Metrics, "tracing": Tracing, "cluster": Cluster,
}  # fmt: skip


def load(
    path: Path | None, environment: Mapping[str, str], options: Mapping[str, Mapping[str, Any]], *, data_dir: str | None
) -> Config:
    """The effective configuration.

    `options` are the command line's values as {section: {key: value}}; None means not given.
    Raises: ConfigError naming every problem.
    """
    problems: list[str] = []
    merged: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    top: dict[str, Any] = {}
    _take_file(path, merged, top, problems)
    _take_environment(environment, merged, problems)
    for section, values in options.items():
        merged[section].update({key: value for key, value in values.items() if value is not None})
    if data_dir is not None:
        top["data_dir"] = data_dir
    sections = {name: _section(name, kind, merged[name], problems) for name, kind in SECTIONS.items()}
    tls = sections["tls"]
    assert isinstance(tls, Tls)
    _check_tls(tls, problems)
    _check_proxies(sections, problems)
    admin = sections["admin"]
    assert isinstance(admin, Admin)
    _check_admin(admin, problems)
    cluster, database = sections["cluster"], sections["database"]
    assert isinstance(cluster, Cluster) and isinstance(database, Database)
    _check_cluster(cluster, database, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return Config(**top, **sections)  # type: ignore[arg-type]  # each section has its own type by name


def _take_file(path: Path | None, merged: dict[str, dict[str, Any]], top: dict[str, Any], problems: list[str]) -> None:
    if path is None:
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"Cannot read the configuration {path}: {error.strerror}.")
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"The configuration {path} is not valid TOML: {error}.")
        return
    for name, value in document.items():
        if name == "data_dir" and isinstance(value, str):
            top["data_dir"] = value
        elif name in SECTIONS and isinstance(value, dict):
            merged[name].update(value)
        else:
            problems.append(f"Unknown section [{name}] in {path}{_did_you_mean(name, SECTIONS)}.")


def _take_environment(environment: Mapping[str, str], merged: dict[str, dict[str, Any]], problems: list[str]) -> None:
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        section, _, key = variable[len(ENVIRONMENT_PREFIX) :].lower().partition("__")
        if section in SECTIONS and key:
            merged[section][key] = value
        else:
            problems.append(f"Unknown section in the variable {variable}{_did_you_mean(section, SECTIONS)}.")


def _section(name: str, kind: type[Section], values: dict[str, Any], problems: list[str]) -> Section:
    """One section; each wrong key or value adds a problem."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    good: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            problems.append(f"Unknown key '{key}' in section [{name}]{_did_you_mean(key, fields)}.")
            continue
        try:
            if isinstance(value, str) and fields[key].type == tuple[str, ...]:  # of a variable
                value = [one.strip() for one in value.split(",") if one.strip()]
            good[key] = msgspec.convert(value, fields[key].type, strict=False)
        except msgspec.ValidationError as error:
            shown = "" if "password" in key or key in ("key", "token", "fabric") else f" (given: {value!r})"
            problems.append(f"[{name}] {key}: {error}{shown}.")
            continue
        _check_range(name, key, good[key], problems)
    return kind(**good)


def _check_range(section: str, key: str, value: object, problems: list[str]) -> None:
    if key in _PORTS and isinstance(value, int) and not 0 <= value <= 65_535:
        problems.append(f"[{section}] {key}: {value} is no port; use 0 to 65535 (0 picks a free one).")
    elif isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        problems.append(f"[{section}] {key}: {value} must not be negative.")
    elif section == "rpc" and key in ("ack_timeout_s", "max_waiting_per_device") and value == 0:
        problems.append(f"[rpc] {key}: 0 would let no command through; use more.")
    elif (section == "presence" or (section, key) == ("gateway", "report_s")) and not value:
        problems.append(f"[{section}] {key}: must be more than 0 seconds.")
    elif section == "rates" and isinstance(value, str) and value and not _RATE.fullmatch(value):
        problems.append(f'[rates] {key}: \'{value}\' is no limit; write "count:seconds", such as "200:1,6000:60".')
    elif (section, key) == ("ca", "public_url") and isinstance(value, str) and not _URL.fullmatch(value):
        problems.append(
            f"[ca] public_url: '{value}' is no address; write http://host:port, without a path or with one."
        )
    elif (section, key) == ("tracing", "endpoint") and isinstance(value, str) and not _URL.fullmatch(value):
        problems.append(f"[tracing] endpoint: '{value}' is no address; write http://host:4318/v1/traces.")
    elif section == "tracing" and isinstance(value, float) and value > 1:
        problems.append(f"[tracing] {key}: {value} is no share; use 0 to 1.")
    elif (section, key) == ("database", "url") and isinstance(value, str) and value and not _DATABASE.fullmatch(value):
        problems.append(
            "[database] url: is no address of a database; write postgresql+psycopg://user:password@host:5432/name,"
            " or leave it out for SQLite in the data directory."
        )
    elif (section, key) == ("cluster", "fabric") and isinstance(value, str) and value and not _FABRIC.fullmatch(value):
        problems.append(
            "[cluster] fabric: is no address of NATS; write nats://user:password@host:4222 or tls://…,"
            " several with commas, and what is special in a password as %XX."
        )
    elif (section, key) == ("cluster", "name") and isinstance(value, str) and not _CLUSTER.fullmatch(value):
        problems.append("[cluster] name: use 1 to 64 letters, digits, hyphens and underscores.")
    elif (section, key) == ("cluster", "workers") and isinstance(value, int) and not 1 <= value <= MAX_WORKERS:
        problems.append(f"[cluster] workers: use 1 to {MAX_WORKERS}; about one for each processor core.")


def _check_tls(tls: Tls, problems: list[str]) -> None:
    """What belongs together, or excludes each other."""
    if tls.development and (tls.certificate or tls.private_key):
        problems.append(
            "[tls] development (--dev-tls) brings a certificate of its own;"
            " leave it out, or [tls] certificate and private_key."
        )
    elif bool(tls.certificate) != bool(tls.private_key):
        missing = "private_key" if tls.certificate else "certificate"
        problems.append(f"[tls] {missing}: is missing; certificate and private_key belong together.")


def _check_proxies(sections: Mapping[str, Section], problems: list[str]) -> None:
    http, mqtt = sections["http"], sections["mqtt"]
    assert isinstance(http, Http) and isinstance(mqtt, Mqtt)
    for one in http.trusted_proxies:
        try:
            trusts_all = ip_network(one, strict=False).prefixlen == 0
        except ValueError:
            problems.append(
                f"[http] trusted_proxies: '{one[:60]}' is no address or network; write 192.0.2.7 or 10.0.0.0/8."
            )
            continue
        if trusts_all:
            problems.append(
                f"[http] trusted_proxies: '{one}' would let everybody choose an address; name your proxies."
            )
    for name, section in (("http", http), ("mqtt", mqtt)):
        if section.proxy_protocol and not http.trusted_proxies:
            problems.append(
                f"[{name}] proxy_protocol: says nothing without [http] trusted_proxies; name your load balancers there."
            )


def _check_admin(admin: Admin, problems: list[str]) -> None:
    if bool(admin.system_username) != bool(admin.system_password):
        missing = "system_password" if admin.system_username else "system_username"
        problems.append(f"[admin] {missing}: is missing; system_username and system_password belong together.")
    elif admin.system_password and not 8 <= len(admin.system_password) <= 200:
        problems.append("[admin] system_password: must have 8 to 200 characters.")


def _check_cluster(cluster: Cluster, database: Database, problems: list[str]) -> None:
    if cluster.fabric and not database.url.startswith("postgresql"):
        problems.append(
            "[cluster] fabric: several nodes need one PostgreSQL; set [database] url to"
            " postgresql+psycopg://user:password@host:5432/name, or leave fabric out."
        )
    elif cluster.workers > 1 and not database.url.startswith("postgresql"):
        problems.append(
            f"[cluster] workers: {cluster.workers} processes need PostgreSQL, as SQLite has one writer; set [database]"
            " url (--database-url postgresql+psycopg://user:password@host/name), or leave workers at 1."
        )


def _did_you_mean(word: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(known)}"
