"""The configuration: what it reads, what it says of mistakes, what it hides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from edge_gateway.config import Config, ConfigError, ConfigProblem, load, shown
from edge_gateway.config.explaining import explain
from edge_gateway.connectors.interface import ConnectorKind, Settings
from edge_gateway.mapping.compiling import check_map
from edge_gateway.mapping.interface import MapSettings
from edge_gateway.mapping.patterns import compile_pattern
from edge_gateway.model import Problem
from edge_gateway.settings import Duration, Size


class MqttMap(MapSettings, kw_only=True, forbid_unknown_fields=True):
    topic: str
    shared: dict[str, Any] = msgspec.field(default_factory=dict)
    rpc: dict[str, Any] = msgspec.field(default_factory=dict)


class Mqtt(Settings, kw_only=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:1883"
    users: str = ""
    map: list[MqttMap] = msgspec.field(default_factory=list)


class Point(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    key: str
    at: str
    as_: str = msgspec.field(name="as", default="uint16")
    words: str = "big"
    scale: float = 1.0
    report: str = ""
    every: Duration | None = None


class Unit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    unit: int
    device: str
    type: str = ""
    telemetry: list[str | Point] = msgspec.field(default_factory=list)
    attributes: list[str | Point] = msgspec.field(default_factory=list)
    rpc: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)


class Modbus(Settings, kw_only=True, forbid_unknown_fields=True):
    connect: str
    every: Duration = 10.0
    timeout: Duration = 1.0
    buffer: Size = 1024
    parity: Literal["even", "odd", "none"] = "none"
    password: str = ""
    retries: int = 3
    device: list[Unit] = msgspec.field(default_factory=list)


def check_mqtt(settings: Mqtt) -> list[Problem]:
    return [
        Problem(("map", place, *problem.path), problem.text)
        for place, one in enumerate(settings.map)
        for problem in check_map(one, compile_pattern(one.topic).captures)
    ]


def check_modbus(settings: Modbus) -> list[Problem]:
    if settings.connect.startswith(("tcp://", "serial://")):
        return []
    return [Problem(("connect",), f"'{settings.connect}' is no address (password was {settings.password})")]


def build(settings: Any, site: Any) -> Any:
    raise AssertionError("reading the configuration builds nothing")


KINDS = {
    "mqtt": ConnectorKind(name="mqtt", settings=Mqtt, build=build, check=check_mqtt),
    "modbus": ConnectorKind(name="modbus", settings=Modbus, build=build, check=check_modbus),
}

EXAMPLE = """[core]
url       = "mqtts://core.example.com:8883"
provision = { key = "${PROVISION_KEY}", secret = "file:secret", name = "gw-{serial}" }

[store]
path = "/var/lib/edge/queue.db"
max_size = "2 GiB"
max_age = "30 d"
when_full = "drop-oldest"
live_share = 0.5

[[mqtt]]
name = "hall"
listen = "0.0.0.0:1883"
users = "sub-devices.csv"
  [[mqtt.map]]
  topic = "site/{line}/{unit}/data"
  device = "{line}-{unit}"
  type = "boiler"
  ts = "$.time"
  telemetry = ["$.temp -> temperature", "$.hum -> humidity: float", "$.io.* -> io_{key}: bool"]
  attributes = ["$.fw -> firmware"]
  shared = { publish = "site/{line}/{unit}/set/{key}", retain = true }
  rpc.setSpeed = { publish = "site/{line}/{unit}/cmd", body = "$.params", timeout = "5 s" }

[[modbus]]
name = "plant"
connect = "tcp://10.0.0.20:502"
every = "5 s"
timeout = "800 ms"
  [[modbus.device]]
  unit = 3
  device = "meter-{unit}"
  type = "energy-meter"
  telemetry = [
    { key = "power", at = "holding:100", as = "float32", words = "big", scale = 0.1, report = "change 0.5 | 1 min" },
    { key = "alarm", at = "coil:7", every = "1 s", report = "change" },
  ]
  attributes = [{ key = "serial", at = "holding:0-7", as = "string", every = "1 d" }]
  rpc.setLimit = { write = "holding:200", as = "uint16", value = "$.params.limit" }
