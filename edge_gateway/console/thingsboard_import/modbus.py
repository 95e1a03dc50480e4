"""`modbus.json`: the master; slaves of the same line or box come into one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from edge_gateway.console.thingsboard_import.expressions import duration, milliseconds, report_of
from edge_gateway.console.thingsboard_import.findings import Notes, Table, table_of, tables_of, without_empty

_TABLES = {1: "coil", 2: "discrete", 3: "holding", 4: "input", 5: "coil", 15: "coil", 6: "holding", 16: "holding"}
_TYPES = {
    **{f"{bits}{kind}": f"{kind}{bits}" for bits in (8, 16, 32, 64) for kind in ("int", "uint")},
    **{f"{bits}float": f"float{bits}" for bits in (16, 32, 64)},
    "string": "string", "bytes": "string",
}  # fmt: skip
_BY_COUNT = {"int": "int", "integer": "int", "long": "int", "uint": "uint", "float": "float", "double": "float"}
_ORDERS = {
    ("BIG", "BIG"): "big", ("BIG", "LITTLE"): "big-swapped", ("LITTLE", "LITTLE"): "little",
    ("LITTLE", "BIG"): "little-swapped",
}  # fmt: skip
_PARITY = {"N", "E", "O"}


def convert(document: Mapping[str, Any], name: str, notes: Notes) -> list[Table]:
    """One `[[modbus]]` for each line or box."""
    if document.get("slave"):
        notes.at("slave").missing("the gateway is no Modbus slave itself")
    buses: dict[str, Table] = {}
    slaves = table_of(document.get("master")).get("slaves") or table_of(document.get("server")).get("slaves")
    for place, slave in enumerate(tables_of(slaves)):
        where = notes.at("master", "slaves", place)
        connect = _connect(slave)
        if connect not in buses:
            number = "" if not buses else f"-{len(buses) + 1}"
            buses[connect] = Table("modbus", _bus(slave, name + number, connect, where))
        device = _device(slave, where)
        if device is not None:
            buses[connect].values["device"].append(device)
            where.converted("[[modbus.device]]")
    return [table for table in buses.values() if table.values["device"]]


def _connect(slave: Mapping[str, Any]) -> str:
    kind, method = str(slave.get("type", "tcp")), str(slave.get("method", "socket"))
    if kind == "serial":
        line = {
            "baud": slave.get("baudrate", 19200), "parity": slave.get("parity"), "stop": slave.get("stopbits"),
            "bits": slave.get("bytesize") if slave.get("bytesize", 8) != 8 else None,
        }  # fmt: skip
        return f"serial://{slave.get('port', '/dev/ttyUSB0')}?{urlencode(without_empty(line))}"
    scheme = "udp" if kind == "udp" else "rtu+tcp" if method == "rtu" else "tcp"
    return f"{scheme}://{slave.get('host', '127.0.0.1')}:{slave.get('port', 502)}"


def _bus(slave: Mapping[str, Any], name: str, connect: str, notes: Notes) -> dict[str, Any]:
    if str(slave.get("method")) == "ascii":
        notes.at("method").missing("Modbus ASCII is not spoken; RTU is taken")
    if slave.get("security") or slave.get("tls"):
        notes.at("security").missing("Modbus over TLS is not spoken; plain TCP is taken")
    for old in ("connectAttemptTimeMs", "connectAttemptCount", "waitAfterFailedAttemptsMs"):
        if old in slave:
            notes.at(old).approximated("a silent slave is asked less and less often by itself")
            break
    retries = slave.get("retries")
    values: dict[str, Any] = {"name": name, "connect": connect}
    if isinstance(slave.get("timeout"), int | float) and slave["timeout"] > 0:
        values["timeout"] = duration(float(slave["timeout"]))
        if slave["timeout"] > 5:
            notes.at("timeout").approximated(f"{values['timeout']} is kept, but holds the bus up; 1 s is usual")
    if isinstance(retries, int) and not isinstance(retries, bool):
        values["retries"] = min(retries, 10)
    return {**values, "device": []}


def _device(slave: Mapping[str, Any], notes: Notes) -> dict[str, Any] | None:
    words = _ORDERS.get((_order(slave, "byteOrder"), _order(slave, "wordOrder")), "big")
    values = {
        "device": slave.get("deviceName", "Device").replace("{", "").replace("}", ""), "unit": slave.get("unitId", 1),
        "type": slave.get("deviceType"), "every": milliseconds(slave.get("pollPeriod", 5000)),
        "words": words if words != "big" else "", "report": report_of(slave, notes),
        "telemetry": _points(slave, "timeseries", notes), "attributes": _points(slave, "attributes", notes),
        "rpc": _actions(slave, "rpc", notes), "shared": _actions(slave, "attributeUpdates", notes),
    }  # fmt: skip
    if not values["telemetry"] and not values["attributes"]:
        notes.missing("nothing is read from this slave; left out")
        return None
    return without_empty(values)


def _order(values: Mapping[str, Any], name: str) -> str:
    said = str(values.get(name, "BIG")).upper()
    return said if said in ("BIG", "LITTLE") else "BIG"


def _points(slave: Mapping[str, Any], member: str, notes: Notes) -> list[dict[str, Any]]:
    points = []
    for place, entry in enumerate(tables_of(slave.get(member))):
        where = notes.at(member, place)
        at = _at(entry, where)
        if at is not None and entry.get("tag"):
            points.append(without_empty({"key": entry["tag"], **at, "report": report_of(entry, where)}))
    return points


def _at(entry: Mapping[str, Any], notes: Notes) -> dict[str, Any] | None:
    """`at`, `as` and `scale` of one value."""
    table = _TABLES.get(entry.get("functionCode", 0))
    address = entry.get("address")
    if table is None or not isinstance(address, int):
        notes.missing("only the function codes 1 to 6, 15 and 16, with an address, have an equivalent")
        return None
    count = entry.get("objectsCount") or entry.get("registerCount") or 1
    kind = str(entry.get("type", "")).lower()
    values: dict[str, Any] = {"at": f"{table}:{address}" if count == 1 else f"{table}:{address}-{address + count - 1}"}
    if table not in ("coil", "discrete"):
        values |= _register_type(kind, count, entry, notes)
    if entry.get("divider"):
        values["scale"] = 1 / float(entry["divider"])
    elif entry.get("multiplier"):
        values["scale"] = float(entry["multiplier"])
    if "scale" in values and values.get("as") in ("string", "hex", "bits", None):
        del values["scale"]
    return values


def _register_type(kind: str, count: int, entry: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    if kind in ("bit", "bits"):
        bit = entry.get("bit")
        if isinstance(bit, int):
            return {"bit": bit}
        return {"as": "bits"}
    if kind in _BY_COUNT:
        name = _BY_COUNT[kind]
        bits = 16 * count
        return {"as": f"{name}{bits if bits in (16, 32, 64) else 16}"}
    if kind not in _TYPES:
        notes.approximated("its type is not known here: taken as uint16")
    if kind == "bytes":
        notes.approximated("bytes are read as text")
    return {"as": _TYPES.get(kind, "uint16")}


def _actions(slave: Mapping[str, Any], member: str, notes: Notes) -> dict[str, Any]:
    """Calls or shared attributes, by name."""
    entries = slave.get(member)
    if isinstance(entries, Mapping):  # older files: name to entry
        entries = [{"tag": name, **table_of(one)} for name, one in entries.items()]
    actions: dict[str, Any] = {}
    for place, entry in enumerate(tables_of(entries)):
        where = notes.at(member, place)
        at = _at(entry, where)
        name = entry.get("tag") or entry.get("method")
        if at is None or not name:
            continue
        is_write = entry.get("functionCode") in (5, 6, 15, 16)
        place_in_slave = at.pop("at")
        action = {"write" if is_write else "read": place_in_slave, **at}
        if is_write:
            action["value"] = "$.params" if member == "rpc" else "$.value"
            if entry.get("functionCode") in (15, 16):
                action["multiple"] = True
        elif member != "rpc":
            where.missing("a shared attribute needs a function code that writes (5, 6, 15, 16)")
            continue
        if "value" in entry and is_write:
            where.at("value").approximated("the value comes with the call, not from the configuration")
        actions[str(name)] = action
    return actions
