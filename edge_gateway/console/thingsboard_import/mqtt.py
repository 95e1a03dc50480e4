"""`mqtt.json`: a client of a broker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edge_gateway.console.thingsboard_import.expressions import (
    bytes_at,
    bytes_line,
    device_and_type,
    fits,
    has_place,
    is_everything,
    json_line,
    lines,
    milliseconds,
    path_of,
    plain_name,
    report_of,
    template,
)
from edge_gateway.console.thingsboard_import.findings import Notes, Table, table_of, tables_of, without_empty

_VERSIONS = {3: "3.1.1", 4: "3.1.1", 5: "5"}
_FROM_PAYLOAD = re.compile(r"\{(?:\$|\w+:)")
_MARK = "\ue000"  # stands for a captured segment while an expression is tried; in no topic


def convert(document: Mapping[str, Any], name: str, notes: Notes) -> list[Table]:
    """One `[[mqtt]]` with `connect`."""
    broker = table_of(document.get("broker"))
    values = _broker(broker, name, notes.at("broker"))
    mapping = document.get("mapping") or document.get("dataMapping")
    maps = [_map(one, notes.at("mapping", place)) for place, one in enumerate(tables_of(mapping))]
    made = [one for one in maps if one is not None]
    requests = table_of(document.get("requestsMapping")) or document
    where = notes.at("requestsMapping") if "requestsMapping" in document else notes
    for kind, convert_one in (("serverSideRpc", _rpc), ("attributeUpdates", _shared)):
        for place, request in enumerate(tables_of(requests.get(kind))):
            convert_one(request, made, where.at(kind, place))
    for kind, why in (
        ("connectRequests", "a device is registered by its first message; no topic is needed for it"),
        ("disconnectRequests", "set [devices] inactivity instead"),
        (
            "attributeRequests",
            "use `shared`: changes are published by themselves; retain = true keeps the last",
        ),
    ):
        if requests.get(kind):
            where.at(kind).missing(why)
    if not made:
        return []
    return [Table("mqtt", {**values, "map": [_finished(one) for one in made]})]


def _broker(broker: Mapping[str, Any], name: str, notes: Notes) -> dict[str, Any]:
    security = table_of(broker.get("security"))
    is_tls = any(security.get(one) for one in ("caCert", "pathToCACert", "pathToClientCert"))
    url = f"{'mqtts' if is_tls else 'mqtt'}://{broker.get('host', '127.0.0.1')}:{broker.get('port', 1883)}"
    notes.converted("[[mqtt]] connect and login")
    if broker.get("cleanSession", broker.get("cleanStart")):
        notes.at("cleanSession").approximated("the session is kept, so that nothing is missed meanwhile")
    return without_empty(
        {
            "name": name, "connect": url, "client_id": broker.get("clientId"),
            "version": _VERSIONS.get(broker.get("version", 0), ""),
            "username": security.get("username"), "password": security.get("password"),
            "ca_file": security.get("pathToCACert") or security.get("caCert"),
            "certificate": security.get("pathToClientCert") or security.get("cert"),
            "private_key": security.get("pathToPrivateKey") or security.get("privateKey"),
        }
    )  # fmt: skip


# --- messages -------------------------------------------------------------------------------------


def _map(mapping: Mapping[str, Any], notes: Notes) -> dict[str, Any] | None:
    converter = table_of(mapping.get("converter"))
    kind = str(converter.get("type", "json"))
    if kind not in ("json", "bytes"):
        notes.at("converter").missing("a converter in Python has no equivalent; see `format`, or [[plugin]]")
        return None
    name, name_source, profile, profile_source = device_and_type(table_of(converter.get("deviceInfo")), converter)
    topic = str(mapping.get("topicFilter", ""))
    if not topic:
        notes.at("topicFilter").missing("a map needs a topic; left out")
        return None
    segments = _with_captures(topic)
    device = _expression(name, name_source, segments, kind, notes.at("converter", "deviceInfo"))
    type = _expression(profile, profile_source, segments, kind, notes.at("converter", "deviceInfo"))
    if not device:
        notes.at("converter", "deviceInfo").missing("no device's name can be told from this; map left out")
        return None
    used = set(re.findall(r"\{(\w+)\}", f"{device} {type}"))
    one = json_line if kind == "json" else bytes_line
    values = {
        "topic": _topic(segments, used), "device": device, "type": type or "",
        "format": "bytes" if kind == "bytes" else "",
        "ts": _time(converter) if kind == "json" else "",
        "report": report_of(converter, notes.at("converter")),
        "telemetry": lines(converter.get("timeseries"), notes.at("converter", "timeseries"), one),
        "attributes": lines(converter.get("attributes"), notes.at("converter", "attributes"), one),
    }  # fmt: skip
    if not values["telemetry"] and not values["attributes"]:
        notes.missing("nothing of it can be read; map left out")
        return None
    notes.converted("[[mqtt.map]]")
    return without_empty(values)


def _time(converter: Mapping[str, Any]) -> str:
    """Where the message's own time stands; `ts`, as ThingsBoard's gateway takes it, unless another is named."""
    return path_of(_inner(str(converter["tsField"]))) if converter.get("tsField") else "$.ts"


def _inner(text: str) -> str:
    return text.strip().removeprefix("${").removesuffix("}")


def _with_captures(topic: str) -> list[str]:
    """The segments, each `+` and `#` as a capture: `sensor`, `{p1}`, `data`."""
    count = 0
    segments = []
    for segment in topic.split("/"):
        if segment in ("+", "#"):
            count += 1
            segment = f"{{p{count}{'#' if segment == '#' else ''}}}"
        segments.append(segment)
    return segments


def _topic(segments: list[str], used: set[str]) -> str:
    """Captures that nobody uses are `+` and `#` again."""
    names = [segment.strip("{}#") for segment in segments]
    return "/".join(
        segment if name in used or not segment.startswith("{") else "#" if segment.endswith("#}") else "+"
        for segment, name in zip(segments, names, strict=True)
    )


def _expression(text: str, source: str, segments: list[str], kind: str, notes: Notes) -> str | None:
    """A template for the device's name or type."""
    if source == "constant":
        return text
    if source == "topic":
        return _from_topic(text, segments, notes)
    if kind == "bytes":
        at = bytes_at(text)
        return f"{{{at}}}" if at else text if "[" not in text else None
    return template(text)


