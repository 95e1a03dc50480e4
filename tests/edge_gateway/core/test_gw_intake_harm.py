"""What goes wrong with one reading, connector or device at the door harms nobody else, and loses nothing."""

from __future__ import annotations

import msgspec

from edge_gateway.core.reporting import Reports
from edge_gateway.model import Content, Reading, Refusal, ReportOn, ReportRule
from tests.edge_gateway.core.test_gw_intake import intake_of
from tests.support.gateway_fakes import START_MS, Flow

CHANGE = {"t": ReportRule(on=ReportOn.CHANGE)}
FULL = Refusal(reason="full", retry_after_s=5.0)


def values(flow: Flow) -> list[object]:
    return [msgspec.json.decode(record.body) for record in flow.spool.records.values()]


def test_a_connector_that_fails_when_it_is_told_keeps_no_other_from_being_told() -> None:
    """Neither in `done` nor in `when_room`; its own bound is free again."""
    flow = Flow()
    intake = intake_of(flow)
    told: list[Refusal | None] = []

    def broken(*_: object) -> None:
        raise RuntimeError("the session is gone")

    bad, good = intake.site("bad"), intake.site("good")
    bad.accept([Reading("A", telemetry={"n": 1})], broken)
    bad.accept([Reading("A", telemetry={"n": 2})], broken)
    bad._on_room.append(broken)
    good.accept([Reading("B", telemetry={"n": 1})], told.append)
    flow.turn()
    assert told == [None]
    assert bad.snapshot()["uncommitted"] == good.snapshot()["uncommitted"] == 0
    assert len(flow.spool.records) == 3


def test_what_was_refused_with_others_counts_as_never_sent() -> None:
    """The same value by itself is stored, although its rule sends changes only."""
    flow = Flow()
    site = intake_of(flow).site("c")
    told: list[Refusal | None] = []
    good = Reading("A", telemetry={"t": 20}, reports=CHANGE)
    site.accept([good, Reading("A", telemetry={"x": object()})], told.append)
    site.accept([good], told.append)
    flow.turn()
    assert told[0] is not None and told[1] is None
    assert values(flow) == [{"t": 20}]


def test_a_device_that_was_deleted_tells_everything_anew() -> None:
    """What it said before, and what waited for its period, is forgotten."""
    flow = Flow()
    intake = intake_of(flow)
    site = intake.site("c")
    rules = {**CHANGE, "p": ReportRule(on=ReportOn.PERIOD, period_s=60)}
    for number in (1, 2):
        site.accept([Reading("A", telemetry={"t": 20, "p": number}, reports=rules)])
    flow.turn()
    flow.connect()
    flow.answer_all()
    assert flow.sub_devices.deleted("A")
    intake.reports.flush()
    flow.turn()
    assert values(flow) == []
    site.accept([Reading("A", telemetry={"t": 20}, reports=rules)])
    flow.turn()
    assert values(flow) == [{"t": 20}]


def test_a_value_that_waited_for_its_period_is_kept_when_the_disk_is_full_at_its_end() -> None:
    """Its source was told long ago that it is taken; it goes with its own time as soon as there is room."""
    flow = Flow()
    site = intake_of(flow).site("c")
    rules = {"t": ReportRule(on=ReportOn.PERIOD, period_s=60)}
    for number in (1, 2):
        site.accept([Reading("A", ts_ms=START_MS + number, telemetry={"t": number}, reports=rules)])
    flow.turn()
    flow.spool.refusal = FULL
    flow.timers.pump([30.0] * 4)
    flow.spool.refusal = None
    flow.timers.pump([5.0] * 2)
    assert [(record.ts_ms - START_MS) for record in flow.spool.records.values()] == [1, 2]
    assert values(flow) == [{"t": 1}, {"t": 2}]


def test_long_periods_with_many_changes_need_no_more_memory() -> None:
    """Ends of periods that have become meaningless are thrown away."""
    flow = Flow()
    reports = Reports(timers=flow.timers, emit=lambda *_: None)
    rules = {"t": ReportRule(on=ReportOn.CHANGE_OR_PERIOD, period_s=86_400, dead_band=1.0)}
    for number in range(20_000):
        value = number // 2 + 0.1 * (number % 2)
        reports.worth_sending("A", Content.TELEMETRY, {"t": value}, rules, (START_MS, 0))
        flow.timers.advance(0.1)
    assert len(reports._due) < 5_000


def test_a_type_that_no_core_takes_is_refused_at_the_door() -> None:
    """It would stop the announcements of all devices."""
    flow = Flow()
    site = intake_of(flow).site("c")
    flow.connect()
    told: list[Refusal | None] = []
    for kind in ("\ud800", "x" * 256, "a\nb"):
        site.accept([Reading("A", type=kind, telemetry={"n": 1})], told.append)
    site.accept([Reading("B", telemetry={"n": 2})], told.append)
    site.accept([Reading("B", type="\ud800", telemetry={"n": 2})], told.append)
    flow.turn()
    flow.answer_all()
    assert [refusal is None for refusal in told] == [False, False, False, False, True]  # what is stored is told later
    assert all("type" in refusal.reason for refusal in told if refusal is not None)
    assert flow.spool.records == {}
