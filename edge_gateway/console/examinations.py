"""What `doctor` looks at on this machine: files, disk, spool, clock."""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import stat
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from edge_gateway.config import Config
from edge_gateway.console.agents import is_at_work
from edge_gateway.console.concealing import secrets_in
from edge_gateway.console.options import Place
from edge_gateway.console.output import plural
from edge_gateway.mapping.amounts import format_size
from edge_gateway.service import spool_path
from edge_gateway.storage.credentials import CREDENTIALS, CredentialsFolder, FileUnusable
from edge_gateway.storage.limits import in_units
from shared.findings import Finding, good, hint, skipped, wrong

QUICK_CHECK_BYTES = 512 * 1024**2  # a greater spool takes too long to be read through for a quick look
EARLIEST_S = 1_735_689_600  # 2025-01-01: an earlier clock has not been set
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
_TIMEX_BYTES = 512  # more than the structure has on any machine


def local_findings(config: Config, place: Place) -> Iterator[Finding]:
    """In the order in which things depend on each other."""
    yield configuration(config, place)
    yield data_directory(place.data_dir)
    yield disk(config, place.data_dir)
    yield spool(config, place.data_dir)
    yield credentials(place.data_dir)
    yield clock()


def configuration(config: Config, place: Place) -> Finding:
    count = plural(len(config.connectors), "connector")
    mode = place.config.stat().st_mode
    if mode & 0o007 and next(secrets_in(tomllib.loads(place.config.read_text("utf-8-sig"))), None):
        text = f"{place.config} holds secrets and may be read by everybody"
        return hint("configuration", text, f"chmod 600 {place.config}")
    if config.hints:
        text = f"{place.config}, {count}; {plural(len(config.hints), 'hint')}"
        return hint("configuration", text, "see `edge-gateway check`")
    if not config.connectors:
        return hint(
            "configuration", f"{place.config} has no connectors", "add one; `edge-gateway setup` shows examples"
        )
    return good("configuration", f"{place.config}, {count}")


def data_directory(data_dir: Path) -> Finding:
    topic = "data directory"
    folder = data_dir if data_dir.exists() else data_dir.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        fix = f"give it to the user that runs edge-gateway: chown -R USER {data_dir}"
        return wrong(topic, f"{folder} cannot be written", fix)
    if not data_dir.exists():
        return good(topic, f"{data_dir} will be made at the first start")
    if stat.S_IMODE(data_dir.stat().st_mode) & 0o077:
        return hint(topic, f"others may look into {data_dir}", f"chmod 700 {data_dir}")
    return good(topic, f"{data_dir} can be written")


def disk(config: Config, data_dir: Path) -> Finding:
    folder = spool_path(config, data_dir).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    keep = config.store.keep_free
    text = f"{in_units(free)} free at {folder}"
    if free <= keep:
        fix = "make room: nothing more is stored until more is free"
        return wrong("disk", f"{text}, less than [store] keep_free = {format_size(keep)}", fix)
    if free < keep + config.store.max_size:
        fix = "make room, or lower [store] max_size"
        return hint("disk", f"{text}: the spool cannot grow to [store] max_size", fix)
    return good("disk", text)


def spool(config: Config, data_dir: Path) -> Finding:
    path = spool_path(config, data_dir)
    if not path.exists():
        return good("spool", "will be made at the first start")
    if is_at_work(path):
        return good("spool", f"{path} is in use by the agent, which watches over it")
    if path.stat().st_size > QUICK_CHECK_BYTES:
        return skipped("spool", f"{path} is too large for a quick look; the agent checks it when it needs to")
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
        try:
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        answer = str(error)
    if answer != "ok":
        fix = "start the agent: it saves what can be read and sets the damaged file aside"
        return wrong("spool", f"{path} is damaged ({answer})", fix)
    return good("spool", f"{path} is sound")


def credentials(data_dir: Path) -> Finding:
    topic, path = "credentials", data_dir / CREDENTIALS
    if not path.exists():
        return good(topic, "none kept yet; made at the first start when [core] provision is set")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        fix = f"chmod 600 {path}, and have new credentials made if somebody may have read them"
        return wrong(topic, f"others may read {path} (mode {mode:04o})", fix)
    try:
        CredentialsFolder(data_dir).load()
    except FileUnusable as error:
        return wrong(topic, str(error))
    return good(topic, f"{path}, readable by its owner alone")


def clock(now_s: float | None = None, is_synchronized: bool | None = None) -> Finding:
    now_s = time.time() if now_s is None else now_s
    shown = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now_s))
    if now_s < EARLIEST_S:
        fix = "set it (timedatectl set-time), and have it kept by NTP; readings wait until the time is known"
        return wrong("clock", f"it says {shown}", fix)
    synchronized = synchronized_by_ntp() if is_synchronized is None else is_synchronized
    if synchronized is False:
        fix = "start an NTP service, such as systemd-timesyncd or chrony"
        return hint("clock", f"{shown}, not kept by NTP", fix)
    return good("clock", shown + (", kept by NTP" if synchronized else ""))


def synchronized_by_ntp() -> bool | None:
    """What the kernel says (adjtimex, which anybody may ask); None where it does not tell."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR
