"""What `doctor` looks at beyond this machine: the core, and each connector's address."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge_gateway.config import Config, ConnectorTable
from edge_gateway.config.checks import is_loopback
from edge_gateway.console.network import (
    Address,
    Unreachable,
    addresses_of,
    can_listen,
    certificate_days,
    connect,
    core_address,
)
from edge_gateway.console.output import age
from shared.findings import Finding, good, hint, skipped, wrong

FEW_DAYS = 14
MAX_ADDRESSES = 20  # of one connector
_PORTS = {
    "tcp": 502, "rtu+tcp": 502, "http": 80, "https": 443, "mqtt": 1883, "mqtts": 8883, "opc.tcp": 4840,
}  # fmt: skip
_WITHOUT_CONNECTION = ("udp", "coap", "coaps")


def core_findings(config: Config) -> Iterator[Finding]:
    """Name, port, certificate: what comes later is not looked at when an earlier one fails."""
    address = core_address(config.core)
    try:
        found = addresses_of(address.host)
        text = f"{address.host} is {', '.join(found[:3])}"
        yield good("DNS", text if found != [address.host] else f"{address.host} needs no look-up")
    except Unreachable as error:
        yield _unreachable("DNS", str(error))
        return
    try:
        yield good("TCP", f"{address} answers in {age(connect(address))}")
    except Unreachable as error:
        yield _unreachable("TCP", str(error))
        return
    yield tls_finding(config, address)


def tls_finding(config: Config, address: Address) -> Finding:
    if not address.is_tls and is_loopback(address.host):
        return good("TLS", "not used; the core is on this machine")
    if not address.is_tls:
        return hint("TLS", "not used: everybody on the way can read along", "use mqtts:// in [core] url")
    try:
        days = certificate_days(config.core, address)
    except Unreachable as error:
        return _unreachable("TLS", str(error))
    if days is None:
        return hint(
            "TLS", "the core's certificate is not verified", "remove [core] insecure, and set ca_file if needed"
        )
    text = f"the core's certificate is trusted and valid for {days:.0f} days"
    return hint("TLS", text, "have it renewed in time") if days < FEW_DAYS else good("TLS", text)


def local_page(config: Config, *, is_agent_at_work: bool) -> Finding:
    """Whether the local page has its port."""
    topic, local = "local page", config.local
    address = Address(local.bind, local.port)
    if not local.enabled:
        return skipped(topic, "switched off ([local] enabled = false); status, devices, tap and apply need it")
    if is_agent_at_work:
        return skipped(topic, "the running agent has its port, or says in its log why not")
    try:
        can_listen(address)
    except Unreachable as error:
        return _unreachable(topic, str(error))
    if not is_loopback(local.bind):
        return hint(topic, f"can listen on {address}, for the whole network", "keep its PIN to yourself")
    return good(topic, f"can listen on {address}" if local.port else f"takes a free port of {local.bind}")


def connector_findings(table: ConnectorTable, *, is_agent_at_work: bool) -> Iterator[Finding]:
    """One for each address that the table names."""
    topic = f"{table.kind} {table.name}"
    if not getattr(table.settings, "enabled", True):
        yield skipped(topic, "switched off (enabled = false)")
        return
    addresses = list(dict.fromkeys(addresses_in(table.raw)))
    for member, text in addresses[:MAX_ADDRESSES]:
        finding = _listener(topic, text, is_agent_at_work) if member == "listen" else _peer(topic, text)
        if finding is not None:
            yield finding
    if not addresses:
        yield good(topic, "needs no address")


def addresses_in(raw: Any) -> Iterator[tuple[str, str]]:
    """`listen = …`, and whatever is a URL under a name that means an address; not those with places to fill."""
    members = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for name, value in members:
        if isinstance(value, dict | list):
            yield from addresses_in(value)
        elif isinstance(value, str) and "{" not in value and (name == "listen" or _is_address(name, value)):
            yield str(name), value


def _is_address(name: str | int, value: str) -> bool:
    return name in ("connect", "url", "uri", "port", "device") and "://" in value


def _listener(topic: str, text: str, is_agent_at_work: bool) -> Finding | None:
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        address = Address(parts.hostname or "0.0.0.0", parts.port or 0)
    except ValueError:
        return wrong(topic, f"'{text}' is no address", "write host:port")
    if is_agent_at_work:
        return skipped(topic, f"listens on {address}, which the running agent has; see `edge-gateway status`")
    if parts.scheme in _WITHOUT_CONNECTION or topic.startswith("coap "):
        return good(topic, f"listens on {address} (UDP)")
    try:
        can_listen(address)
    except Unreachable as error:
        return _unreachable(topic, str(error))
    return good(topic, f"can listen on {address}")


def _peer(topic: str, url: str) -> Finding | None:
    parts = urlsplit(url)
    if parts.scheme == "serial":
        return serial_finding(topic, Path(parts.path or parts.netloc))
    try:
        address = Address(parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
    except ValueError:
        return wrong(topic, f"{parts.scheme}:// with a port that is none", "write host:port")
    if not address.host:
        return None
    try:
        if parts.scheme in _WITHOUT_CONNECTION or not address.port:
            addresses_of(address.host)
            return good(topic, f"{address.host} is a known name; whether it answers shows `edge-gateway try`")
        return good(topic, f"{address} answers in {age(connect(address))}")
    except Unreachable as error:
        return _unreachable(topic, str(error))


def serial_finding(topic: str, port: Path) -> Finding:
    """Whether the port is there and may be used."""
    if not port.exists():
        return wrong(topic, f"{port} is not there", "plug the adapter in; `ls /dev/serial/by-id` shows those that are")
    if not os.access(port, os.R_OK | os.W_OK):
        try:
            group = port.group()
        except KeyError:
            group = "dialout"
        return wrong(
            topic, f"{port} may not be used", f"usermod -aG {group} USER, for the user of the service; restart it"
        )
    return good(topic, f"{port} can be opened")


def _unreachable(topic: str, sentence: str) -> Finding:
    """Of a sentence `what: fix`."""
    text, _, fix = sentence.rpartition(": ")
    return wrong(topic, text or sentence, fix if text else "")
