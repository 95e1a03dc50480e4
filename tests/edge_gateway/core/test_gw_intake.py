"""From a connector to the spool."""

from __future__ import annotations

import msgspec

from edge_gateway.core.intake import MAX_UNCOMMITTED_READINGS, Intake
from edge_gateway.model import Reading, Refusal, ReportOn, ReportRule
from tests.support.gateway_fakes import START_MS, Flow


def intake_of(flow: Flow) -> Intake:
    return Intake(
        spool=flow.spool, relay=flow.relay, sub_devices=flow.sub_devices, clock=flow.clock, timers=flow.timers
    )


def test_readings_are_acknowledged_when_they_are_on_disk_and_one_turn_is_one_append() -> None:
    """The device is remembered ahead of its first record."""
    flow = Flow()
    intake = intake_of(flow)
    flow.spool.is_slow = True
    told: list[Refusal | None] = []
    for number in range(3):
        intake.site("c").accept([Reading("A", telemetry={"n": number}, attributes={"fw": number})], told.append)
    flow.turn()
    assert told == []
    flow.spool.commit()
    assert told == [None] * 3
    assert flow.spool.appends == [[1, 2, 3, 4, 5, 6]]
    assert flow.spool.log[0] == "A"
    assert flow.spool.records[1].ts_ms == START_MS + 1_000


def test_one_call_is_taken_or_refused_as_a_whole() -> None:
    """A device that may not come in, or a value that is no JSON, refuses all of it, with the reason counted."""
    flow = Flow()
    site = intake_of(flow).site("c")
    told: list[Refusal | None] = []
    site.accept([Reading("A", telemetry={"a": 1}), Reading("", telemetry={"a": 1})], told.append)
    site.accept([Reading("A", telemetry={"a": object()})], told.append)
    flow.turn()
    assert all(refusal is not None for refusal in told) and len(told) == 2
    assert flow.spool.records == {}
    assert sum(site.refused.values()) == 3
    assert len(site.snapshot()["samples"]) == 2


def test_a_flooding_connector_is_held_back_alone() -> None:
    """Its own bound fills; there is room again after the commit."""
    flow = Flow()
    intake = intake_of(flow)
    flow.spool.is_slow = True
    flood, calm = intake.site("flood"), intake.site("calm")
    flood.accept([Reading("A", telemetry={"n": 1})] * MAX_UNCOMMITTED_READINGS)
    assert flood.is_congested and not calm.is_congested
    rooms: list[str] = []
    flood.when_room(lambda: rooms.append("room"))
    flow.turn()
    assert rooms == []
    flow.spool.commit()
    assert rooms == ["room"] and not flood.is_congested


def test_what_a_rule_withholds_is_acknowledged_at_once_and_a_refused_change_is_sent_again() -> None:
    """The spool's refusal takes the memory of the change back."""
    flow = Flow()
    site = intake_of(flow).site("c")
    told: list[Refusal | None] = []
    reading = Reading("A", telemetry={"t": 20}, reports={"t": ReportRule(on=ReportOn.CHANGE)})
    flow.spool.refusal = Refusal(reason="full", retry_after_s=5)
    site.accept([reading], told.append)
    flow.turn()
    flow.spool.refusal = None
    site.accept([reading], told.append)
    flow.turn()
    site.accept([reading], told.append)
    assert told == [Refusal(reason="full", retry_after_s=5), None, None]
    assert len(flow.spool.records) == 1 and site.withheld == 1


def test_the_newest_value_of_a_period_goes_at_its_end_with_its_own_time_and_at_stop() -> None:
    """The first goes at once; a period without a value sends nothing."""
    flow = Flow()
    intake = intake_of(flow)
    rules = {"t": ReportRule(on=ReportOn.PERIOD, period_s=60)}
    for value in (1, 2, 3):
        intake.site("c").accept([Reading("A", ts_ms=START_MS + value, telemetry={"t": value}, reports=rules)])
        flow.timers.advance(1)
    flow.timers.advance(60)
    flow.timers.advance(60)
    intake.site("c").accept([Reading("A", ts_ms=START_MS + 4, telemetry={"t": 4}, reports=rules)])
    intake.site("c").accept([Reading("A", ts_ms=START_MS + 5, telemetry={"t": 5}, reports=rules)])
    intake.stop()
    kept = [(record.ts_ms - START_MS, msgspec.json.decode(record.body)["t"]) for record in flow.spool.records.values()]
    assert sorted(kept) == [(1, 1), (3, 3), (4, 4), (5, 5)]


def test_small_changes_stay_within_the_dead_band() -> None:
    """Absolute and in percent, measured from the last value that went; other than numbers change when they differ."""
    flow = Flow()
    site = intake_of(flow).site("c")
    rules = {
        "a": ReportRule(on=ReportOn.CHANGE, dead_band=0.1),
        "p": ReportRule(on=ReportOn.CHANGE, dead_band=10, is_percent=True),
        "s": ReportRule(on=ReportOn.CHANGE),
    }
    for values in ({"a": 20.1, "p": 100, "s": True}, {"a": 20.15, "p": 109, "s": 1}, {"a": 20.2, "p": 110, "s": 1}):
        site.accept([Reading("A", telemetry=values, reports=rules)])
    flow.turn()
    bodies = [msgspec.json.decode(record.body) for record in flow.spool.records.values()]
    assert bodies == [{"a": 20.1, "p": 100, "s": True}, {"s": 1}, {"a": 20.2, "p": 110}]
