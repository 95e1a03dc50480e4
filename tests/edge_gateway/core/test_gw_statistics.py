"""The gateway's own telemetry and what `status` shows."""

from __future__ import annotations

import msgspec

from edge_gateway.core.intake import Intake
from edge_gateway.core.statistics import Statistics
from edge_gateway.model import Content, Health, Reading
from tests.support.gateway_fakes import Flow


def test_the_numbers_go_through_the_spool_as_the_gateways_own_telemetry() -> None:
    """In, out, waiting, dropped by reason, connectors by health; the snapshot is JSON."""
    flow = Flow()
    intake = Intake(
        spool=flow.spool, relay=flow.relay, sub_devices=flow.sub_devices, clock=flow.clock, timers=flow.timers
    )
    statistics = Statistics(
        counters=flow.counters,
        spool=flow.spool,
        relay=flow.relay,
        sites=lambda: {name: site for name, site in intake.sites.items() if name},
        devices=lambda: flow.sub_devices.count,
        timers=flow.timers,
        wall_ms=flow.wall_ms,
        every_s=60.0,
        send=lambda values: intake.own(Content.TELEMETRY, values),
    )
    site = intake.site("c")
    site.health(Health.HEALTHY)
    site.accept([Reading("A", telemetry={"n": 1}), Reading("B", telemetry={"n": 2})])
    flow.turn()
    flow.spool.drop([1])
    statistics.start()
    flow.timers.advance(60)
    flow.turn()
    own = [record for record in flow.spool.records.values() if record.device == ""]
    values = msgspec.json.decode(own[0].body)
    assert (values["readingsIn"], values["recordsWaiting"], values["devices"]) == (2, 1, 2)
    assert (values["droppedSize"], values["connectorsHealthy"], values["oldestWaitingS"]) == (1, 1, 60)
    snapshot = msgspec.json.decode(msgspec.json.encode(statistics.snapshot()))
    assert snapshot["connectors"]["c"]["readings"] == 2
    statistics.stop()
    assert flow.relay.snapshot()["isConnected"] is False
