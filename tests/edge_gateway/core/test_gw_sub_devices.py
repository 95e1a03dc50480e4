"""The registry of sub-devices and its states."""

from __future__ import annotations

import pytest

from edge_gateway.core.presence import NEXT, Event, ImpossibleEvent, State, next_state
from edge_gateway.core.sub_devices import RenameRefused
from edge_gateway.model import SubDevice
from edge_gateway.settings import Devices
from tests.support.gateway_fakes import FakeSpool, Flow


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_state_and_event_has_a_next_state_or_raises(state: State, event: Event) -> None:
    """A missing pair is our mistake; deletion and the end of the connection are possible everywhere."""
    if (state, event) in NEXT:
        assert next_state(state, event) is NEXT[state, event]
    else:
        assert event not in (Event.ENDED, Event.DELETED)
        with pytest.raises(ImpossibleEvent):
            next_state(state, event)


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("", Devices(), "no name"),
        ("x" * 256, Devices(), "255"),
        ("a\nb", Devices(), "control"),
        ("spy", Devices(deny=["s.."]), "deny"),
        ("ab", Devices(allow=["a"]), "allow"),
        ("a", Devices(max_devices=0), "max_devices"),
    ],
)
def test_who_may_not_come_in_hears_why(name: str, settings: Devices, part: str) -> None:
    """The refusal names the setting and is final."""
    refusal = Flow(devices=settings).sub_devices.admit(name, "", "c")
    assert refusal is not None and part in refusal.reason and refusal.retry_after_s is None


def remembered(count: int) -> list[SubDevice]:
    return [SubDevice(f"d{number}", f"d{number}", "meter", "c") for number in range(count)]


def test_quiet_devices_are_announced_after_every_connect_those_with_data_first() -> None:
    """Within the window, each once a connection, with name and type."""
    flow = Flow(FakeSpool(devices=remembered(1_000)))
    for _ in range(2):
        flow.accept("d700", {"a": 1})
        flow.connect()
        assert flow.uplink.published[0] == ("v1/gateway/connect", b'{"device":"d700","type":"meter"}')
        flow.answer_all()
        assert flow.uplink.topics().count("v1/gateway/connect") == 1_000
        assert flow.uplink.most_waiting <= 20
        flow.relay.ended()


def test_renames_are_kept_chained_and_never_collide() -> None:
    """Data goes under the newest name; two devices may exchange theirs; a taken name is refused."""
    flow = Flow()
    flow.accept("A", {"a": 1})
    flow.accept("Z", {"a": 1})
    flow.connect()
    flow.answer_all()
    flow.sub_devices.renamed({"A": "B"})
    flow.sub_devices.renamed({"B": "C"})
    flow.accept("A", {"a": 2})
    flow.answer_all()
    assert ("v1/gateway/connect", b'{"device":"C","type":"default"}') in flow.uplink.published
    assert flow.uplink.published[-1][1].startswith(b'{"C":[')
    assert flow.spool.devices["A"].upstream_name == "C"
    with pytest.raises(RenameRefused):
        flow.sub_devices.renamed({"C": "Z"})
    flow.sub_devices.renamed({"C": "Z", "Z": "C"})
    assert flow.spool.devices["Z"].upstream_name == "C"


def test_a_deleted_device_is_forgotten_with_its_records_until_it_speaks() -> None:
    """Nothing that it said before brings it back; then it is announced anew by its own name."""
    flow = Flow()
    flow.connect()
    flow.accept("A", {"a": 1})
    flow.answer_all()
    flow.relay.ended()
    flow.accept("A", {"a": 2})
    assert flow.sub_devices.deleted("A")
    flow.connect()
    flow.answer_all()
    assert flow.uplink.published == [] and flow.spool.records == {}
    assert flow.counters.dropped == {"deleted": 1}
    flow.accept("A", {"a": 3})
    flow.answer_all()
    assert flow.uplink.topics() == ["v1/gateway/connect", "v1/gateway/telemetry"]
    assert not flow.spool.devices["A"].is_deleted


def test_a_device_that_left_is_disconnected_after_the_grace_unless_it_came_back() -> None:
    """And announced again when it speaks."""
    flow = Flow()
    flow.relay.start()
    flow.connect()
    flow.accept("A", {"a": 1})
    flow.answer_all()
    flow.sub_devices.gone("A")
    flow.timers.pump([1.0] * 5)
    flow.sub_devices.admit("A", "", "c")
    flow.timers.pump([1.0] * 20)
    assert "v1/gateway/disconnect" not in flow.uplink.topics()
    flow.sub_devices.gone("A")
    flow.timers.pump([1.0] * 11)
    assert flow.uplink.published[-1] == ("v1/gateway/disconnect", b'{"device":"A"}')
    flow.accept("A", {"a": 2})
    flow.answer_all()
    assert flow.uplink.topics()[-2:] == ["v1/gateway/connect", "v1/gateway/telemetry"]


def test_a_silent_device_is_disconnected_after_its_inactivity() -> None:
    """One that speaks is not."""
    flow = Flow(devices=Devices(inactivity=30.0))
    flow.relay.start()
    flow.connect()
    for _ in range(40):
        flow.sub_devices.admit("talks", "", "c")
        if flow.timers.seconds() == 0:
            flow.sub_devices.admit("silent", "", "c")
        flow.turn()
        while flow.uplink.waiting:
            flow.uplink.answer()
        flow.timers.advance(1.0)
    assert [payload for topic, payload in flow.uplink.published if topic.endswith("disconnect")] == [
        b'{"device":"silent"}'
    ]


def test_a_corrected_type_is_told_and_contradictions_do_not_flood_the_core() -> None:
    """At most one change a minute."""
    flow = Flow()
    flow.connect()
    for kind in ("", "boiler", "pump", "boiler", "pump"):
        flow.sub_devices.admit("A", kind, "c")
        flow.turn()
        flow.answer_all()
    assert [payload for _, payload in flow.uplink.published] == [
        b'{"device":"A","type":"default"}',
        b'{"device":"A","type":"boiler"}',
    ]
    assert flow.sub_devices.contradictions == 2


def test_a_device_that_the_core_refuses_waits_alone_and_loses_nothing() -> None:
    """Others go on; after a while it is announced again and its records follow in order."""
    flow = Flow()
    flow.relay.start()
    flow.connect()
    flow.accept("A", {"a": 1})
    flow.turn()
    flow.uplink.answer(code=0x97)
    flow.accept("A", {"a": 2})
    flow.accept("B", {"b": 1})
    flow.answer_all()
    assert flow.uplink.published[-1][1].startswith(b'{"B":')
    flow.timers.pump([1.0] * 11)
    flow.answer_all()
    assert flow.spool.records == {}
    assert b"".join(payload for _, payload in flow.uplink.published).find(b'"a":1') > 0