"""
ENVIRONMENT = {"PROVISION_KEY": "the-provision-key"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("the-provision-secret\n")
    return tmp_path


def read(folder: Path, text: str, environment: Mapping[str, str] = ENVIRONMENT) -> Config:
    path = folder / "gateway.toml"
    path.write_text(text)
    return load(path, environment, kinds=KINDS)


def mistakes(folder: Path, text: str, environment: Mapping[str, str] = ENVIRONMENT) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, environment)
    return caught.value.problems


def told(folder: Path, text: str, environment: Mapping[str, str] = ENVIRONMENT) -> list[tuple[int, str]]:
    return [(problem.line, problem.text) for problem in mistakes(folder, text, environment)]


# --- reading -------------------------------------------------------------------------------------


def test_the_example_of_the_manual(folder: Path) -> None:
    """Sections, connectors, units and secrets."""
    config = read(folder, EXAMPLE)
    assert config.core.provision is not None
    assert (config.core.provision.key, config.core.provision.secret) == ("the-provision-key", "the-provision-secret")
    assert (config.store.max_size, config.store.max_age) == (2 * 1024**3, 2_592_000)
    assert [(table.kind, table.name, table.line) for table in config.connectors] == [
        ("mqtt", "hall", 12), ("modbus", "plant", 26),
    ]  # fmt: skip
    modbus = config.connectors[1].settings
    assert (modbus.every, modbus.timeout, modbus.device[0].telemetry[1].every) == (5.0, 0.8, 1.0)
    assert modbus.device[0].telemetry[0].as_ == "float32"
    assert config.hints == ()


def test_defaults_without_a_file() -> None:
    """Everything has a default; that nobody logs in is a hint."""
    config = load(None, {}, kinds=KINDS)
    assert (config.core.url, config.connectors) == ("mqtt://127.0.0.1:1883", ())
    assert [hint.text for hint in config.hints] == [
        "[core]: says neither token, username, certificate nor provision; only credentials kept from before can be used"
    ]


def test_the_environment_wins(folder: Path) -> None:
    """Units, numbers, lists and inner tables too."""
    config = read(
        folder,
        EXAMPLE,
        {
            **ENVIRONMENT,
            "EDGE_GATEWAY__STORE__MAX_SIZE": "1 GiB",
            "EDGE_GATEWAY__LOCAL__PORT": "9000",
            "EDGE_GATEWAY__LOCAL__ENABLED": "no",
            "EDGE_GATEWAY__DEVICES__DENY": "a.*, b",
            "EDGE_GATEWAY__CORE__PROVISION__NAME": "mine",
            "EDGE_GATEWAY__DATA_DIR": "/data",
        },
    )
    assert (config.store.max_size, config.local.port, config.local.enabled) == (1024**3, 9000, False)
    assert config.devices.deny == ["a.*", "b"]
    assert config.core.provision is not None
    assert (config.core.provision.name, config.core.provision.key) == ("mine", "the-provision-key")


def test_equal_tables_compare_equal(folder: Path) -> None:
    """A reload restarts nothing that did not change, and what did although only a secret's file is new."""
    one, same = read(folder, EXAMPLE), read(folder, "# moved down\n" + EXAMPLE)
    assert [table.raw for table in one.connectors] == [table.raw for table in same.connectors]
    secret = EXAMPLE.replace('users = "sub-devices.csv"', 'users = "file:secret"')
    before = read(folder, secret)
    (folder / "secret").write_text("another")
    assert before.connectors[0].raw != read(folder, secret).connectors[0].raw


# --- mistakes ------------------------------------------------------------------------------------


