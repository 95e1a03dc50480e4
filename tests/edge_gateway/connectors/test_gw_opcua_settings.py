"""The table `[[opcua]]`."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from tests.support.gateway_opcua_sites import problems_of, settings_of

BOILER = {"device": "{boiler}", "root": "Objects/Plant/{boiler}", "telemetry": ["Temp -> temperature"]}
SECURED = {"security": "Basic256Sha256", "certificate": "c.pem", "private_key": "k.pem"}


def test_a_whole_table_is_right() -> None:
    """Everything that the manual shows passes the check."""
    device = {
        **BOILER,
        "type": "boiler",
        "report": "change 0.5 | 1 min",
        "telemetry": [
            "Temp -> temperature: float",
            {"at": "Sensors/{s}/Value", "key": "{s}_value", "scale": 0.1, "every": "2 s", "sampling": "100 ms"},
            {"at": "nsu=urn:plant;s=Total", "key": "total", "as": "int", "report": "1 min"},
        ],
        "attributes": ["Serial -> serial"],
        "rpc": {
            "get": {"read": "Limit"},
            "set": {"write": "Limit", "value": "$.params.v", "scale": 0.1},
            "start": {"method": "Start", "object": ".", "args": ["$.params.speed", 3, True]},
        },
        "shared": {"limit": {"write": "Limit"}},
    }
    server = {"server_certificate": "s.der", "username": "gw", "password": "secret", "mode": "Sign"}
    assert problems_of(**SECURED, **server, every="5 s", device=[device]) == []


def test_settings_keep_their_secrets() -> None:
    """Neither the password nor anything else is shown."""
    assert "secret" not in repr(settings_of(username="gw", password="secret"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"connect": "http://10.0.0.1"}, "connect: this is no address of a server; write opc.tcp://10.0.0.20:4840"),
        ({"connect": "opc.tcp://a:b@10.0.0.1"}, "connect: write name and password as username and password"),
        ({"connect": "opc.tcp://10.0.0.1:99999"}, "connect: this is no address"),
        ({"device": []}, "device: no device yet"),
        ({"certificate": "c.pem"}, 'certificate: certificate goes with security = "Basic256Sha256"'),
        (
            {"security": "Basic256Sha256"},
            "private_key: security needs certificate and private_key; make them with: openssl",
        ),
        (SECURED, "server_certificate: name the file of the server's certificate, or say insecure = true"),
        ({"username": "a", "password": "secret"}, "password: the password might travel unencrypted"),
        ({"password": "secret"}, "password: password goes with username"),
        ({"publishing": "1 ms"}, 'publishing: publishing must be at least "50 ms"'),
        ({"every": "1 ms"}, 'every: every must be at least "50 ms"; 0 subscribes'),
        ({"browse_every": "10 ms"}, 'browse_every: browse_every must be at least "1 s"'),
        ({"backoff_max": "200 ms"}, "backoff_max: backoff_max must not be less than backoff_min"),
    ],
)
def test_mistakes_of_the_connection_are_told(settings: dict[str, Any], told: str) -> None:
    """What is wrong, where, and the fix; never a secret."""
    problems = problems_of(**{"device": [BOILER], **settings})
    assert any(problem.startswith(told) for problem in problems), problems
    assert "secret" not in str(problems)


@pytest.mark.parametrize(
    ("device", "told"),
    [
        (
            {"device": "boiler"},
            "device.0.device: 'Objects/Plant/{boiler}' finds several devices, but they would all be",
        ),
        ({"device": "{bioler}"}, "device.0.device: '{bioler}' in '{bioler}' is not captured by"),
        ({"device": " "}, "device.0.device: the device needs a name"),
        ({"device": "{$.x}{boiler}"}, "device.0.device: '{$.x}{boiler}': there is no message to pick from here"),
        ({"root": "ns=2"}, "device.0.root: 'ns=2' is no node id"),
        ({"telemetry": []}, "device.0: the device says nothing"),
        ({"telemetry": ["Temp"]}, "device.0.telemetry.0: 'Temp' names no key"),
        ({"telemetry": ["S/{s} -> t"]}, "device.0.telemetry.0.key: 'S/{s}' finds several nodes"),
        (
            {"telemetry": [{"at": "T", "key": "t", "as": "flaot"}]},
            "device.0.telemetry.0.as: 'flaot' is no type; did you",
        ),
        ({"telemetry": [{"at": "T", "key": "t", "scale": 0}]}, "device.0.telemetry.0.as: scale = 0 would make"),
        ({"telemetry": [{"at": "T", "key": "t", "report": "x"}]}, "device.0.telemetry.0.report: 'x' is no report"),
        (
            {"telemetry": [{"at": "T", "key": "t", "every": "1 ms"}]},
            "device.0.telemetry.0.every: every = 0.001 s is too",
        ),
        ({"rpc": {"x": {}}}, 'device.0.rpc.x: give one of write = "node", read = "node" and method = "node"'),
        ({"rpc": {"x": {"read": "A", "write": "B"}}}, "device.0.rpc.x: give one of"),
        ({"rpc": {"x": {"read": "A", "args": []}}}, "device.0.rpc.x.args: args goes with method"),
        ({"rpc": {"x": {"method": "A", "value": "$.params"}}}, "device.0.rpc.x.value: value goes with write; a method"),
        ({"rpc": {"x": {"method": "A", "args": ["$.["]}}}, "device.0.rpc.x.args.0: '$.[' is no path"),
        ({"rpc": {"x": {"read": "{any}"}}}, "device.0.rpc.x.read: '{any}' must lead to one node"),
        ({"shared": {"x": {"read": "A"}}}, 'device.0.shared.x: a shared attribute is written: give it write = "node"'),
    ],
)
def test_mistakes_of_a_device_are_told(device: dict[str, Any], told: str) -> None:
    """Each mistake is told where it stands."""
    problems = problems_of(device=[{**BOILER, **device}])
    assert any(problem.startswith(told) for problem in problems), problems


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the check says how to install it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "asyncua" else find(name))
    told = ": OPC UA needs a library; install it with: pip install 'muster[opcua]'"
    assert problems_of(device=[BOILER]) == [told]
