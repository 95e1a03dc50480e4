"""`edge-gateway import-thingsboard`: the samples of the real package, and each rule."""

from __future__ import annotations

import json
import shutil
import stat
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edge_gateway.config import load
from edge_gateway.console.thingsboard_import import converted, modbus, mqtt, opcua, request, rest, socket, text_of
from edge_gateway.console.thingsboard_import.expressions import bytes_at, path_of, plain_name, report_of, template
from edge_gateway.console.thingsboard_import.findings import Fate, Note, Notes
from tests.support.gateway_console import GatewayConsole, available_kinds

SECRETS = ["TB-ACCESS-TOKEN", "TB-MQTT-PASSWORD", "TB-KEY", "TB-SECRET", "TB-REST-PASSWORD"]


def samples() -> Path:
    found = find_spec("thingsboard_gateway")
    if found is None or not found.submodule_search_locations:
        pytest.skip("thingsboard-gateway is not installed (extra `test`)", allow_module_level=True)
    return Path(found.submodule_search_locations[0]) / "config"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The package's samples, as a site would have them."""
    made = tmp_path / "tb"
    made.mkdir()
    for kind in ("tb_gateway", "mqtt", "modbus", "opcua", "rest", "request", "socket", "list"):
        shutil.copy(samples() / f"{kind}.json", made / f"{kind}.json")
    return made


def change(path: Path, work: Any) -> None:
    document = json.loads(path.read_text())
    work(document)
    path.write_text(json.dumps(document))


def test_the_packages_own_samples_become_a_configuration(folder: Path, tmp_path: Path) -> None:
    """All six connectors, private, without a problem for the kinds that are there, and every loss is named."""
    console = GatewayConsole(tmp_path)
    result = console("import-thingsboard", str(folder), "--json")
    shown = json.loads(result.stdout)
    assert stat.S_IMODE(console.config.stat().st_mode) == 0o600
    document = tomllib.loads(console.config.read_text())
    assert {"core", "mqtt", "modbus", "opcua", "http", "line"} <= set(document)
    unknown = {"modbus", "opcua", "line"} - set(available_kinds())
    assert [one for one in shown["problems"] if not any(f"[{kind}]" in one for kind in unknown)] == []
    lost = {(note["file"], note["key"]) for note in shown["notes"] if note["fate"] == "no equivalent"}
    assert ("mqtt.json", "mapping[3].converter") in lost
    assert ("modbus.json", "slave") in lost
    assert ("request.json", "mapping[1].converter") in lost
    assert ("socket.json", "devices[0].serverSideRpc") in lost


@pytest.mark.parametrize("file", sorted(path.name for path in samples().glob("*.json")))
def test_no_sample_breaks_a_converter(file: str) -> None:
    """Whatever file is taken for whatever kind: notes, never an exception, and TOML that can be read."""
    document = json.loads((samples() / file).read_text())
    for convert in (mqtt.convert, modbus.convert, opcua.convert, rest.convert, request.convert, socket.convert):
        tables = convert(document if isinstance(document, dict) else {}, "x", Notes(file, []))
        assert len(tomllib.loads(text_of({}, tables))) <= 1


def test_secrets_are_in_the_file_alone(folder: Path, tmp_path: Path) -> None:
    """Nothing of them on stdout or stderr, in text or JSON."""

    def gateway(document: Any) -> None:
        document["thingsboard"]["security"] = {"type": "accessToken", "accessToken": "TB-ACCESS-TOKEN"}
        document["thingsboard"]["provisioning"] = {"provisionDeviceKey": "TB-KEY", "provisionDeviceSecret": "TB-SECRET"}

    def broker(document: Any) -> None:
        document["broker"]["security"] = {"type": "basic", "username": "u", "password": "TB-MQTT-PASSWORD"}

    def login(document: Any) -> None:
        document["mapping"][0]["security"] = {"type": "basic", "username": "u", "password": "TB-REST-PASSWORD"}

    change(folder / "tb_gateway.json", gateway)
    change(folder / "mqtt.json", broker)
    change(folder / "rest.json", login)
    console = GatewayConsole(tmp_path)
    outputs = [console("import-thingsboard", str(folder), *more, "--force").output for more in ([], ["--json"])]
    assert not any(secret in output for secret in SECRETS for output in outputs)
    written = console.config.read_text() + (tmp_path / "rest-users.csv").read_text()
    assert all(secret in written for secret in SECRETS)
    assert stat.S_IMODE((tmp_path / "rest-users.csv").stat().st_mode) == 0o600


