"""What the relay publishes, and what it makes of the core's answers."""

from __future__ import annotations

import msgspec

from edge_gateway.core.rates import parse_rate, session_limits
from edge_gateway.model import Content
from edge_gateway.settings import Core, Store
from tests.support.gateway_fakes import START_MS, FakeSpool, Flow


def test_live_data_goes_at_once_and_batches_form_by_load() -> None:
    """One record, one publish while the link is idle; what waits meanwhile goes together, many devices in one."""
    flow = Flow()
    flow.connect()
    flow.accept("A", {"n": 1})
    flow.answer_all()
    flow.accept("A", {"n": 2})
    flow.timers.advance(0)
    flow.accept("A", {"n": 3})
    flow.accept("A", {"n": 4})
    flow.answer_all()
    sent = [payload for topic, payload in flow.uplink.published if topic == "v1/gateway/telemetry"]
    assert [payload.count(b'"n"') for payload in sent] == [1, 1, 2]
    assert sent[0] == b'{"A":[{"ts":%d,"values":{"n":1}}]}' % (START_MS + 1_000)


def test_what_one_commit_makes_durable_goes_in_one_publish() -> None:
    """The disk answers for many at once; a publish for each would cost the link and both ends more than it gives."""
    flow = Flow()
    flow.connect()
    for device in ("A", "B", "C"):
        flow.accept(device, {"n": 1})
    flow.answer_all()
    flow.uplink.published.clear()
    flow.spool.is_slow = True
    for device in ("A", "B", "C"):
        flow.accept(device, {"n": 2})
    flow.spool.commit()
    assert flow.uplink.published == []
    flow.timers.advance(0)
    ((topic, payload),) = flow.uplink.published
    assert (topic, payload.count(b'"n":2')) == ("v1/gateway/telemetry", 3)


def test_own_data_goes_by_the_devices_own_topics() -> None:
    """Telemetry as a list, attributes merged, no connect."""
    flow = Flow()
    flow.accept("", {"n": 1})
    flow.accept("", {"a": 1, "b": 1}, Content.ATTRIBUTES)
    flow.accept("", {"a": 2}, Content.ATTRIBUTES)
    flow.connect()
    flow.answer_all()
    assert flow.uplink.published == [
        ("v1/devices/me/telemetry", b'[{"ts":%d,"values":{"n":1}}]' % (START_MS + 1_000)),
        ("v1/devices/me/attributes", b'{"a":2,"b":1}'),
    ]


def test_what_was_in_flight_goes_first_and_byte_equal_on_the_next_connection() -> None:
    """After the connects of its devices, before anything newer."""
    flow = Flow()
    flow.connect()
    flow.accept("A", {"n": 1})
    flow.turn()
    flow.uplink.answer()
    flow.turn()
    first = flow.uplink.published[-1]
    flow.relay.ended()
    flow.accept("B", {"n": 2})
    flow.connect()
    flow.answer_all()
    data = [one for one in flow.uplink.published if one[0] == "v1/gateway/telemetry"]
    assert data[0] == first and len(data) == 2
    assert flow.uplink.topics()[0] == "v1/gateway/connect"


def test_one_poisonous_record_is_found_and_given_up_alone() -> None:
    """Halving; the others arrive; it is counted and kept as a sample."""
    flow = Flow()
    for number in range(50):
        flow.accept("A", {"n": number, "bad": number == 33})
    flow.connect()
    flow.uplink.answer()
    flow.turn()
    for _ in range(200):
        if flow.uplink.waiting:
            is_bad = b'"bad":true' in flow.uplink.waiting[0][1]
            flow.uplink.answer(code=0x99 if is_bad else 0)
        flow.turn()
    assert flow.spool.records == {}
    assert flow.counters.sent == 49
    assert flow.counters.dropped == {"refused by the core": 1}
    assert b"33" in flow.counters.samples[0].payload


def test_too_much_means_again_after_a_while() -> None:
    """Nothing but urgent messages goes meanwhile, and nothing is lost."""
    flow = Flow()
    flow.connect()
    flow.accept("A", {"n": 1})
    flow.turn()
    flow.uplink.answer()
    flow.turn()
    flow.uplink.answer(code=0x97)
    flow.accept("A", {"n": 2})
    flow.turn()
    assert flow.uplink.waiting == []
    assert flow.relay.urgent("v1/gateway/rpc", b"{}")
    assert [topic for topic, _, _ in flow.uplink.waiting] == ["v1/gateway/rpc"]
    flow.timers.advance(1.0)
    flow.answer_all()
    assert flow.spool.records == {}


def test_a_silent_core_is_told_once() -> None:
    """No acknowledgement within `answer_timeout`."""
    flow = Flow(core=Core(answer_timeout=15.0))
    flow.relay.start()
    flow.accept("A", {"n": 1})
    flow.connect()
    flow.timers.pump([1.0] * 14)
    assert flow.silences == 0
    flow.timers.pump([1.0] * 10)
    assert flow.silences == 1


def test_a_record_too_large_for_the_core_is_dropped_and_one_too_large_for_a_batch_goes_alone() -> None:
    """The device is named in the sample."""
    flow = Flow()
    flow.accept("A", {"text": "x" * 70_000})
    flow.accept("B", {"text": "x" * 66_000})
    flow.accept("B", {"n": 1})
    flow.connect(max_packet_bytes=67_584)
    flow.answer_all()
    assert flow.counters.dropped == {"too large": 1}
    assert flow.counters.samples[0].source == "A"
    assert flow.counters.sent == 2 and flow.spool.records == {}


def test_a_device_with_history_stays_in_order_while_others_are_live() -> None:
    """After a restart its new records go into the history too; live-first sends them first."""
    for order, expected in (("device", [1, 2, 3]), ("live-first", [3, 1, 2])):
        old = Flow()
        old.accept("A", {"n": 1})
        old.accept("A", {"n": 2})
        spool = FakeSpool(records=list(old.spool.records.values()), devices=old.spool.sub_devices())
        flow = Flow(spool, store=Store(order=order))  # type: ignore[arg-type]
        flow.accept("A", {"n": 3})
        flow.connect()
        flow.answer_all()
        documents = [msgspec.json.decode(payload) for topic, payload in flow.uplink.published if "tele" in topic]
        assert [entry["values"]["n"] for document in documents for entry in document["A"]] == expected, order
        assert spool.records == {} and flow.relay.queues.backlog == 0


def test_the_cores_rates_are_kept_at_nine_tenths() -> None:
    """Publishes of sub-devices' data wait for their tokens; nothing is lost."""
    flow = Flow()
    flow.connect({"gatewayRateLimits": {"messages": "10:1", "telemetryDataPoints": "20:1"}, "maxPayloadSize": 65_536})
    for number in range(60):
        flow.accept(f"d{number}", {"n": number})
    sent = 0
    for _ in range(20):
        while flow.uplink.waiting:
            flow.uplink.answer()
        flow.turn()
        now = len(flow.uplink.published)
        assert now - sent <= 20
        sent = now
        flow.timers.advance(1.0)
    assert flow.spool.records == {}
    assert flow.timers.seconds() >= 6


def test_session_limits_are_read_with_patience() -> None:
    """Null, absent and nonsense limit nothing."""
    assert parse_rate("200:1, 6000:60,x,0:1") == ((200, 1.0), (6000, 60.0))
    for answer in (None, {"error": "unknown"}, {"rateLimits": None, "maxPayloadSize": "big"}):
        assert session_limits(answer) == session_limits({})
    assert session_limits({"maxInflightMessages": 7}).max_in_flight == 7
