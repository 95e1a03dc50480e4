"""Traces: what becomes a span, and that nothing secret is in one."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from cloud_core.core import traces
from cloud_core.model import Peer, Transport
from cloud_core.tracing import MAX_ASKED_A_SECOND, Tracing, TracingFailed
from cloud_core.transports.http.intake import route_of
from shared.errors import InvalidProvisionCredentials, NotAuthenticated, Unavailable
from shared.messages import Sample
from tests.support.rest import Rest
from tests.support.stores import StoreUnderTest
from tests.support.traces import RecordedTraces

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-1] + "0"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (b"/api/device/0198c0de-0000-7000-8000-000000000000", "/api/device"),
        (b"/api/customer/device/secret-name/claim", "/api/customer"),
        (b"/api/v1/an-access-token/telemetry", None),
        (b"/api/not%20a%20word/x", None),
        (b"/health/live", None),
        (b"/", None),
        (b"*", None),
    ],
)
def test_a_route_holds_no_name_id_or_token(path: bytes, route: str | None) -> None:
    """Only the first word behind /api/ is told; the device API is not."""
    assert route_of(path) == route


def test_attempts_and_rest_calls_become_spans_and_messages_over_http_do_not(store: StoreUnderTest) -> None:
    """One span for each, with the reference of the attempt and an end behind its beginning."""
    store.add_profile()
    rest, spans = Rest(store), RecordedTraces()
    rest.api.api.traces = spans
    rest.service.trace(spans.call)
    refused = rest.api.provision(provision_secret="wrong")
    token = rest.api.provision(device_name="d").credentials.token
    identity = rest.api.log_in(username=token)
    samples: list[Sample] = [(1, {"t": 1})]
    rest.api.outcome(lambda done: rest.api.api.post_telemetry(identity, samples, done))
    rest.call("GET", "/api/provisioning/attempts?limit=5")
    assert [(one[0].transport, one[2]) for one in spans.attempts] == [
        (Transport.HTTP, "INVALID_PROVISION_CREDENTIALS"), (Transport.HTTP, "SUCCESS"),
    ]  # fmt: skip
    assert spans.attempts[0][3] == refused.ref
    ((method, route, status, began_ns, ended_ns),) = spans.calls
    assert (method, route, status) == ("GET", "/api/provisioning", 200)
    assert all(one[-2] <= one[-1] for one in [*spans.attempts, (began_ns, ended_ns)])


def test_without_the_library_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingFailed, match=r"muster\[tracing\]"):
        Tracing(endpoint="http://127.0.0.1:1/v1/traces", sampled=1.0)


def test_spans_reach_the_exporter_with_their_members() -> None:
    """Names, times, members and status are what was measured."""
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    tracing = Tracing(endpoint="", sampled=1.0, exporter=exporter)
    tracing.attempt(Peer(Transport.MQTT, "192.0.2.1"), "stored", "SUCCESS", "R-1", 1_000, 2_000)
    tracing.call("GET", "/api/device", 500, 3_000, 4_000)
    tracing._provider.force_flush()
    first, second = exporter.get_finished_spans()
    assert (first.name, first.start_time, first.end_time) == ("provision", 1_000, 2_000)
    assert dict(first.attributes) == {
        "muster.transport": "mqtt", "muster.stage": "stored", "muster.outcome": "SUCCESS", "muster.ref": "R-1",
    }  # fmt: skip
    assert (second.name, second.status.is_ok) == ("GET /api/device", False)
    tracing.stop()


def recorded(**shares: float) -> tuple[Tracing, Any]:
    """Any: the exporter, of a library without types."""
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    return Tracing(endpoint="", **({"sampled": 1.0} | shares), exporter=exporter), exporter


def finished(tracing: Tracing, exporter: Any) -> list[Any]:
    tracing._provider.force_flush()
    return list(exporter.get_finished_spans())


def test_a_message_has_transport_operation_outcome_and_reference() -> None:
    """The first outcome counts; what is our fault is an error, what is the peer's is none."""
    tracing, exporter = recorded(sampled_messages=1.0)
    refused = InvalidProvisionCredentials("no profile has this key: hush")
    refused.ref = "R-7"
    for outcome in (None, refused, Unavailable()):
        span = tracing.begin(Transport.COAP, traces.TELEMETRY)
        assert span is not None
        span.end(outcome)
        span.end(NotAuthenticated())
    good, bad, ours = finished(tracing, exporter)
    common = {"muster.transport": "coap", "muster.operation": "telemetry"}
    assert dict(good.attributes) == common | {"muster.outcome": "SUCCESS"}
    assert dict(bad.attributes) == common | {"muster.outcome": "INVALID_PROVISION_CREDENTIALS", "muster.ref": "R-7"}
    assert (ours.attributes["muster.outcome"], ours.status.is_ok, bad.status.is_ok) == ("UNAVAILABLE", False, True)
    assert good.parent is None and good.start_time <= good.end_time
    tracing.stop()


def test_a_span_stands_beneath_the_one_that_the_peer_names() -> None:
    """Messages and attempts alike; a wrong name is as none."""
    tracing, exporter = recorded(sampled_messages=1.0)
    for parent in (PARENT, "00-nonsense"):
        span = tracing.begin(Transport.MQTT, traces.ATTRIBUTES, parent)
        assert span is not None
        span.end(None)
    tracing.attempt(Peer(Transport.MQTT, "192.0.2.1", UNSAMPLED), "stored", "SUCCESS", "R-1", 1_000, 2_000)
    named, wrong, attempt = finished(tracing, exporter)
    assert (f"{named.context.trace_id:032x}", f"{named.parent.span_id:016x}") == (PARENT[3:35], PARENT[36:52])
    assert named.parent.is_remote and wrong.parent is None
    assert f"{attempt.context.trace_id:032x}" == PARENT[3:35]
    tracing.stop()


def test_peers_may_ask_for_a_bounded_number_of_spans_beyond_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many in a second where they keep their own; none for others, and none for who does not keep his."""
    tracing, _ = recorded(sampled=0.0, sampled_messages=0.0)
    now_s = 7.0
    monkeypatch.setattr("cloud_core.tracing.time.monotonic", lambda: now_s)
    begin = [tracing.begin(Transport.MQTT, traces.TELEMETRY, PARENT) for _ in range(MAX_ASKED_A_SECOND + 5)]
    assert [one is not None for one in begin] == [True] * MAX_ASKED_A_SECOND + [False] * 5
    now_s = 8.0
    assert tracing.begin(Transport.MQTT, traces.LOGIN, PARENT) is not None
    assert tracing.begin(Transport.MQTT, traces.LOGIN, UNSAMPLED) is None
    assert tracing.begin(Transport.MQTT, traces.LOGIN) is None
    tracing.stop()


def test_logins_go_by_the_share_of_attempts() -> None:
    """They are as rare, and as telling."""
    tracing, _ = recorded(sampled=1.0, sampled_messages=0.0)
    assert tracing.begin(Transport.MQTT, traces.LOGIN) is not None
    assert tracing.begin(Transport.MQTT, traces.TELEMETRY) is None
    tracing.stop()
