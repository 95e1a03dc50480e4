"""What `cloud-core doctor` looks at: each a function of the configuration that says one line or several."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from OpenSSL import SSL
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

import cloud_core
from cloud_core import local_token, port_holders
from cloud_core.config import Config
from cloud_core.console.config import clashes, ports_of, url_without_password
from cloud_core.console.output import at, size
from cloud_core.fabric.addresses import addresses_of
from cloud_core.fabric.opening import FabricFailed, unreachable
from cloud_core.local_token import LocalToken, LocalTokenError
from cloud_core.rest_client import RestClient, RestError
from cloud_core.service import database_url
from cloud_core.storage.inspection import inspect, sqlite_path
from cloud_core.storage.migrations import NEWEST
from cloud_core.storage.vault import Vault
from cloud_core.transports.tls import ServerTls, TlsFailed
from cloud_core.workers.own_fabric import installed
from shared.findings import Finding, good, hint, wrong

CONFIGURED = ("admin-configured", "system-admin-configured")
LOW_BYTES, FULL_BYTES = 1 << 30, 100 << 20
FEW_FILES = 8_192
SKEW_MS = 5_000
SLOW_S = 1.0


def examined(config: Config) -> Iterator[Finding]:
    """Everything, in the order in which one thing rests on the other."""
    data_dir = Path(config.data_dir)
    running = _running(data_dir)
    yield from (wrong("configuration", problem, "change that value") for problem in clashes(config))
    yield data_directory(data_dir)
    yield disk_space(data_dir)
    key = master_key(config)
    yield key.finding
    yield database(config, key.vault)
    if config.cluster.fabric:
        yield fabric(config.cluster.fabric)
    elif config.cluster.workers > 1:
        yield own_fabric()
    yield from ports(config, running)
    yield from tls(config)
    yield file_limit()
    yield clock()
    yield core(data_dir, running)


def data_directory(data_dir: Path) -> Finding:
    topic = "data directory"
    if not data_dir.exists():
        return hint(topic, f"{data_dir} is not there yet", "cloud-core serve makes it at first start")
    if not data_dir.is_dir():
        return wrong(topic, f"{data_dir} is no directory", "name another with --data-dir, or move the file away")
    status = data_dir.stat()
    if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        return wrong(topic, f"{data_dir} may not be used", f"chown -R USER {data_dir}, for the user of the core")
    if status.st_mode & 0o022:
        return wrong(topic, f"others may write to {data_dir}", f"chmod 700 {data_dir}")
    exposed = sorted(
        one.name
        for one in data_dir.iterdir()
        if one.name in ("master.key", "admin-password", local_token.FILE, *CONFIGURED) and one.stat().st_mode & 0o077
    )
    if exposed:
        files = " ".join(str(data_dir / name) for name in exposed)
        return wrong(topic, f"others may read {', '.join(exposed)}", f"chmod 600 {files}")
    return good(topic, f"{data_dir} can be written")


def disk_space(data_dir: Path) -> Finding:
    place = next(one for one in (data_dir, *data_dir.absolute().parents) if one.exists())
    free = shutil.disk_usage(place).free
    text = f"{size(free)} free at {place}"
    if free < FULL_BYTES:
        return wrong("disk space", text, "make room: a full disk stops every write")
    if free < LOW_BYTES:
        return hint("disk space", text, "make room, or keep less: [telemetry] retention_days")
    return good("disk space", text)


class KeyFound(NamedTuple):
    finding: Finding
    vault: Vault | None


def master_key(config: Config) -> KeyFound:
    """Looks for it and makes none, as a start would."""
    topic, section = "master key", config.database
    file = Path(section.key_file) if section.key_file else Path(config.data_dir) / "master.key"
    where = "[database] key" if section.key else str(file)
    try:
        text = section.key or file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        path = _database_path(config)
        if path is not None and path.exists():
            fix = "restore it from your backup before anything starts: nothing else opens what is sealed"
            return KeyFound(wrong(topic, f"{file} is missing, and {path} was sealed with it", fix), None)
        fix = "cloud-core serve makes it at first start; if there was one, restore it from your backup"
        return KeyFound(hint(topic, f"{file} is not there yet", fix), None)
    except (OSError, UnicodeDecodeError) as error:
        fix = f"chown USER {file}, for the user of the core, or restore it from your backup"
        return KeyFound(wrong(topic, f"{file} cannot be read: {type(error).__name__}", fix), None)
    try:
        vault = Vault(bytes.fromhex(text))
        if not section.key and file.stat().st_mode & 0o077:
            return KeyFound(wrong(topic, f"others may read {file}", f"chmod 600 {file}"), vault)
        return KeyFound(good(topic, f"{where} has the right form"), vault)
    except ValueError:
        fix = "it must hold 64 hexadecimal digits; restore it from your backup"
        return KeyFound(wrong(topic, f"{where} is no master key", fix), None)


def _database_path(config: Config) -> Path | None:
    try:
        return sqlite_path(database_url(config))
    except ArgumentError:
        return None


def database(config: Config, vault: Vault | None) -> Finding:
    topic, url = "database", database_url(config)
    try:
        path = sqlite_path(url)
        if path is not None and not path.exists():
            return hint(topic, f"{path} is not there yet", "cloud-core serve makes it at first start")
        name = str(path) if path is not None else url_without_password(url)
        found = inspect(url, vault)
    except ArgumentError:
        return wrong(topic, "[database] url is no address", "write postgresql+psycopg://user:password@host/name")
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        return _closed(topic, url, error)
    if found.step is None:
        return hint(topic, f"{name} is empty", "cloud-core serve, or cloud-core migrate, makes its tables")
    if found.step > NEWEST:
        return wrong(topic, f"{name} is at step {found.step}, newer than this program", "install the newer program")
    if found.is_key_right is False:
        return wrong(topic, f"{name} was sealed with another master key", "restore the key that belongs to it")
    counts = ", ".join(f"{count} {noun}" for noun, count in found.counts.items())
    if found.step < NEWEST:
        fix = "make a backup, then: cloud-core migrate (or the next start does it)"
        return hint(topic, f"{name} is at step {found.step} of {NEWEST}", fix)
    if found.newest_ms > time.time() * 1000 + SKEW_MS:
        text = f"{name} holds an attempt of {at(found.newest_ms)}, which is in the future"
        return hint(topic, text, "the clock was wrong, or is: timedatectl set-ntp true")
    return good(topic, f"{name} opens, step {found.step}; {counts}")


def _closed(topic: str, url: str, error: Exception) -> Finding:
    """The cause in one line, without what an address may hold of secrets."""
    if sqlite_path(url) is not None:
        fix = "check its owner; if it is damaged, restore a backup (cloud-core backup --help)"
        return wrong(topic, f"cannot be opened: {str(getattr(error, 'orig', None) or error).splitlines()[0]}", fix)
    said = str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()
    fix = "check host, port, user and pg_hba.conf: psql -c 'select 1' with the same address"
    return wrong(
        topic, f"PostgreSQL does not let us in at {url_without_password(url)}: {said[-1] if said else ''}", fix
    )


def fabric(urls: str) -> Finding:
    """Whether NATS lets us in at each of its addresses."""
    topic = "fabric"
    try:
        failed = unreachable(urls)
        count = len(addresses_of(urls))
    except FabricFailed as error:
        return wrong(topic, "cannot be joined", str(error))
    text = "; ".join(f"{address}: {why}" for address, why in failed)
    fix = "start nats-server there (apt install nats-server), check host, port and login of [cluster] fabric"
    if len(failed) == count:
        return wrong(topic, f"NATS does not let us in at {text}", f"{fix}; until then changes take seconds")
    if failed:
        return hint(topic, f"one of its servers does for the others, but {text}", fix)
    return good(topic, f"NATS lets us in at {', '.join(str(one) for one in addresses_of(urls))}")


def own_fabric() -> Finding:
    """Whether workers have what they talk through, where no fabric is configured."""
    program = installed()
    if program is None:
        return wrong("fabric", "workers need a nats-server, and none is on this machine", "apt install nats-server")
    return good("fabric", f"workers start a nats-server of their own: {program}")


def ports(config: Config, running: LocalToken | None) -> Iterator[Finding]:
    binds = {"http": config.http.bind, "mqtt": config.mqtt.bind or config.http.bind,
             "coap": config.coap.bind or config.http.bind}  # fmt: skip
    for name, kind, port in ports_of(config):
        if not port:
            continue
        bind = binds[name[1:5]]
        topic = f"{kind} {port}"
        error = port_holders.problem(kind, bind, port)
        if error is None:
            yield good(topic, f"free for {name}")
        elif port_holders.is_taken(error):
            yield _taken(topic, name, port_holders.holder(kind, port), running)
        else:
            fix = "ports below 1024 need CAP_NET_BIND_SERVICE; an address must be one of this machine"
            yield wrong(topic, f"{name} cannot listen on {bind or '*'}: {error.strerror}", fix)


def _taken(topic: str, name: str, holder: tuple[int, str] | None, running: LocalToken | None) -> Finding:
    if holder is not None and running is not None and port_holders.are_together(running.pid, holder[0]):
        return good(topic, f"held by the running core (process {holder[0]})")
    who = f"{holder[1]} (process {holder[0]})" if holder else "a process of another user"
    return wrong(topic, f"{name} is taken by {who}", "stop that, or choose another port")


def tls(config: Config) -> Iterator[Finding]:
    section, topic = config.tls, "TLS"
    certificate, private_key = Path(section.certificate), Path(section.private_key)
    if section.development:
        folder = Path(config.data_dir) / "dev-tls"
        certificate, private_key = folder / "server.pem", folder / "server.key"
        if not certificate.exists():
            yield hint(topic, "a development certificate, made at the next start", "not for real devices")
            return
    elif not section.certificate:
        yield hint(topic, "off: what devices send can be read on the way", "name [tls] certificate and private_key")
        return
    server = ServerTls(certificate=certificate, private_key=private_key)
    try:
        server.context(SSL.TLS_SERVER_METHOD)
    except (TlsFailed, OSError, ValueError) as error:
        yield wrong(topic, str(error).splitlines()[0], "name a PEM certificate with its chain, and its private key")
        return
    if private_key.stat().st_mode & 0o077:
        yield wrong(topic, f"others may read {private_key}", f"chmod 600 {private_key}")
    shown = server.expiry()
    assert shown is not None, "there is a pair"
    left_days = (shown.not_after_ms - time.time() * 1000) / 86_400_000
    text = f"{shown.subject} until {at(shown.not_after_ms)}"
    if left_days < 0:
        yield wrong(topic, f"{text}: over", "renew it; the core takes new files by itself")
    elif left_days < config.ca.warn_days:
        yield hint(topic, f"{text}: {left_days:.0f} days left", "renew it; the core takes new files by itself")
    else:
        yield good(topic, text)


def file_limit() -> Finding:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return good("file limit", "none")
    if hard < FEW_FILES:
        fix = "LimitNOFILE=1048576 in the systemd unit, or ulimit -Hn"
        return hint("file limit", f"{hard}: so many connections at most", fix)
    return good("file limit", f"{hard} connections and files")


def clock() -> Finding:
    """Against the program's own files: a machine without a battery wakes up in the past."""
    built_ms = int(Path(cloud_core.__file__).stat().st_mtime * 1000)
    now_ms = int(time.time() * 1000)
    if now_ms < built_ms - SKEW_MS:
        return wrong("clock", f"{at(now_ms)}, before this program was installed", "timedatectl set-ntp true")
    return good("clock", f"{at(now_ms)} UTC")


