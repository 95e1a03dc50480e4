"""`rest.json`: devices post to the gateway."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from edge_gateway.console.thingsboard_import.expressions import (
    device_and_type,
    json_line,
    lines,
    report_of,
    template,
)
from edge_gateway.console.thingsboard_import.findings import Notes, Table, table_of, tables_of, without_empty


def convert(document: Mapping[str, Any], name: str, notes: Notes) -> list[Table]:
    """One `[[http]]` with `listen`. Logins go into a file beside the configuration."""
    server = table_of(document.get("server")) or document
    mappings = tables_of(document.get("mapping"))
    values: dict[str, Any] = {"name": name, "listen": f"{server.get('host', '127.0.0.1')}:{server.get('port', 8080)}"}
    if server.get("SSL"):
        files = table_of(server.get("security"))
        values |= without_empty({"certificate": files.get("cert"), "private_key": files.get("key")})
    logins = {
        str(login["username"]): str(login.get("password", ""))
        for one in mappings
        if (login := table_of(one.get("security"))).get("username")
    }
    table = Table("http", values)
    _who(table, logins, name, mappings, notes)
    values["map"] = [
        made for place, one in enumerate(mappings) if (made := _map(one, notes.at("mapping", place))) is not None
    ]
    requests = table_of(document.get("requestsMapping")) or document
    for kind, why in (
        ("attributeRequests", "a device asks for its shared attributes itself: GET PATH/attributes"),
        ("attributeUpdates", "a device asks for its shared attributes itself; to call it, use an [[http]] with `url`"),
        ("serverSideRpc", "a device asks for its calls itself (GET PATH/rpc); to call it, use an [[http]] with `url`"),
    ):
        if requests.get(kind):
            notes.at("requestsMapping", kind).missing(why)
    return [table] if values["map"] else []


def _who(table: Table, logins: dict[str, str], name: str, mappings: list[Mapping[str, Any]], notes: Notes) -> None:
    if logins:
        file = f"{name}-users.csv"
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(logins.items())
        table.files[file] = text.getvalue()
        table.values["users"] = file
        notes.at("mapping").approximated(f"the logins are in {file} and hold for all paths")
        if any(table_of(one.get("security")).get("type", "anonymous") == "anonymous" for one in mappings):
            notes.at("mapping").approximated("paths that were open to everybody need a login now")
        return
    table.values["anonymous"] = True
    if not str(table.values["listen"]).startswith(("127.", "localhost")):
        table.values["insecure_lan"] = True
        notes.at("mapping").approximated("open to everybody in the network, as before; better set a token or users")


def _map(mapping: Mapping[str, Any], notes: Notes) -> dict[str, Any] | None:
    converter = table_of(mapping.get("converter"))
    if converter.get("type", "json") != "json":
        notes.at("converter").missing("a converter in Python has no equivalent; map left out")
        return None
    methods = [str(one).upper() for one in mapping.get("HTTPMethods", ["POST"])]
    if "POST" not in methods and "PUT" not in methods:
        notes.at("HTTPMethods").missing("devices send by POST or PUT")
        return None
    if "GET" in methods:
        notes.at("HTTPMethods").approximated("devices send by POST or PUT alone")
    name, _, profile, _ = device_and_type(table_of(converter.get("deviceInfo")), converter)
    timeseries = converter.get("timeseries") or converter.get("telemetry")
    endpoint = "/" + str(mapping.get("endpoint", "")).lstrip("/")
    values = {
        "path": endpoint.replace("<", "{").replace(">", "}"), "device": template(name), "type": template(profile),
        "report": report_of(converter, notes.at("converter")),
        "telemetry": lines(timeseries, notes.at("converter", "timeseries"), json_line),
        "attributes": lines(converter.get("attributes"), notes.at("converter", "attributes"), json_line),
    }  # fmt: skip
    if not values["telemetry"] and not values["attributes"]:
        notes.missing("nothing of it can be read; map left out")
        return None
    notes.converted("[[http.map]]")
    return without_empty(values)