def changed(old: str, new: str) -> str:
    assert old in EXAMPLE
    return EXAMPLE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (changed('timeout = "800 ms"', 'timout = "1 s"'), 30,
         "[[modbus]] plant: unknown key 'timout'; did you mean 'timeout'?"),
        (changed("unit = 3", 'unit = "3"'), 32,
         "[[modbus]] plant: device 1, unit: must be a whole number (without quotes), not a text"),
        (changed('as = "float32"', 'ass = "float32"'), 36,
         "[[modbus]] plant: device 1, telemetry 1: unknown key 'ass'; did you mean 'as'?"),
        (changed('every = "5 s"', 'every = "5 parsecs"'), 29,
         "[[modbus]] plant: every: '5 parsecs' is no duration; write a number with ms, s, min, h or d, such as "
         '"800 ms", "5 s", "1 min" or "30 d"'),
        (changed('every = "1 s"', "every = true"), 37,
         "[[modbus]] plant: device 1, telemetry 2, every: must be a duration, not true or false"),
        (changed('connect = "tcp://10.0.0.20:502"', ""), 26,
         "[[modbus]] plant: 'connect' is missing; add connect = \"…\""),
        (changed('"$.temp -> temperature"', '"$.temp"'), 21,
         "[[mqtt]] hall: map 1, telemetry 1: '$.temp' names no key; write \"path -> key\", such as \"$.temp -> temp\""),
        (changed('"$.temp -> temperature"', "7"), 21,
         '[[mqtt]] hall: map 1, telemetry 1: must be a text in quotes ("…") or a table ({ key = value }), '
         "not a whole number"),
        (changed('"{line}-{unit}"', '"{lien}"'), 18,
         "[[mqtt]] hall: map 1, device: '{lien}' in '{lien}' is not captured by anything; did you mean 'line'?"),
        (changed("[store]", "[stroe]"), 5, "unknown section [stroe]; did you mean 'store'?"),
        (changed("[[modbus]]", "[[modbuss]]").replace("[[modbus.device]]", "[[modbuss.device]]"), 26,
         "unknown section [modbuss]; did you mean 'modbus'?"),
        (changed('name = "plant"', 'name = "hall"'), 26,
         "[[modbus]] hall: the name 'hall' is that of [[mqtt]] (line 12); names are unique"),
        (changed("mqtts://", "mqtt://"), 2,
         "[core] url: mqtt:// sends credentials and data unprotected to another machine; use mqtts://, or allow it by "
         "insecure = true"),
        (changed("mqtts://core.example.com:8883", "core.example.com"), 2,
         '[core] url: must be such as "mqtts://core.example.com:8883" (or mqtt:// without TLS)'),
        (changed('"drop-oldest"', '"drop-newest"'), 9,
         "[store] when_full: 'drop-newest' is none of drop-oldest, refuse; did you mean 'drop-oldest'?"),
        (changed("live_share = 0.5", "live_share = 5"), 10, "[store] live_share: must be from 0 to 1, not 5.0"),
        (changed("live_share = 0.5", "commit_ms = 50"), 10, "[store] commit_ms: must be from 0 to 20, not 50"),
        (changed('max_size = "2 GiB"', 'max_size = "big"'), 7,
         "[store] max_size: 'big' is no size; write a number with B, KiB, MiB, GiB, TiB (or kB, MB, GB, TB), such as "
         '"64 KiB" or "2 GiB"'),
        (changed("${PROVISION_KEY}", "${PROVISON_KEY}"), 3,
         "[core] provision, key: the environment variable PROVISON_KEY is not set; set it for the gateway's service"),
        (changed("key = \"${PROVISION_KEY}\", ", ""), 3, "[core] provision: 'key' is missing; add key = \"…\""),
        ("[devices]\nallow = ['(']\n", 2,
         "[devices] allow 1: '(' is no regular expression: missing ), unterminated subpattern at position 0"),
        ("[local]\nport = 70000\n", 2, "[local] port: 70000 is no port; use 0 to 65535 (0 picks a free one)"),
        ("[local]\nport = 1.5\n", 2, "[local] port: must be a whole number (without quotes), not a number"),
        ("[mqtt]\nname = 'x'\n", 1, "there can be several of [[mqtt]]; write it with two brackets"),
        ("[[core]]\n", 1, "[core] is a section that stands once; write [core]"),
        ("url = 'x'\n", 1, "unknown key 'url'; known are core, store, devices, local, statistics, log, mqtt, modbus"),
        ("[core]\nurl = \n", 2, "not valid TOML: Invalid value"),
        ("[core]\ncertificate = 'x'\n", 2, "[core] certificate: certificate needs private_key beside it"),
        ("[[mqtt]]\nname = ' x'\n", 2,
         "[[mqtt]]  x: name: must have 1 to 100 characters, without blanks around it or control characters"),
        ("[[mqtt]]\n", 1, "[[mqtt]] number 1: 'name' is missing; add name = \"…\""),
        ("[statistics]\nevery = inf\n", 2,
         '[statistics] every: inf is no duration; write a number with ms, s, min, h or d, such as "800 ms", "5 s", '
         '"1 min" or "30 d"'),
    ],
)  # fmt: skip
def test_a_mistake_has_its_line_and_its_fix(folder: Path, text: str, line: int, message: str) -> None:
    """In the words of whoever writes the file."""
    assert told(folder, text) == [(line, message)]


