"""`edge-gateway support-bundle`: everything that helps others to help, without secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import tarfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from edge_gateway.config import Config, ConfigError, load
from edge_gateway.config.explaining import explain
from edge_gateway.console.concealing import Mask
from edge_gateway.console.examinations import local_findings
from edge_gateway.console.local_client import DoorRefused, LocalClient, NotRunning
from edge_gateway.console.masking import CannotMask, masked
from edge_gateway.console.options import EXIT_REFUSED, Place, as_json, environment, fail, in_place, known_kinds
from edge_gateway.console.output import show_json
from edge_gateway.service import spool_path
from edge_gateway.storage.errors import SpoolUnavailable
from edge_gateway.storage.export import SpoolReader

LOG_LINES = 5_000
LOG_BYTES = 8 * 1024**2
JOURNAL_S = 10.0
_PACKAGES = (
    "muster",
    "twisted",
    "paho-mqtt",
    "aiocoap",
    "pymodbus",
    "asyncua",
    "pyserial",
    "msgspec",
    "klein",
    "click",
)

Part = tuple[str, str]  # name in the archive, text


@click.command("support-bundle")
@in_place
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--log-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Log whose end is taken."
)
@click.option("--unit", default="edge-gateway", show_default=True, help="Service whose journal is taken otherwise.")
@as_json
def support_bundle(place: Place, file: Path, log_file: Path | None, unit: str, is_json: bool) -> None:
    """Collect configuration, state and log into FILE (tar.gz, 0600), with all secrets masked.

    Nothing is sent anywhere. Look into it before you hand it on: device names and readings may be in it.

    \b
    Example:
      $ edge-gateway support-bundle gateway-4f2a.tar.gz
      gateway-4f2a.tar.gz: versions.json, configuration.toml, explain.txt, doctor.json, spool.json, status.json, log.txt
    """
    mask = Mask(place.config, place.data_dir)
    parts = [(name, mask(text)) for name, text in _parts(place, log_file, unit)]
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        fail(f"{file} cannot be made ({error.strerror}): choose another name", EXIT_REFUSED)
    with os.fdopen(descriptor, "wb") as target:
        _pack(parts, target)
    names = [name for name, _ in parts]
    if is_json:
        show_json({"file": str(file), "parts": names})
    else:
        click.echo(f"{file}: {', '.join(names)}")


def _pack(parts: list[Part], target: Any) -> None:
    now = int(time.time())
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, text in parts:
            content = text.encode("utf-8", errors="replace")
            info = tarfile.TarInfo(f"support/{name}")
            info.size, info.mtime, info.mode = len(content), now, 0o600
            archive.addfile(info, io.BytesIO(content))


def _parts(place: Place, log_file: Path | None, unit: str) -> Iterator[Part]:
    """A part that cannot be had says why, in its place."""
    yield "versions.json", _json(_versions())
    if place.has_config:
        yield "configuration.toml", _configuration(place)
    config = None
    try:
        config = load(place.config if place.has_config else None, environment(), kinds=known_kinds())
        yield "explain.txt", "".join(f"{line.path} = {line.value}  ({line.source})\n" for line in explain(config))
    except ConfigError as error:
        yield "problems.txt", str(error)
    if config is not None:
        if place.has_config:
            yield "doctor.json", _json([finding._asdict() for finding in local_findings(config, place)])
        yield "spool.json", _spool(config, place)
    yield "status.json", _asked(place, lambda gateway: gateway.get("/api/status"))
    yield "log.txt", _log(log_file, unit)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _versions() -> dict[str, Any]:
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "packages": packages, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(), "machine": platform.machine(), "processors": os.cpu_count(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }  # fmt: skip


def _configuration(place: Place) -> str:
    try:
        return masked(place.config.read_text("utf-8-sig"))
    except (CannotMask, OSError, ValueError) as error:
        return f"# left out: {error}\n"


def _spool(config: Config, place: Place) -> str:
    try:
        with SpoolReader(spool_path(config, place.data_dir)) as reader:
            seen = reader.overview()
    except SpoolUnavailable as error:
        return _json({"unavailable": str(error)})
    dropped = [{"reason": why, "device": who, "readings": n} for (why, who), n in sorted(seen.dropped.items())]
    return _json(
        {
            "records": seen.records, "devices": seen.devices, "usedBytes": seen.used_bytes,
            "fileBytes": seen.file_bytes, "oldestMs": seen.oldest_ms, "dropped": dropped,
        }
    )  # fmt: skip


def _asked(place: Place, ask: Callable[[LocalClient], Any]) -> str:
    try:
        with LocalClient(place.data_dir) as gateway:
            return _json(ask(gateway))
    except (NotRunning, DoorRefused) as error:
        return _json({"unavailable": str(error)})


def _log(log_file: Path | None, unit: str) -> str:
    """The last lines of a file, or of the service's journal."""
    if log_file is not None:
        with log_file.open("rb") as source:
            source.seek(max(0, log_file.stat().st_size - LOG_BYTES))
            return b"".join(deque(source, LOG_LINES)).decode("utf-8", errors="replace")
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        return "There is no journal on this machine; name a log by --log-file.\n"
    command = [journalctl, "--no-pager", "--unit", unit, "--lines", str(LOG_LINES), "--output", "short-iso"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=JOURNAL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"The journal cannot be read: {type(error).__name__}\n"
    return (done.stdout + done.stderr)[-LOG_BYTES:].decode("utf-8", errors="replace")