def test_the_list_of_connectors_decides(folder: Path) -> None:
    """Names come from there; kinds that are not converted are named; no path leads out of the folder."""
    listed = [
        {"name": "Hall", "type": "mqtt", "configuration": "mqtt.json"},
        {"name": "Bus", "type": "bacnet", "configuration": "bacnet.json"},
        {"name": "Out", "type": "mqtt", "configuration": "../mqtt.json"},
    ]
    change(folder / "tb_gateway.json", lambda document: document.update(connectors=listed))
    notes: list[Note] = []
    _, tables = converted(folder, notes)
    assert [table.values["name"] for table in tables] == ["Hall"]
    lost = {note.key for note in notes if note.fate is Fate.MISSING and note.file == "tb_gateway.json"}
    assert {"connectors[1]", "connectors[2]"} <= lost


def test_a_configuration_that_is_there_is_kept(folder: Path, tmp_path: Path) -> None:
    """Exit 4; an empty folder exits 2."""
    console = GatewayConsole(tmp_path)
    console.write("# mine\n")
    assert console("import-thingsboard", str(folder)).exit_code == 4
    assert console.config.read_text() == "# mine\n"
    (tmp_path / "empty").mkdir()
    assert console("import-thingsboard", str(tmp_path / "empty"), "--force").exit_code == 2


def test_a_broken_file_is_a_note(folder: Path) -> None:
    """The rest is converted all the same."""
    (folder / "mqtt.json").write_text("{ not json")
    notes: list[Note] = []
    _, tables = converted(folder, notes)
    assert "mqtt" not in {table.kind for table in tables} and "modbus" in {table.kind for table in tables}
    assert any("mqtt.json cannot be read" in note.text for note in notes)


def test_a_file_of_odd_types_is_a_note(folder: Path) -> None:
    """A text where a number belongs."""
    change(folder / "modbus.json", lambda document: document["master"]["slaves"][0].update(pollPeriod="soon"))
    notes: list[Note] = []
    _, tables = converted(folder, notes)
    assert "modbus" not in {table.kind for table in tables}
    assert any(note.file == "modbus.json" and "ValueError" in note.text for note in notes)


# --- the core -------------------------------------------------------------------------------------


def test_the_gateways_own_file_becomes_sections(folder: Path, tmp_path: Path) -> None:
    """Address, login, inactivity, filters, statistics, report strategy."""

    def work(document: Any) -> None:
        core = document["thingsboard"]
        core |= {"host": "core.example.com", "port": 8883}
        core["security"] = {"type": "tlsAccessToken", "accessToken": "t", "caCert": "ca.pem"}
        core["reportStrategy"] = {"type": "ON_CHANGE_OR_REPORT_PERIOD", "reportPeriod": 60000}
        core["checkingDeviceActivity"] = {"checkDeviceInactivity": True, "inactivityTimeoutSeconds": 300}
        core["deviceFiltering"] = {"enable": True, "filterFile": "list.json"}
        document["storage"] = {"type": "sqlite", "messages_ttl_in_days": 14}

    change(folder / "tb_gateway.json", work)
    notes: list[Note] = []
    sections, _ = converted(folder, notes)
    path = tmp_path / "gateway.toml"
    path.write_text(text_of(sections, []))
    config = load(path, {}, kinds=available_kinds())
    assert (config.core.url, config.core.token) == ("mqtts://core.example.com:8883", "t")
    assert config.core.ca_file == str(folder / "ca.pem")
    assert (config.store.max_age, config.devices.inactivity) == (14 * 86_400, 300)
    assert config.devices.report == "change | 60 s"
    assert "My Modbus Device" in config.devices.deny


