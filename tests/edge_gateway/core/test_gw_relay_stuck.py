"""A device that cannot send keeps nobody else's history back."""

from __future__ import annotations

import msgspec
import pytest

from edge_gateway.core.queues import READ_RECORDS
from edge_gateway.model import Content
from tests.support.gateway_fakes import FakeSpool, Flow


def with_history(*counts: tuple[str, int]) -> Flow:
    """A gateway that was started with so many records of these devices on disk, in this order."""
    old = Flow()
    for device, count in counts:
        for number in range(count):
            old.accept(device, {"n": number})
    return Flow(FakeSpool(records=list(old.spool.records.values()), devices=old.spool.sub_devices()))


def taken(flow: Flow, device: str) -> list[int]:
    """The numbers that the core has heard of a device."""
    documents = [msgspec.json.decode(payload) for topic, payload in flow.uplink.published if "tele" in topic]
    return [entry["values"]["n"] for document in documents for entry in document.get(device, [])]


def answer(flow: Flow, topic: str, code: int, seconds: int) -> None:
    """The core answers what concerns device A on a topic with a code, and takes all else."""
    for _ in range(seconds):
        while flow.uplink.waiting:
            about, payload, _ = flow.uplink.waiting[0]
            flow.uplink.answer(code=code if about == topic and b'"A"' in payload else 0)
            flow.turn()
        flow.timers.advance(1.0)


@pytest.mark.parametrize(("topic", "code"), [("v1/gateway/connect", 0x97), ("v1/gateway/telemetry", 0x87)])
def test_a_device_that_the_core_refuses_for_good_leaves_the_history_of_others_alone(topic: str, code: int) -> None:
    """However much of it waits; when the core takes it, it follows whole and in order."""
    flow = with_history(("A", READ_RECORDS + 500), ("B", 10))
    flow.relay.start()
    flow.connect()
    answer(flow, topic, code, 120)
    assert taken(flow, "B") == list(range(10))
    answer(flow, topic, 0, 700)
    assert list(dict.fromkeys(taken(flow, "A"))) == list(range(READ_RECORDS + 500))
    assert flow.spool.records == {} and flow.relay.queues.backlog == 0


def test_what_is_acknowledged_while_the_history_is_read_again_is_not_sent_twice() -> None:
    """A new value that went meanwhile is not replaced by an old one."""
    flow = with_history(("A", 1), ("B", 3))
    flow.connect()
    flow.uplink.answer(code=0x97)  # A's connect
    flow.turn()
    flow.uplink.answer()  # B's
    flow.turn()
    assert taken(flow, "B") == [0, 1, 2]
    flow.spool.is_slow = True
    flow.sub_devices.admit("A", "other", "c")  # announced again, taken: its history is read anew
    flow.turn()
    flow.uplink.answer(at=1)
    flow.turn()
    flow.uplink.answer()  # B's three
    flow.turn()
    flow.accept("B", {"n": 3}, Content.TELEMETRY)
    flow.spool.is_slow = False
    flow.spool.commit()
    flow.answer_all()
    assert taken(flow, "B") == [0, 1, 2, 3]
    assert taken(flow, "A") == [0] and flow.spool.records == {}
