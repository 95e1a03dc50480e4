"""Telemetry, attributes and calls: the same on every transport (M, H and O rows of section 10)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.drivers import Driver, Refused
from tests.contract.operators import attributes_of, telemetry_path
from tests.support.server import CoreProcess

FIVE = {"text": "value", "flag": True, "double": 3.5, "long": 4, "json": {"a": [1, {"b": "c"}]}}


def test_five_kinds_of_values_are_stored(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """Real JSON types when asked for strictly, strings otherwise (M3, O1, H1)."""
    with driver.device(token) as device:
        device.post("telemetry", FIVE)
    assert core.latest(name) == FIVE
    shown = core.rest.get(f"{telemetry_path(core, name)}/values/timeseries")
    assert {key: points[0]["value"] for key, points in shown.items()} == {
        "text": "value", "flag": "true", "double": "3.5", "long": "4", "json": '{"a":[1,{"b":"c"}]}',
    }  # fmt: skip


def test_a_given_time_is_kept(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """In a single pack and in a list (M3, O1)."""
    packs = [{"ts": 1_527_863_043_000 + n, "values": {"n": n}} for n in range(3)]
    with driver.device(token) as device:
        device.post("telemetry", packs[0])
        device.post("telemetry", packs[1:])
    found = core.rest.get(
        f"{telemetry_path(core, name)}/values/timeseries",
        keys="n", startTs="1527863043000", endTs="1527863044000", orderBy="ASC", useStrictDataTypes="true",
    )  # fmt: skip
    assert [(point["ts"], point["value"]) for point in found["n"]] == [(1_527_863_043_000 + n, n) for n in range(3)]


@pytest.mark.parametrize("body", [{}, []])
def test_nothing_is_accepted_too(driver: Driver, token: str, body: Any) -> None:
    """`{}` is the SDK's connection test."""
    with driver.device(token) as device:
        device.post("telemetry", body)


def test_posted_attributes_are_of_client_scope(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """Types preserved (M6, O1)."""
    with driver.device(token) as device:
        device.post("attributes", FIVE)
    assert attributes_of(core, name, "CLIENT_SCOPE") == FIVE


def test_requested_attributes_come_by_scope(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """Only what is asked for and there; without any list, all of both (M8, H1, O2)."""
    core.rest.post(f"{telemetry_path(core, name)}/SHARED_SCOPE", {"limit": 7, "both": "shared"})
    core.rest.post(f"{telemetry_path(core, name)}/SERVER_SCOPE", {"hidden": 1})
    with driver.device(token) as device:
        device.post("attributes", {"fw": "v1.0", "both": "client"})
        assert device.attributes(client="fw,absent", shared="limit") == {
            "client": {"fw": "v1.0"},
            "shared": {"limit": 7},
        }
        assert device.attributes(shared="limit,both") == {"shared": {"limit": 7, "both": "shared"}}
        assert device.attributes(client="absent") == {}
        everything = {"client": {"fw": "v1.0", "both": "client"}, "shared": {"limit": 7, "both": "shared"}}
        assert device.attributes() == everything


def test_session_limits_are_told(driver: Driver, token: str) -> None:
    """Complete, and objects where clients expect objects (R7)."""
    with driver.device(token) as device:
        limits = device.call("getSessionLimits", {})
    assert set(limits) == {"maxPayloadSize", "maxInflightMessages", "rateLimits"}
    assert limits["maxPayloadSize"] == 65_536 and limits["maxInflightMessages"] == 100
    assert set(limits["rateLimits"]) == {"messages", "telemetryMessages", "telemetryDataPoints"}


def test_an_unknown_method_is_answered_at_once(driver: Driver, token: str) -> None:
    """With an error that says what to do, instead of a minute of silence."""
    with driver.device(token) as device:
        assert "error" in device.call("noSuchMethod", {"a": 1})


def test_a_bad_body_does_not_end_the_session(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """Refused where the transport can say so, and the next message is stored (M1, M4)."""
    with driver.device(token) as device:
        try:
            device.post("telemetry", b"{broken")
        except Refused as refusal:
            assert any(code in str(refusal) for code in ("400", "4.00", "Payload format invalid"))
        device.post("telemetry", {"after": 1})
    assert core.latest(name) == {"after": 1}
