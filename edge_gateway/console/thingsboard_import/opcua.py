"""`opcua.json`: a client of a server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edge_gateway.console.thingsboard_import.expressions import device_and_type, has_place, milliseconds, report_of
from edge_gateway.console.thingsboard_import.findings import Notes, Table, table_of, tables_of, without_empty

_POLICIES = ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
_NODE_ID = re.compile(r"(?:ns=\d+;)?[isgb]=.+")
_BARE = re.compile(r"[^.*+?()\[\]\\^$|{}]+")
_SEPARATOR = re.compile(r"\\\\?\.|\.(?![*+?{])|/")


def convert(document: Mapping[str, Any], name: str, notes: Notes) -> list[Table]:
    """One `[[opcua]]`."""
    server = table_of(document.get("server"))
    mapping = document.get("mapping") or server.get("mapping")
    devices = [
        made
        for place, one in enumerate(tables_of(mapping))
        if (made := _device(one, notes.at("mapping", place))) is not None
    ]
    if not devices:
        return []
    return [Table("opcua", {**_server(server, name, notes.at("server")), "device": devices})]


def _server(server: Mapping[str, Any], name: str, notes: Notes) -> dict[str, Any]:
    identity = table_of(server.get("identity"))
    policy = str(server.get("security", ""))
    url = str(server.get("url", ""))
    values = without_empty(
        {
            "name": name, "connect": url if url.startswith("opc.tcp://") else f"opc.tcp://{url}",
            "username": identity.get("username"), "password": identity.get("password"),
            "certificate": identity.get("clientCert"), "private_key": identity.get("privateKey"),
            "server_certificate": identity.get("caCert"),
            "timeout": milliseconds(server["timeoutInMillis"]) if server.get("timeoutInMillis") else "",
            "every": _every(server),
        }
    )  # fmt: skip
    if policy in _POLICIES:
        values["security"] = policy
        if identity.get("mode") == "Sign":
            values["mode"] = "Sign"
        if not values.get("certificate"):
            notes.at("security").approximated("needs a certificate of the gateway: set certificate and private_key")
    elif policy:
        notes.at("security").missing("this policy is broken and not spoken any more: the connection is not encrypted")
    if server.get("enableSubscriptions"):
        notes.at("enableSubscriptions").converted("nodes are subscribed to")
    elif _every(server):
        notes.at("pollPeriodInMillis").converted("every; leave it out to subscribe, which is quicker and costs less")
    if server.get("scanPeriodInMillis"):
        values["browse_every"] = milliseconds(server["scanPeriodInMillis"])
    notes.converted("[[opcua]] connect and login")
    return values


def _every(server: Mapping[str, Any]) -> str:
    """How often nodes are polled; empty where they are subscribed to."""
    period = server.get("pollPeriodInMillis")
    return "" if server.get("enableSubscriptions") or not period else milliseconds(period)


def _device(mapping: Mapping[str, Any], notes: Notes) -> dict[str, Any] | None:
    name, source, profile, profile_source = device_and_type(table_of(mapping.get("deviceInfo")), mapping)
    if source != "constant" or profile_source != "constant" or has_place(name):
        notes.at("deviceInfo").missing("a name that a node tells has no equivalent; left out")
        return None
    pattern = str(mapping.get("deviceNodePattern", ""))
    root = pattern if _NODE_ID.fullmatch(pattern) else _path(pattern, notes.at("deviceNodePattern"))
    if root is None:
        return None
    captures = re.findall(r"\{\w+\}", root)
    if captures and "{" not in name:
        name = f"{name} {' '.join(captures)}"
        notes.at("deviceInfo").approximated("several devices may fit the path, so its captures are part of the name")
    values = {
        "device": name, "type": profile, "root": root or "Objects",
        "report": report_of(mapping, notes),
        "telemetry": _points(mapping, "timeseries", notes), "attributes": _points(mapping, "attributes", notes),
        "rpc": _calls(mapping, notes), "shared": _updates(mapping, notes),
    }  # fmt: skip
    if not values["telemetry"] and not values["attributes"]:
        notes.missing("nothing is read; left out")
        return None
    notes.converted("[[opcua.device]]")
    return without_empty(values)


def _path(pattern: str, notes: Notes) -> str | None:
    r"""`Root\.Objects\.Line(\d+)` is `Objects/{n1}`."""
    steps = []
    for number, step in enumerate(_SEPARATOR.split(pattern.removeprefix("Root").lstrip("\\./"))):
        if _BARE.fullmatch(step):
            steps.append(step)
        elif step:
            steps.append(f"{{n{number}}}")
            notes.approximated("an expression in the path became a capture, which fits every name at its level")
    return "/".join(steps)


def _node(text: str) -> str | None:
    """A path from the device, from the server's root, or a node id."""
    inner = text.strip().removeprefix("${").removesuffix("}").strip()
    if not inner or has_place(inner):
        return None
    if _NODE_ID.fullmatch(inner):
        return inner
    steps = [step for step in _SEPARATOR.split(inner) if step]
    return "/".join(steps) if all(_BARE.fullmatch(step) for step in steps) else None


def _points(mapping: Mapping[str, Any], member: str, notes: Notes) -> list[str | dict[str, Any]]:
    points: list[str | dict[str, Any]] = []
    for place, entry in enumerate(tables_of(mapping.get(member))):
        where = notes.at(member, place)
        key, value = str(entry.get("key", "")), str(entry.get("value") or entry.get("path") or "")
        node = None if entry.get("type") == "constant" else _relative(_node(value), mapping)
        if node is None or not key or has_place(key):
            where.missing("only one node, by path or identifier, can be a value")
            continue
        report = report_of(entry, where)
        points.append({"at": node, "key": key, "report": report} if report or ":" in key else f"{node} -> {key}")
    return points


def _relative(node: str | None, mapping: Mapping[str, Any]) -> str | None:
    """A path from the server's root becomes one from the device."""
    root = _node(str(mapping.get("deviceNodePattern", "")))
    if node is None or root is None or not node.startswith("Root/"):
        return node
    return node.removeprefix(root + "/") if node.startswith(root + "/") else None


def _calls(mapping: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    calls: dict[str, Any] = {}
    for place, entry in enumerate(tables_of(mapping.get("rpc_methods"))):
        method = str(entry.get("method", ""))
        if not method:
            continue
        constants = [one.get("value") for one in tables_of(entry.get("arguments"))]
        calls[method] = {"method": method, **({"args": constants} if constants else {})}
        if constants:
            notes.at("rpc_methods", place).approximated("constants are passed; leave `args` out to pass the call's")
    return calls


def _updates(mapping: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    updates: dict[str, Any] = {}
    for place, entry in enumerate(tables_of(mapping.get("attributes_updates"))):
        node = _relative(_node(str(entry.get("value") or entry.get("attributeOnDevice") or "")), mapping)
        key = entry.get("key") or entry.get("attributeOnThingsBoard")
        if node is None or not key:
            notes.at("attributes_updates", place).missing("only one node, by path or identifier, can be written")
            continue
        updates[str(key)] = {"write": node, "value": "$.value"}
    return updates