def _from_topic(expression: str, segments: list[str], notes: Notes) -> str | None:
    """Tries the expression on a topic whose captured segments are marks: what it picks is the template."""
    captured = [segment for segment in segments if segment.startswith("{")]
    marks = {segment: f"{_MARK}{number}" for number, segment in enumerate(captured)}
    sample = "/".join(marks.get(segment, segment) for segment in segments)
    try:
        found = re.search(expression, sample)
    except re.error:
        found = None
    picked = None if found is None else found[found.lastindex] if found.lastindex else found[0]
    if not picked:
        return None
    for segment, mark in marks.items():
        picked = picked.replace(mark, segment.replace("#}", "}"))
    if _MARK in picked:
        return None
    notes.converted("the expression on the topic is a capture in the topic")
    return picked


# --- the way back ---------------------------------------------------------------------------------


def _reachable(pattern: str, maps: list[dict[str, Any]], text: str) -> list[tuple[dict[str, Any], str]]:
    """Maps whose devices `pattern` may mean, each with what stands for the device's name in topics."""
    found = []
    for one in maps:
        device = str(one["device"])
        if is_everything(pattern) or "{" in device or fits(pattern, device):
            if _FROM_PAYLOAD.search(device) and "${deviceName}" in text:
                continue  # a name that only the payload tells cannot stand in a topic
            found.append((one, device))
    return found


def _rpc(request: Mapping[str, Any], maps: list[dict[str, Any]], notes: Notes) -> None:
    method = plain_name(str(request.get("methodFilter", "")))
    topic, reply = str(request.get("requestTopicExpression", "")), str(request.get("responseTopicExpression", ""))
    targets = _reachable(str(request.get("deviceNameFilter", ".*")), maps, topic + reply)
    if method is None or not topic or not targets:
        why = "the method must be one name" if method is None else "no map tells which topics its devices have"
        notes.missing(f"{why}; write rpc.METHOD = {{ publish = …, body = … }} into the map")
        return
    for one, device in targets:
        known = {"deviceName": device, "methodName": "{method}", "requestId": "{id}"}
        call = {
            "publish": template(topic, known),
            "body": _body(str(request.get("valueExpression", "")), "params", device),
        }
        if reply:
            call["reply"] = template(reply, known)
            if request.get("responseTimeout"):
                call["timeout"] = milliseconds(request["responseTimeout"])
        one.setdefault("rpc", {})[method] = without_empty(call)
    notes.converted(f"rpc.{method}")


def _body(expression: str, member: str, device: str) -> str:
    whole = {"${params}": "$.params", "${attributeValue}": "$.value"}
    if expression.strip() in whole:
        return whole[expression.strip()]
    known = {"deviceName": device, "attributeKey": "{key}", "attributeValue": "{$.value}", "params": "{$.params}"}
    if not has_place(expression):
        return expression or f"$.{member}"
    return template(expression, known)


def _shared(request: Mapping[str, Any], maps: list[dict[str, Any]], notes: Notes) -> None:
    topic, pattern = str(request.get("topicExpression", "")), str(request.get("attributeFilter", ".*"))
    key = plain_name(pattern)
    targets = _reachable(str(request.get("deviceNameFilter", ".*")), maps, topic)
    targets = [(one, device) for one, device in targets if "shared" not in one]
    if not topic or not targets or (key is None and not is_everything(pattern)):
        notes.missing("a map has one `shared`, with a list of keys; put the others into its topic by {key}")
        return
    for one, device in targets:
        known = {"deviceName": device, "attributeKey": "{key}"}
        one["shared"] = without_empty(
            {
                "publish": template(topic, known), "retain": bool(request.get("retain")) or None,
                "body": _body(str(request.get("valueExpression", "")), "value", device),
                "keys": [key] if key else [],
            }
        )  # fmt: skip
    notes.converted("shared")


def _finished(one: dict[str, Any]) -> dict[str, Any]:
    """Maps of a topic with one capture call it `device`, which reads better."""
    if "{p2}" in str(one) or "p2#" in str(one["topic"]):
        return one
    return {name: _renamed(value) for name, value in one.items()}


def _renamed(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("{p1}", "{name}").replace("{p1#}", "{name#}")
    if isinstance(value, dict):
        return {name: _renamed(member) for name, member in value.items()}
    return [_renamed(element) for element in value] if isinstance(value, list) else value