# --- connectors -----------------------------------------------------------------------------------


def one_map(mapping: dict[str, Any]) -> dict[str, Any]:
    (table,) = mqtt.convert({"broker": {}, "mapping": [mapping]}, "x", Notes("mqtt.json", []))
    (made,) = table.values["map"]
    return dict(made)


def test_an_expression_on_the_topic_becomes_a_capture() -> None:
    """The unused wildcards stay."""
    info = {
        "deviceNameExpressionSource": "topic", "deviceNameExpression": "(?<=sensor/)(.*?)(?=/data)",
        "deviceProfileExpressionSource": "constant", "deviceProfileExpression": "Thermometer",
    }  # fmt: skip
    converter = {"type": "json", "deviceInfo": info, "timeseries": [{"type": "double", "key": "t", "value": "${temp}"}]}
    made = one_map({"topicFilter": "sensor/+/data", "converter": converter})
    assert (made["topic"], made["device"], made["type"]) == ("sensor/{name}/data", "{name}", "Thermometer")
    assert made["telemetry"] == ["$.temp -> t: float"]
    made = one_map({"topicFilter": "+/sensor/+/data", "converter": converter})
    assert (made["topic"], made["device"]) == ("+/sensor/{p2}/data", "{p2}")


def test_calls_and_shared_attributes_go_into_the_maps_of_their_devices(folder: Path) -> None:
    """With the topics that the device's captures fill in."""
    document = json.loads((folder / "mqtt.json").read_text())
    (table,) = mqtt.convert(document, "x", Notes("mqtt.json", []))
    by_topic = {one["topic"]: one for one in table.values["map"]}
    assert by_topic["sensor/{name}/data"]["rpc"]["getRelay"] == {
        "publish": "sensor/{name}/request/{method}/{id}", "body": "$.params",
        "reply": "sensor/{name}/response/{method}/{id}", "timeout": "10 s",
    }  # fmt: skip
    assert by_topic["data/"]["shared"] == {
        "publish": "sensor/request/setRelay",
        "body": "$.value",
        "keys": ["relay"],
    }


def test_modbus_places_types_orders_and_factors(folder: Path) -> None:
    """Function codes become tables, a divider a factor, the orders of bytes and words one word."""
    document = json.loads((folder / "modbus.json").read_text())
    slave = document["master"]["slaves"][0]
    slave["timeseries"].append({"tag": "e", "type": "32float", "functionCode": 4, "objectsCount": 2, "address": 10})
    (table,) = modbus.convert(document, "plant", Notes("modbus.json", []))
    (device,) = table.values["device"]
    assert table.values["connect"] == "tcp://127.0.0.1:5021"
    assert (device["unit"], device["every"], device["words"]) == (1, "1 s", "big-swapped")
    assert device["telemetry"][0] == {"key": "temperature", "at": "holding:0", "as": "int16", "scale": 0.1}
    assert device["telemetry"][2] == {"key": "relay", "at": "coil:1"}
    assert device["telemetry"][3] == {"key": "e", "at": "input:10-11", "as": "float32"}
    assert device["rpc"] == {"setRelay": {"write": "coil:1", "value": "$.params"}, "getRelay": {"read": "coil:1"}}
    assert device["shared"] == {"relay": {"write": "coil:1", "value": "$.value"}}