def test_all_mistakes_come_together_in_the_order_of_the_file(folder: Path) -> None:
    """One look is enough; what is right is checked although other parts are wrong."""
    text = (
        changed("[store]", "[stroe]").replace('"$.time"', '"time"').replace("unit = 3", "unit = 'x'")
        .replace('"{line}-{unit}"', '"{x}"')
    )  # fmt: skip
    problems = mistakes(folder, text, {**ENVIRONMENT, "EDGE_GATEWAY__LOCAL__PORT": "many"})
    assert [problem.line for problem in problems] == [0, 5, 18, 20, 32]
    assert [problem.column for problem in problems] == [0, 1, 3, 3, 3]
    assert problems[0].text == ("EDGE_GATEWAY__LOCAL__PORT: must be a whole number (without quotes), not a text")
    assert shown(problems[1], "gateway.toml") == "gateway.toml:5:1: unknown section [stroe]; did you mean 'store'?"


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("EDGE_GATEWAY__STROE__PATH",
         "unknown section in the variable EDGE_GATEWAY__STROE__PATH; did you mean 'store'?"),
        ("EDGE_GATEWAY__STORE__PAHT", "EDGE_GATEWAY__STORE__PAHT: unknown key 'paht'; did you mean 'path'?"),
        ("EDGE_GATEWAY__CORE__PROVISION",
         "EDGE_GATEWAY__CORE__PROVISION: is a table; set its keys, such as EDGE_GATEWAY__CORE__PROVISION__KEY"),
        ("EDGE_GATEWAY__CORE__URL",
         'EDGE_GATEWAY__CORE__URL: must be such as "mqtts://core.example.com:8883" (or mqtt:// without TLS)'),
    ],
)  # fmt: skip
def test_a_mistake_in_the_environment_names_the_variable(folder: Path, variable: str, message: str) -> None:
    """It stands in no line."""
    assert told(folder, EXAMPLE, {**ENVIRONMENT, variable: "x"}) == [(0, message)]


@pytest.mark.parametrize("url", ["mqtt://localhost:1883", "mqtt://127.8.0.1", "mqtt://[::1]:1883"])
def test_this_machine_needs_no_tls(folder: Path, url: str) -> None:
    """Nobody can listen in between."""
    assert read(folder, changed("mqtts://core.example.com:8883", url)).core.url == url


def test_unprotected_if_it_is_said(folder: Path) -> None:
    """`insecure = true` is the consent."""
    text = changed("mqtts://", "mqtt://").replace("[core]", "[core]\ninsecure = true")
    assert read(folder, text).core.insecure


def test_an_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*: No such file or directory"):
        load(tmp_path / "none.toml", {}, kinds=KINDS)
    (tmp_path / "latin.toml").write_bytes(b"# \xe4\n")
    with pytest.raises(ConfigError, match="byte 3 is not UTF-8; save it as UTF-8"):
        load(tmp_path / "latin.toml", {}, kinds=KINDS)


@pytest.mark.parametrize("text", ["[" * 5000, "a = " + "[" * 5000, "a = " + "{a=" * 5000, "a" + ".a" * 5000 + "=1"])
def test_a_bomb_is_a_problem(folder: Path, text: str) -> None:
    """Brackets without end do not bring the gateway down."""
    assert mistakes(folder, text)


# --- hints ---------------------------------------------------------------------------------------


