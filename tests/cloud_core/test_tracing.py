"""Traces: what becomes a span, and that nothing secret is in one."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from cloud_core.tracing import Tracing, TracingFailed
from cloud_core.transports.http.intake import route_of
from shared.messages import Sample
from tests.support.rest import Rest
from tests.support.stores import StoreUnderTest


class Recorder:
    """Stands for `Tracing`."""

    def __init__(self) -> None:
        self.attempts: list[tuple[Any, ...]] = []
        self.calls: list[tuple[Any, ...]] = []

    def attempt(self, *members: Any) -> None:
        self.attempts.append(members)

    def call(self, *members: Any) -> None:
        self.calls.append(members)


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


def test_attempts_and_rest_calls_become_spans_and_messages_do_not(store: StoreUnderTest) -> None:
    """One span for each, with the reference of the attempt and an end behind its beginning."""
    store.add_profile()
    rest, spans = Rest(store), Recorder()
    rest.api.api.on_attempt = spans.attempt
    rest.service.trace(spans.call)
    refused = rest.api.provision(provision_secret="wrong")
    token = rest.api.provision(device_name="d").credentials.token
    identity = rest.api.log_in(username=token)
    samples: list[Sample] = [(1, {"t": 1})]
    rest.api.outcome(lambda done: rest.api.api.post_telemetry(identity, samples, done))
    rest.call("GET", "/api/provisioning/attempts?limit=5")
    assert [(one[0], one[2]) for one in spans.attempts] == [
        ("http", "INVALID_PROVISION_CREDENTIALS"), ("http", "SUCCESS"),
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
    tracing.attempt("mqtt", "stored", "SUCCESS", "R-1", 1_000, 2_000)
    tracing.call("GET", "/api/device", 500, 3_000, 4_000)
    tracing._provider.force_flush()
    first, second = exporter.get_finished_spans()
    assert (first.name, first.start_time, first.end_time) == ("provision", 1_000, 2_000)
    assert dict(first.attributes) == {
        "muster.transport": "mqtt", "muster.stage": "stored", "muster.outcome": "SUCCESS", "muster.ref": "R-1",
    }  # fmt: skip
    assert (second.name, second.status.is_ok) == ("GET /api/device", False)
    tracing.stop()
