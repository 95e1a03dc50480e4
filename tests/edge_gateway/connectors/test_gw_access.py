"""Logins, addresses and rates of connectors that listen; and what is wrong with their tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_gateway.connectors import http, mqtt
from edge_gateway.connectors.access import Bucket, Rates, Users, UsersUnreadable, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("0.0.0.0:1883", "0.0.0.0", 1883, False),
        ("[::1]:80", "::1", 80, True),
        ("localhost", "localhost", 1883, True),
        ("::", "::", 1883, False),
    ],
)
def test_addresses(text: str, host: str, port: int, is_loopback: bool) -> None:
    """Host and port, with brackets around IPv6; the port may be left to the default."""
    address = parse_address(text, 1883)
    assert (address.host, address.port, address.is_loopback) == (host, port, is_loopback)


@pytest.mark.parametrize("text", ["", ":1883", "host:port", "host:65536", "host:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """The text says the form."""
    with pytest.raises(ValueError, match="write host:port"):
        parse_address(text, 1883)


def logins(tmp_path: Path, text: str, mode: int = 0o600) -> Users:
    path = tmp_path / "users.csv"
    path.write_text(text)
    path.chmod(mode)
    return Users(str(path))


def test_logins_are_read_again_when_they_change(tmp_path: Path) -> None:
    """A device can be added without a restart."""
    users = logins(tmp_path, "# site 1\ndevice,password\na,secret\n\nb,,TOKEN\n")
    users.load()
    assert [users.device_of(*one) for one in (("a", "secret"), ("a", "x"), ("c", "secret"), ("TOKEN", None))] == [
        "a", None, None, "b",
    ]  # fmt: skip
    logins(tmp_path, "a,secret\nc,other-secret\n")
    users.load()
    assert (users.device_of("c", "other-secret"), users.device_of("TOKEN", "")) == ("c", None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a\n", "line 1: write device,password"),
        ("a,x\na,y\n", "line 2: the user name of 'a' stands in the file twice"),
        ("a,\n", "'a' has no password"),
    ],
)
def test_mistakes_in_the_logins_are_told_with_their_line(text: str, why: str, tmp_path: Path) -> None:
    """And nothing of a password is quoted."""
    with pytest.raises(UsersUnreadable, match=why) as raised:
        logins(tmp_path, text).load()
    assert "x" not in str(raised.value).replace("users.csv", "").replace(str(tmp_path), "")


def test_logins_that_others_can_read_are_refused(tmp_path: Path) -> None:
    """The text says the command that mends it."""
    with pytest.raises(UsersUnreadable, match="chmod 600"):
        logins(tmp_path, "a,x\n", 0o644).load()


def test_a_rate_allows_a_burst_and_then_its_measure() -> None:
    """What is refused does not count against the source; others have measures of their own."""
    now_s = 0.0
    rates = Rates(1.0, lambda: now_s)
    assert [rates.wait_s("a") for _ in range(4)] == [0, 0, 1, 1]
    assert rates.wait_s("b") == 0
    now_s = 1.0
    assert rates.wait_s("a") == 0
    assert Bucket(10, 0).take(30, 0) == 1.0


MAP = {"topic": "a/{unit}", "device": "{unit}", "telemetry": ["$.t -> t"]}
GOOD = {"listen": "127.0.0.1:1883", "anonymous": True, "map": [MAP]}


@pytest.mark.parametrize(
    ("change", "path", "why"),
    [
        ({"connect": "mqtt://x"}, (), "either listen"),
        ({"listen": "nowhere:x"}, ("listen",), "is no address"),
        ({"anonymous": False}, (), "who may log in"),
        ({"listen": "0.0.0.0:1883"}, ("anonymous",), "insecure_lan"),
        ({"own_device": True}, ("own_device",), "needs users"),
        ({"client_id": "x"}, ("client_id",), "remove it"),
        ({"preset": "thingsbord"}, ("preset",), "did you mean 'thingsboard'"),
        ({"max_payload": "much"}, ("max_payload",), "KiB"),
        ({"map": []}, (), "nothing would be read"),
        ({"map": [MAP, MAP]}, ("map", 1, "topic"), "never used"),
        ({"map": [MAP | {"device": "{line}"}]}, ("map", 0, "device"), "line"),
        ({"map": [MAP | {"rpc": {"f": {"publish": "a/#"}}}]}, ("map", 0, "rpc", "f", "publish"), "braces"),
        ({"map": [MAP | {"rpc": {"f": {"publish": "a/{unit}/f", "reply": "r"}}}]}, ("map", 0, "rpc", "f", "reply"),
         "all devices"),
        ({"map": [MAP | {"rpc": {"f": {"publish": "a", "answer": "$.x"}}}]}, ("map", 0, "rpc", "f", "answer"), "reply"),
    ],
)  # fmt: skip
def test_mistakes_in_an_mqtt_table(change: dict[str, Any], path: tuple[str | int, ...], why: str) -> None:
    """Each has its path and the fix."""
    (kind,) = mqtt.KINDS
    assert kind.check(msgspec.convert({"name": "x"} | GOOD, kind.settings)) == []
    problems = kind.check(msgspec.convert({"name": "x"} | GOOD | change, kind.settings))
    assert [(one.path, why in one.text) for one in problems] == [(path, True)], problems


@pytest.mark.parametrize(
    ("change", "path", "why"),
    [
        ({"connect": "broker:1883"}, ("connect",), "mqtt://"),
        ({"version": "4"}, ("version",), "known are auto"),
        ({"users": "u.csv"}, ("users",), "remove it"),
        ({"keep_alive": "soon"}, ("keep_alive",), "min"),
        ({"certificate": "c.pem"}, ("certificate",), "belong together"),
    ],
)
def test_mistakes_in_the_table_of_a_client(change: dict[str, Any], path: tuple[str | int, ...], why: str) -> None:
    """Each has its path and the fix."""
    (kind,) = mqtt.KINDS
    good = {"name": "x", "connect": "mqtts://broker", "map": [MAP], "username": "u", "password": "p"}
    assert kind.check(msgspec.convert(good, kind.settings)) == []
    problems = kind.check(msgspec.convert(good | change, kind.settings))
    assert [(one.path, why in one.text) for one in problems] == [(path, True)], problems


PATH = {"path": "/in/{device}", "telemetry": ["$.t -> t"]}
URL = {"url": "http://10.0.0.1/s", "device": "s1", "telemetry": ["$.t -> t"]}


@pytest.mark.parametrize(
    ("table", "path", "why"),
    [
        ({"map": []}, (), "nothing would be read"),
        ({"listen": "127.0.0.1:80", "map": [PATH]}, (), "who may post"),
        ({"listen": "127.0.0.1:80", "token": "t", "map": [URL | {"device": "x"}]}, ("map", 0, "path"), "maps with"),
        ({"listen": "127.0.0.1:80", "token": "t", "map": [PATH | {"path": "in/{device}"}]}, ("map", 0, "path"), "/in"),
        ({"listen": "0.0.0.0:80", "anonymous": True, "map": [PATH]}, ("anonymous",), "insecure_lan"),
        ({"map": [URL], "token": "t"}, ("token",), "remove it"),
        ({"map": [URL | {"url": "10.0.0.1/s"}]}, ("map", 0, "url"), "http://host"),
        ({"map": [URL | {"every": "1 ms"}]}, ("map", 0, "every"), "at least"),
        ({"map": [URL | {"method": "get"}]}, ("map", 0, "method"), "GET"),
        ({"map": [{"url": "http://a/", "telemetry": ["$.t -> t"]}]}, ("map", 0, "device"), "device"),
    ],
)
def test_mistakes_in_an_http_table(table: dict[str, Any], path: tuple[str | int, ...], why: str) -> None:
    """Each has its path and the fix."""
    (kind,) = http.KINDS
    problems = kind.check(msgspec.convert({"name": "x"} | table, kind.settings))
    assert [(one.path, why in one.text) for one in problems] == [(path, True)], problems


def test_good_http_tables_have_no_problems() -> None:
    """A listener with a token, a poller with a login."""
    (kind,) = http.KINDS
    for table in ({"listen": "0.0.0.0:80", "token": "t", "map": [PATH]}, {"map": [URL | {"auth": {"token": "t"}}]}):
        assert kind.check(msgspec.convert({"name": "x"} | table, kind.settings)) == []


def test_secrets_are_not_shown() -> None:
    """Nothing of a table's passwords and tokens is in its text."""
    shown = [
        repr(msgspec.convert({"name": "x", "connect": "mqtt://b", "password": "geheim"}, mqtt.KINDS[0].settings)),
        repr(msgspec.convert({"name": "x", "token": "geheim"}, http.KINDS[0].settings)),
        repr(msgspec.convert(URL | {"auth": {"password": "geheim"}}, http.settings.HttpMap)),
    ]
    assert not any("geheim" in one for one in shown)