def test_modbus_slaves_of_one_line_share_a_table() -> None:
    """Two would fight for the port."""
    slave = {
        "type": "serial", "method": "rtu", "port": "/dev/ttyS1", "baudrate": 9600, "parity": "E", "unitId": 1,
        "deviceName": "a", "timeseries": [{"tag": "t", "type": "16int", "functionCode": 3, "address": 0}],
    }  # fmt: skip
    document = {"master": {"slaves": [slave, {**slave, "unitId": 2, "deviceName": "b"}]}}
    (table,) = modbus.convert(document, "bus", Notes("modbus.json", []))
    assert table.values["connect"] == "serial:///dev/ttyS1?baud=9600&parity=E"
    assert [device["unit"] for device in table.values["device"]] == [1, 2]


def test_opcua_paths_lose_their_regular_expressions(folder: Path) -> None:
    """The root is a path, keys are relative to it, methods and writes are kept."""
    document = json.loads((folder / "opcua.json").read_text())
    (table,) = opcua.convert(document, "press", Notes("opcua.json", []))
    (device,) = table.values["device"]
    assert (device["root"], table.values["every"]) == ("Objects/MyObject", "5 s")
    assert device["telemetry"][0] == "Temperature -> temperature"
    assert device["shared"] == {"relay": {"write": "Relay", "value": "$.value"}}
    assert device["rpc"]["multiply"] == {"method": "multiply", "args": [2, 4]}


def test_rest_and_request_become_http(folder: Path) -> None:
    """Devices that post, and devices that are asked."""
    (table,) = rest.convert(json.loads((folder / "rest.json").read_text()), "rest", Notes("rest.json", []))
    assert (table.values["listen"], table.values["anonymous"]) == ("127.0.0.1:5000", True)
    assert table.values["map"][0]["device"] == "{$.sensorName}"
    (table,) = request.convert(json.loads((folder / "request.json").read_text()), "ask", Notes("request.json", []))
    first, second = table.values["map"]
    assert (first["url"], first["every"], first["timeout"]) == ("http://127.0.0.1:5000/getdata", "5 s", "500 ms")
    assert first["auth"] == {"username": "user", "password": "password"}
    assert first["telemetry"][1] == "{$.Developer}:{$.hum} -> combine: string"
    assert second["device"] == "{$.id}-{$.type}"
    assert first["rpc"]["echo"]["answer"] == "$.temp"


def test_socket_becomes_a_line(folder: Path) -> None:
    """Ranges of bytes, the end open."""
    (table,) = socket.convert(json.loads((folder / "socket.json").read_text()), "s", Notes("socket.json", []))
    assert table.values["listen"] == "tcp://127.0.0.1:50000"
    assert table.values["map"][0]["telemetry"] == ["bytes:0- -> temp: string", "bytes:0-1 -> hum: string"]


# --- expressions ----------------------------------------------------------------------------------


def test_expressions() -> None:
    """Paths, templates, slices, names in regular expressions, strategies."""
    assert [path_of(name) for name in ("a", "a.b[0]", "$.x", "with blank")] == [
        "$.a", "$.a.b[0]", "$.x", "$['with blank']",
    ]  # fmt: skip
    assert template("${id}-${deviceName}", {"deviceName": "{name}"}) == "{$.id}-{name}"
    assert [bytes_at(text) for text in ("[0:4]", "[4:]", "[7]", "[:]", "x", "[4:2]")] == [
        "bytes:0-3", "bytes:4-", "bytes:7", "bytes:0-", None, None,
    ]  # fmt: skip
    assert [plain_name(text) for text in ("setRelay", "^a-b$", ".*", "a|b", "")] == [
        "setRelay", "a-b", None, None, None,
    ]  # fmt: skip
    notes = Notes("f", [])
    assert report_of({"reportStrategy": {"type": "ON_REPORT_PERIOD", "reportPeriod": 500}}, notes) == "500 ms"
    assert report_of({"sendDataOnlyOnChange": True}, notes) == "change"
    assert (report_of({"reportStrategy": {"type": "ODD"}}, notes), notes.all[0].fate) == ("", Fate.MISSING)
