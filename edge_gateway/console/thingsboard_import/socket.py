"""`socket.json`: devices send bytes over TCP or UDP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_gateway.console.thingsboard_import.expressions import report_of
from edge_gateway.console.thingsboard_import.findings import Notes, Table, table_of, tables_of, without_empty


def convert(document: Mapping[str, Any], name: str, notes: Notes) -> list[Table]:
    """One `[[line]]` with `listen`."""
    server = table_of(document.get("socket")) or document
    scheme = str(server.get("type", "TCP")).lower()
    maps = [
        made
        for place, one in enumerate(tables_of(document.get("devices")))
        if (made := _map(one, notes.at("devices", place))) is not None
    ]
    if not maps:
        return []
    if scheme == "tcp":
        text = "a message ends with a line feed here; set `delimiter`, `length` or `length_prefix` to what devices send"
        notes.at("socket").approximated(text)
    listen = f"{scheme}://{server.get('address', '127.0.0.1')}:{server.get('port', 50000)}"
    notes.at("socket").converted("[[line]] listen")
    return [Table("line", {"name": name, "listen": listen, "map": maps})]


def _map(device: Mapping[str, Any], notes: Notes) -> dict[str, Any] | None:
    if str(device.get("encoding", "utf-8")).lower().replace("-", "") not in ("utf8", "ascii"):
        notes.at("encoding").missing("texts are UTF-8 here")
    address = str(device.get("addressFilter") or device.get("address") or "*:*")
    if address != "*:*":
        notes.at("address").approximated("every peer may send for this device; {peer} in `device` tells them apart")
    for kind in ("attributeRequests", "attributeUpdates", "serverSideRpc"):
        if device.get(kind):
            notes.at(kind).missing("write `rpc` and `shared` of [[line]] by hand: what is sent, and which reply counts")
    values = {
        "device": str(device.get("deviceName", "")).replace("{", "").replace("}", ""),
        "type": str(device.get("deviceType", "")), "format": "bytes", "report": report_of(device, notes),
        "telemetry": _lines(device, "telemetry", notes) or _lines(device, "timeseries", notes),
        "attributes": _lines(device, "attributes", notes),
    }  # fmt: skip
    if not values["device"] or not (values["telemetry"] or values["attributes"]):
        notes.missing("nothing of it can be read; left out")
        return None
    notes.converted("[[line.map]]")
    return without_empty(values)


def _lines(device: Mapping[str, Any], member: str, notes: Notes) -> list[str | dict[str, Any]]:
    lines: list[str | dict[str, Any]] = []
    for place, entry in enumerate(tables_of(device.get(member))):
        where = notes.at(member, place)
        first, last = entry.get("byteFrom", 0), entry.get("byteTo", -1)
        key = str(entry.get("key", ""))
        if not isinstance(first, int) or not isinstance(last, int) or first < 0 or not key or -1 != last <= first:
            where.missing("only bytes from the beginning on can be picked")
            continue
        if last < -1:
            where.missing("bytes counted from the end cannot be picked")
            continue
        at = f"bytes:{first}-" if last == -1 else f"bytes:{first}-{last - 1}"
        report = report_of(entry, where)
        values = {"at": at, "key": key, "as": "string", "report": report}
        lines.append(values if report or ":" in key else f"{at} -> {key}: string")
    return lines
