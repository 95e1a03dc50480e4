"""`tb_gateway.json`: the core, the storage, and what holds for all devices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_gateway.console.thingsboard_import.expressions import duration, report_of
from edge_gateway.console.thingsboard_import.findings import Notes, table_of, without_empty

Sections = dict[str, dict[str, Any]]
_NO_EQUIVALENT = {
    "remoteShell": "a shell from afar is not offered",
    "remoteConfiguration": "the configuration is this file; the core does not write it",
    "latencyDebugMode": "see `edge-gateway status`",
    "handleDeviceRenaming": "renames are always followed",
    "minPackSendDelayMS": "batches are sent as the core acknowledges them",
    "minPackSizeToSend": "batches are sent as the core acknowledges them",
    "maxPayloadSizeBytes": "the core says itself what it takes",
}
_IN_TB = {"remoteShell": False, "latencyDebugMode": False}  # what says nothing when it is so


def convert(document: Mapping[str, Any], folder: Path, notes: Notes) -> Sections:
    """The sections of our configuration."""
    core = table_of(document.get("thingsboard"))
    where = notes.at("thingsboard")
    sections: Sections = {"core": _core(core, folder, where)}
    sections["store"] = _store(table_of(document.get("storage")), notes.at("storage"))
    sections["devices"] = _devices(core, folder, where)
    statistics = table_of(core.get("statistics"))
    if statistics:
        every = float(statistics.get("statsSendPeriodInSeconds", 60)) if statistics.get("enable", True) else 0.0
        sections["statistics"] = {"every": duration(every) if every else "0 s"}
        where.at("statistics").converted("[statistics] every")
    for name, why in _NO_EQUIVALENT.items():
        if name in core and core[name] is not _IN_TB.get(name, ...):
            where.at(name).missing(why)
    if table_of(document.get("grpc")).get("enabled"):
        notes.at("grpc").missing("external connectors are [[plugin]] tables here, which speak JSON lines")
    return {name: values for name, values in sections.items() if values}


def _core(core: Mapping[str, Any], folder: Path, notes: Notes) -> dict[str, Any]:
    security, provisioning = table_of(core.get("security")), table_of(core.get("provisioning"))
    kind = str(security.get("type", "accessToken" if "accessToken" in security else ""))
    is_tls = bool(security.get("caCert")) or kind in ("tlsAccessToken", "tlsPrivateKey")
    host, port = str(core.get("host", "127.0.0.1")), core.get("port", 8883 if is_tls else 1883)
    values: dict[str, Any] = {"url": f"{'mqtts' if is_tls else 'mqtt'}://{host}:{port}"}
    if not is_tls and host not in ("localhost", "127.0.0.1", "::1"):
        values["insecure"] = True
        notes.at("host").approximated("still without TLS (insecure = true): use mqtts:// as soon as the core offers it")
    files = {"ca_file": "caCert", "certificate": "cert", "private_key": "privateKey"}
    values |= {
        ours: str((folder / str(security[theirs])).absolute()) for ours, theirs in files.items() if security.get(theirs)
    }
    values |= without_empty(
        {
            "token": security.get("accessToken"), "username": security.get("username"),
            "password": security.get("password"), "client_id": security.get("clientId"),
        }
    )  # fmt: skip
    if provisioning:
        values["provision"] = without_empty(
            {
                "key": provisioning.get("provisionDeviceKey"), "secret": provisioning.get("provisionDeviceSecret"),
                "name": provisioning.get("deviceName"), "credentials": provisioning.get("type"),
            }
        )  # fmt: skip
        notes.at("provisioning").converted("[core] provision")
    notes.at("security").converted("[core]: address and login")
    return values


def _store(storage: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    kind = str(storage.get("type", "memory"))
    days = storage.get("messages_ttl_in_days")
    if kind == "memory":
        notes.at("type").approximated("readings are always kept on disk here; nothing is lost at a restart")
    elif kind == "file":
        notes.at("type").approximated("one database instead of files; its bound is [store] max_size, 2 GiB")
    else:
        notes.at("type").converted("[store]")
    if kind == "sqlite" and isinstance(days, int | float):
        return {"max_age": f"{days:g} d"}
    return {}


def _devices(core: Mapping[str, Any], folder: Path, notes: Notes) -> dict[str, Any]:
    values: dict[str, Any] = {}
    report = report_of(core, notes)
    if report:
        values["report"] = report
        notes.at("reportStrategy").converted("[devices] report")
    activity = table_of(core.get("checkingDeviceActivity"))
    if activity.get("checkDeviceInactivity"):
        values["inactivity"] = duration(float(activity.get("inactivityTimeoutSeconds", 300)))
        notes.at("checkingDeviceActivity").converted("[devices] inactivity")
    filtering = table_of(core.get("deviceFiltering"))
    if filtering.get("enable"):
        values |= _filters(folder / str(filtering.get("filterFile", "list.json")), notes.at("deviceFiltering"))
    return values


def _filters(path: Path, notes: Notes) -> dict[str, Any]:
    from edge_gateway.console.thingsboard_import.files import read

    document = read(path, notes)
    values: dict[str, Any] = {}
    for name in ("allow", "deny"):
        patterns = [str(one) for several in table_of(document.get(name)).values() for one in several]
        usable = [one for one in patterns if _is_expression(one)]
        if len(usable) < len(patterns):
            notes.at(name).missing("a pattern that is no regular expression was left out")
        if usable:
            values[name] = usable
            notes.at(name).approximated(f"[devices] {name} holds for all connectors, not for one alone")
    return values


def _is_expression(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
