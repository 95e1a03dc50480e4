"""A core that answers with errors, or hangs up, for reasons that are not the reading's: nothing is given up."""

from __future__ import annotations

import msgspec

from tests.support.gateway_fakes import Flow

DATA = "v1/gateway/telemetry"


def devices_in(payload: bytes) -> set[str]:
    return set(msgspec.json.decode(payload))


class Core:
    """Answers what waits: `verdict` by the devices of a publish; None: it hangs up instead."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.stored: list[str] = []

    def serve(self, verdict: dict[str, int | None], default: int = 0) -> bool:
        """Until nothing waits; False when it hung up."""
        while self.flow.uplink.waiting:
            topic, payload, _ = self.flow.uplink.waiting[0]
            codes = [verdict.get(device, default) for device in devices_in(payload)] if topic == DATA else [0]
            if None in codes:
                self.flow.relay.ended()
                return False
            code = max(code for code in codes if code is not None)
            self.flow.uplink.answer(0, code)
            if topic == DATA and code == 0:
                self.stored += devices_in(payload)
            self.flow.turn()
        return True


def test_errors_of_an_outage_give_no_reading_up() -> None:
    """0x80 for everything, for ten minutes: all arrives when it is over."""
    flow = Flow()
    core = Core(flow)
    for device in "ab":
        flow.accept(device, {"n": 1})
    flow.connect()
    for _ in range(600):
        core.serve({}, default=0x80)
        flow.timers.advance(1.0)
    assert core.stored == [] and flow.counters.dropped == {}
    for _ in range(120):
        core.serve({})
        flow.timers.advance(1.0)
    assert sorted(core.stored) == ["a", "b"] and not flow.spool.records


def test_a_reading_that_alone_is_refused_is_given_up() -> None:
    """The core takes others meanwhile, so it is the reading's fault; it is counted, with a sample."""
    flow = Flow()
    core = Core(flow)
    flow.accept("bad", {"n": 1})
    flow.connect()
    for second in range(60):
        flow.accept("good", {"n": second})
        core.serve({"bad": 0x83})
        flow.timers.advance(1.0)
    assert flow.counters.dropped == {"refused by the core": 1}
    assert core.stored.count("good") == 60 and not flow.spool.records


def test_a_reading_at_which_the_core_hangs_up_keeps_only_its_own_device_waiting() -> None:
    """As ThingsBoard does over MQTT 3.1.1: the others go on, and nothing is dropped."""
    flow = Flow()
    core = Core(flow)
    for device in ("bad", "good", "other"):
        flow.accept(device, {"n": 1})
    for _ in range(200):
        flow.connect()
        flow.turn()
        core.serve({"bad": None})
        flow.timers.advance(1.0)
        if {"good", "other"} <= set(core.stored):
            break
    assert {"good", "other"} <= set(core.stored)
    assert flow.counters.dropped == {} and {record.device for record in flow.spool.records.values()} == {"bad"}
    flow.connect()
    flow.turn()
    is_up = core.serve({"bad": None})
    flow.accept("good", {"n": 2})
    flow.turn()
    assert is_up and core.serve({"bad": None})  # it waits for a while, and the connection lives
    assert core.stored.count("good") == 2
