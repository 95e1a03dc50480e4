"""Names that wander between devices: no data ever goes to another device than the one that said it."""

from __future__ import annotations

import msgspec

from tests.support.gateway_fakes import FakeSpool, Flow


def names_sent(flow: Flow) -> list[tuple[str, object]]:
    """(name at the core, value) of all telemetry."""
    documents = [msgspec.json.decode(payload) for topic, payload in flow.uplink.published if "tele" in topic]
    return [(name, one["values"]["n"]) for document in documents for name, all in document.items() for one in all]


def test_a_device_may_get_the_name_of_one_that_was_deleted() -> None:
    """A replaced machine: the old one is deleted at the core, the new one renamed to its name; also after a restart."""
    flow = Flow()
    flow.connect()
    for name in ("pump", "pump-new"):
        flow.accept(name, {"n": 1})
    flow.answer_all()
    flow.sub_devices.deleted("pump")
    flow.sub_devices.renamed({"pump-new": "pump"})
    flow.accept("pump-new", {"n": 2})
    flow.answer_all()
    assert names_sent(flow)[-1] == ("pump", 2)
    for devices in (flow.spool.sub_devices(), flow.spool.sub_devices()[::-1]):
        again = Flow(FakeSpool(devices=devices))
        kept = again.sub_devices.by_upstream_name("pump")
        assert kept is not None and kept.name == "pump-new"


def test_who_calls_itself_by_the_name_that_another_has_at_the_core_may_not_come_in() -> None:
    """New, or back after its deletion: its data would go to the other one. The refusal names both."""
    flow = Flow()
    flow.connect()
    flow.accept("A", {"n": 1})
    flow.accept("C", {"n": 1})
    flow.answer_all()
    flow.sub_devices.renamed({"A": "B"})
    refusal = flow.sub_devices.admit("B", "", "c")
    assert refusal is not None and "'A'" in refusal.reason and "'B'" in refusal.reason
    flow.sub_devices.deleted("C")
    flow.sub_devices.renamed({"B": "C"})
    assert flow.sub_devices.admit("C", "", "c") is not None
    assert flow.sub_devices.admit("B", "", "c") is None
    kept = flow.sub_devices.by_upstream_name("C")
    assert kept is not None and kept.name == "A"


def test_a_mapping_that_follows_a_rename_is_let_in_when_the_old_name_is_silent() -> None:
    """It is the same machine."""
    flow = Flow()
    flow.accept("A", {"n": 1})
    flow.sub_devices.renamed({"A": "B"})
    refusal = flow.sub_devices.admit("B", "", "c")
    assert refusal is not None and refusal.retry_after_s
    flow.timers.advance(600)
    assert flow.sub_devices.admit("B", "", "c") is None
    again = Flow(FakeSpool(devices=[device for device in flow.spool.sub_devices() if device.name == "A"]))
    assert again.sub_devices.admit("B", "", "c") is None


def test_a_renamed_device_that_was_deleted_takes_nobodys_name() -> None:
    """Another one may have its first name at the core by then."""
    flow = Flow()
    for name in ("A", "C"):
        flow.accept(name, {"n": 1})
    flow.sub_devices.renamed({"A": "X"})
    flow.sub_devices.renamed({"C": "A"})
    assert flow.sub_devices.deleted("X")
    kept = flow.sub_devices.by_upstream_name("A")
    assert kept is not None and kept.name == "C"