def test_a_key_that_looks_like_a_slip_is_a_hint(folder: Path) -> None:
    """Used once, and nearly the same as one that is used three times; numbered keys are meant."""
    line = "[[mqtt]]\nname = '{}'\nmap = [{{ topic = 'a', device = 'd', telemetry = ['$.h -> {}', '$.t -> t_{}'] }}]\n"
    keys = ("humidity", "humidity", "humidty", "humidity")
    text = "[core]\ntoken = 'x'\n" + "".join(line.format(n, key, n) for n, key in enumerate(keys))
    hints = read(folder, text).hints
    assert [(hint.line, hint.text) for hint in hints] == [
        (11, "[[mqtt]] 2: map 1, telemetry 1: 'humidty' is used once, 'humidity' 3 times")
    ]


# --- secrets -------------------------------------------------------------------------------------

SECRETS = ("the-provision-key", "the-provision-secret", "pass-from-file", "literal-pass", "env-token-1")


def test_secrets_never_show(folder: Path) -> None:
    """Not in a problem, even one that a connector words, nor in a repr, nor in what `explain` says."""
    (folder / "pw").write_text("pass-from-file")
    plain = EXAMPLE.replace('every = "5 s"', 'every = "5 s"\npassword = "file:pw"')
    variables = {**ENVIRONMENT, "EDGE_GATEWAY__CORE__TOKEN": "env-token-1"}
    config = read(folder, plain, variables)
    shown_everywhere = repr(config) + repr(config.connectors) + repr(config.core) + repr(config.core.provision)
    shown_everywhere += repr(config.connectors[1].settings) + repr(explain(config))
    broken = plain.replace("tcp://10", "literal-pass://10").replace('"file:pw"', '"literal-pass"')
    broken = broken.replace('"drop-oldest"', '"the-provision-secret"').replace("unit = 3", 'unit = "${PROVISION_KEY}"')
    problems = [
        *mistakes(folder, broken, variables),
        *mistakes(folder, broken.replace('unit = "${P', 'unit = 3 # "{P')),
    ]
    shown_everywhere += repr(problems)
    assert len(problems) == 4
    assert config.connectors[1].settings.password == "pass-from-file"
    assert [secret for secret in SECRETS if secret in shown_everywhere] == []


def test_a_missing_file_is_told_with_its_line(folder: Path) -> None:
    """And how to mend it."""
    [(line, text)] = told(folder, changed("file:secret", "file:nothing"))
    assert (line, text) == (
        3,
        f"[core] provision, secret: cannot read the file {folder / 'nothing'}: No such file or directory; "
        "create it, readable for the gateway's user",
    )


def test_a_dollar_before_a_brace_can_be_meant(folder: Path) -> None:
    """`$${NAME}` is `${NAME}` itself."""
    config = read(folder, changed('type = "boiler"', 'type = "$${line}"'))
    assert config.connectors[0].settings.map[0].type == "${line}"


# --- explaining ----------------------------------------------------------------------------------


def test_every_value_says_where_it_comes_from(folder: Path) -> None:
    """Default, line of the file, or variable; units in words, references as they were written."""
    (folder / "pw").write_text("pass-from-file")
    text = EXAMPLE.replace('every = "5 s"', 'every = "5 s"\npassword = "literal-pass"')
    config = read(folder, text, {**ENVIRONMENT, "EDGE_GATEWAY__LOCAL__PORT": "9000"})
    lines = {line.path: (line.value, line.source) for line in explain(config)}
    assert lines["core.url"] == ('"mqtts://core.example.com:8883"', "file line 2")
    assert lines["core.provision.key"] == ('"${PROVISION_KEY}"', "file line 3")
    assert lines["core.provision.secret"] == ('"file:secret"', "file line 3")
    assert lines["core.provision.again"] == ('"never"', "default")
    assert lines["core.keep_alive"] == ("30 s", "default")
    assert lines["store.max_size"] == ("2 GiB", "file line 7")
    assert lines["local.port"] == ("9000", "environment EDGE_GATEWAY__LOCAL__PORT")
    assert lines["mqtt.hall.map[0].telemetry[1]"] == ('"$.hum -> humidity: float"', "file line 21")
    assert lines["modbus.plant.timeout"] == ("800 ms", "file line 31")
    assert lines["modbus.plant.password"] == ("••••", "file line 30")
    assert lines["modbus.plant.device[0].telemetry[0].as"] == ('"float32"', "file line 37")
    assert lines["modbus.plant.retries"] == ("3", "default")