def core(data_dir: Path, running: LocalToken | None) -> Finding:
    """The running core's health, asked with the token of this machine."""
    topic = "core"
    if running is None:
        try:
            local_token.read(data_dir)
        except LocalTokenError as error:
            if not error.is_missing:
                return hint(topic, "cannot be asked", str(error))
        return hint(topic, f"none runs on {data_dir}", "cloud-core serve")
    began_s = time.monotonic()
    try:
        client = RestClient(running.url, running.token)
        client.get("/api/auth/user")
        count = client.get("/api/tenant/devices", pageSize=1, page=0)["totalElements"]
    except RestError as error:
        if error.status == 0:
            return hint(topic, f"the one of process {running.pid} is gone, or hangs: {error}", "cloud-core serve")
        return wrong(topic, f"process {running.pid} does not answer as it should: {error}", "see its log; restart it")
    took_s = time.monotonic() - began_s
    text = f"process {running.pid} answers at {running.url} in {took_s * 1000:.0f} ms; {count} devices"
    return good(topic, text) if took_s < SLOW_S else hint(topic, text, "that is slow: look at disk and processor")


def _running(data_dir: Path) -> LocalToken | None:
    """The core that works on this directory, or did until it was killed."""
    try:
        return local_token.read(data_dir)
    except LocalTokenError:
        return None
