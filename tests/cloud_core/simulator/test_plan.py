"""The plan of a simulated fleet: one seed decides everything."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from cloud_core.simulator.plan import (
    FAULT_NAMES,
    KINDS,
    MIX,
    Fault,
    Kind,
    Plan,
    Profile,
    Transport,
    device_plan,
    devices,
    digest,
    overview,
    parse_fault,
    parse_weights,
)

MQTT = (Transport.MQTT, Transport.MQTT5)


def plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {
        "devices": 2_000, "mix": parse_weights(MIX, Transport), "kinds": parse_weights(KINDS, Kind), **changes,
    }  # fmt: skip
    return Plan(**given)


def test_the_same_seed_and_options_give_the_same_devices() -> None:
    """Names, transports, credentials, faults and starts are equal, one by one, and so is the digest."""
    faults = {"slow": 0.1, "reconnect": 0.2}
    assert list(devices(plan(faults=faults))) == list(devices(plan(faults=faults)))
    assert digest(plan(faults=faults)) == digest(plan(faults=faults))


@pytest.mark.parametrize(
    "changes",
    [{"seed": 2}, {"devices": 1_999}, {"ramp_s": 11.0}, {"faults": {"slow": 0.5}}, {"profile": Profile.FACTORY_LINE},
     {"mix": {Transport.HTTP: 1.0}}, {"telemetry_every_s": 7.0}, {"prefix": "other"}],
)  # fmt: skip
def test_whatever_changes_a_device_or_the_run_changes_the_digest(changes: dict[str, Any]) -> None:
    """Two runs that were not the same cannot be taken for the same."""
    assert digest(plan(**changes)) != digest(plan())


def test_processes_share_a_plan_without_changing_it() -> None:
    """The parts of three processes are together the devices of one."""
    parts = [one for share in range(3) for one in devices(plan(), share=share, shares=3)]
    assert sorted(parts) == sorted(devices(plan()))


def test_the_digest_of_a_plan_stays_what_it_is() -> None:
    """A later version gives the same devices, so that figures of versions can be compared."""
    assert device_plan(plan(), 41).name == "sim-1-0000042"
    assert digest(plan(faults={"slow": 0.1})) == DIGEST


DIGEST = "fd7ac134c95eb6b4"


def test_shares_are_kept() -> None:
    """Transports, credentials and faults come as often as they were asked for, within two in a hundred."""
    found = list(devices(plan(devices=20_000, faults={"slow": 0.05})))
    transports = Counter(one.transport for one in found)
    assert transports[Transport.MQTT] / 20_000 == pytest.approx(0.6, abs=0.02)
    assert transports[Transport.COAP] / 20_000 == pytest.approx(0.15, abs=0.02)
    assert sum(Fault.SLOW in one.faults for one in found) / 20_000 == pytest.approx(0.05, abs=0.01)
    assert all(0 <= one.start_s <= 10 for one in found)
    assert len({one.name for one in found}) == 20_000


def test_a_transport_is_given_no_credentials_that_it_cannot_use() -> None:
    """User name and password go over MQTT alone, certificates over TLS alone and not over CoAP."""
    kinds = {Kind.BASIC: 1.0, Kind.X509: 1.0}
    assert {one.kind for one in devices(plan(kinds=kinds)) if one.transport not in MQTT} == {Kind.TOKEN}
    assert {one.kind for one in devices(plan(kinds=kinds)) if one.transport in MQTT} == {Kind.BASIC, Kind.TOKEN}
    secure = list(devices(plan(kinds=kinds, is_tls=True)))
    assert {one.kind for one in secure if one.transport in MQTT} == {Kind.BASIC, Kind.X509}
    assert {one.kind for one in secure if one.transport is Transport.COAP} == {Kind.TOKEN}


def test_a_factory_line_comes_at_an_even_pace() -> None:
    """One device after the other, over the whole ramp."""
    starts = [one.start_s for one in devices(plan(devices=10, profile=Profile.FACTORY_LINE))]
    assert starts == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_options_are_read() -> None:
    """Weights and shares, with and without per cent."""
    assert parse_weights("mqtt=60, http=40,coap=0", Transport) == {Transport.MQTT: 60, Transport.HTTP: 40}
    assert parse_fault("slow=5%") == ("slow", 0.05)
    assert parse_fault("wrong-secret=0.5") == ("wrong-secret", 0.5)


@pytest.mark.parametrize("text", ["ftp=1", "mqtt=x", "mqtt=-1", "mqtt=0", "", "mqtt=nan"])
def test_a_wrong_mix_is_told_in_a_sentence(text: str) -> None:
    """Unknown transports, numbers that are none, and a mix that leaves nothing."""
    with pytest.raises(ValueError, match=r"\.$"):
        parse_weights(text, Transport)


@pytest.mark.parametrize("text", ["quick=1%", "slow", "slow=200%", "slow=%"])
def test_a_wrong_fault_is_told_in_a_sentence(text: str) -> None:
    """Unknown faults, missing shares, and more than everybody."""
    with pytest.raises(ValueError, match=r"(\.|5%|0\.05)"):
        parse_fault(text)


def test_an_overview_counts_every_device() -> None:
    """What `--dry-run` shows adds up."""
    found = overview(plan(faults=dict.fromkeys(FAULT_NAMES, 0.1)))
    assert sum(found["transports"].values()) == sum(found["credentials"].values()) == 2_000
    assert set(found["faults"]) == set(FAULT_NAMES)
