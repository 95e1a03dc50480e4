"""`request.json`: the gateway asks devices over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edge_gateway.console.thingsboard_import.expressions import (
    device_and_type,
    duration,
    fits,
    has_place,
    is_everything,
    json_line,
    lines,
    plain_name,
    report_of,
    template,
)
from edge_gateway.console.thingsboard_import.findings import Notes, Table, table_of, tables_of, without_empty


def convert(document: Mapping[str, Any], name: str, notes: Notes) -> list[Table]:
    """One `[[http]]` whose maps have a `url`."""
    host = str(document.get("host", "http://127.0.0.1"))
    host = host if "://" in host else f"http://{host}"
    security = table_of(document.get("security"))
    login = without_empty({"username": security.get("username"), "password": security.get("password")})
    maps = [
        made
        for place, one in enumerate(tables_of(document.get("mapping")))
        if (made := _map(one, host, login, notes.at("mapping", place))) is not None
    ]
    for kind, convert_one in (("serverSideRpc", _rpc), ("attributeUpdates", _shared)):
        for place, request in enumerate(tables_of(document.get(kind))):
            convert_one(request, maps, host, notes.at(kind, place))
    values: dict[str, Any] = {"name": name}
    if document.get("SSLVerify") is False and host.startswith("https"):
        values["insecure"] = True
        notes.at("SSLVerify").approximated("certificates are still not verified (insecure = true): set ca_file instead")
    return [Table("http", {**values, "map": maps})] if maps else []


def _url(host: str, path: str) -> str:
    return path if "://" in path else f"{host.rstrip('/')}/{path.lstrip('/')}"


def _map(mapping: Mapping[str, Any], host: str, login: dict[str, Any], notes: Notes) -> dict[str, Any] | None:
    converter = table_of(mapping.get("converter"))
    if converter.get("type", "json") != "json":
        notes.at("converter").missing("a converter in Python has no equivalent; map left out")
        return None
    if mapping.get("subRequests"):
        notes.at("subRequests").missing("requests that follow another have no equivalent; their keys stay empty")
    if mapping.get("dataUnpackExpression"):
        notes.at("dataUnpackExpression").missing("Python expressions are not evaluated; see `each`")
    name, _, profile, _ = device_and_type(table_of(converter.get("deviceInfo")), converter)
    method = str(mapping.get("httpMethod", "GET")).upper()
    content = mapping.get("content")
    values = {
        "url": _url(host, str(mapping.get("url", ""))), "device": template(name), "type": template(profile),
        "every": duration(float(mapping.get("scanPeriod", 60))),
        "timeout": duration(max(0.1, float(mapping.get("timeout", 10)))),
        "method": method if method != "GET" else "", "headers": dict(table_of(mapping.get("httpHeaders"))),
        "body": json.dumps(content) if content and method != "GET" else "", "auth": login,
        "report": report_of(converter, notes.at("converter")),
        "telemetry": lines(
            converter.get("telemetry") or converter.get("timeseries"), notes.at("converter", "telemetry"), json_line
        ),
        "attributes": lines(converter.get("attributes"), notes.at("converter", "attributes"), json_line),
    }  # fmt: skip
    if content and method == "GET":
        notes.at("content").missing("a GET has no body")
    if not values["telemetry"] and not values["attributes"]:
        notes.missing("nothing of it can be read; map left out")
        return None
    notes.converted("[[http.map]]")
    return without_empty(values)


def _targets(request: Mapping[str, Any], maps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pattern = str(request.get("deviceNameFilter", ".*"))
    return [one for one in maps if is_everything(pattern) or "{" in one["device"] or fits(pattern, one["device"])]


def _request(request: Mapping[str, Any], one: dict[str, Any], host: str, member: str, method: str) -> dict[str, Any]:
    known = {"deviceName": "{device}", "methodName": method, "requestId": "1", "attributeKey": "{key}"}
    how = str(request.get("httpMethod") or request.get("HTTPMethod") or "POST").upper()
    expression = str(request.get("requestValueExpression") or request.get("valueExpression") or "")
    answer = str(request.get("responseValueExpression") or "")
    body = "$." + member if expression in ("${params}", "${attributeValue}") else ""
    if expression and not body:
        body = template(expression, {**known, "params": "{$.params}", "attributeValue": "{$.value}"})
    return without_empty(
        {
            "url": template(_url(host, str(request.get("requestUrlExpression", ""))), known),
            "method": how if how != "POST" else "", "body": body if how != "GET" else "",
            "headers": dict(table_of(request.get("httpHeaders"))),
            "timeout": duration(float(request.get("responseTimeout") or request.get("timeout") or 10)),
            "answer": "$." + answer.strip().removeprefix("${").removesuffix("}") if has_place(answer) else "",
        }
    )  # fmt: skip


def _rpc(request: Mapping[str, Any], maps: list[dict[str, Any]], host: str, notes: Notes) -> None:
    method = plain_name(str(request.get("methodFilter", "")))
    url = str(request.get("requestUrlExpression", ""))
    targets = _targets(request, maps)
    if method is None or not targets:
        why = "the method must be one name" if method is None else "no map has such devices"
        notes.missing(f"{why}; write rpc.METHOD = {{ url = …, body = … }} into the map")
        return
    for one in targets:
        one.setdefault("rpc", {})[method] = _request(request, one, host, "params", method)
    if "${requestId}" in url:
        notes.at("requestUrlExpression").approximated("calls have no number here; 1 stands in its place")
    notes.converted(f"rpc.{method}")


def _shared(request: Mapping[str, Any], maps: list[dict[str, Any]], host: str, notes: Notes) -> None:
    pattern = str(request.get("attributeFilter", ".*"))
    key = plain_name(pattern)
    targets = [one for one in _targets(request, maps) if "shared" not in one]
    if not targets or (key is None and not is_everything(pattern)):
        notes.missing("a map has one `shared`, with a list of keys")
        return
    for one in targets:
        one["shared"] = _request(request, one, host, "value", "") | ({"keys": [key]} if key else {})
    notes.converted("shared")
