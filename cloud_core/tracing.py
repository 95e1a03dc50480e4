"""OpenTelemetry traces: a span for each provision attempt and each REST call, none for messages of devices.

Comes with the extra `muster[tracing]`; nothing of it is imported where `[tracing] endpoint` is empty. Spans name
transports, outcomes and the kind of a call, and the reference of an attempt; never a path, a query or a name, which may
hold tokens. They are handed to a thread of the exporter's; when it cannot keep up, spans are lost and nothing waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

SERVICE = "muster-cloud-core"
EXPORT_TIMEOUT_S = 5
STOP_MS = 2_000
MAX_QUEUED = 8_192


class TracingFailed(Exception):
    """`str()` is one sentence for the user."""


class Tracing:
    """Spans that have ended already: who measures says when they began."""

    def __init__(self, *, endpoint: str, sampled: float, exporter: Any = None) -> None:
        """`endpoint` takes OTLP over HTTP, such as `http://collector:4318/v1/traces`; `sampled` is the share of spans
        that are sent. Any: the library has no types where it is not installed. Raises: TracingFailed.
        """
        try:
            sdk = import_module("opentelemetry.sdk.trace")
            export = import_module("opentelemetry.sdk.trace.export")
            sampling = import_module("opentelemetry.sdk.trace.sampling")
            resources = import_module("opentelemetry.sdk.resources")
            trace = import_module("opentelemetry.trace")
            if exporter is None:
                otlp = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
                exporter = otlp.OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
        except ImportError as error:
            raise TracingFailed(
                "[tracing] endpoint needs OpenTelemetry: pip install 'muster[tracing]', or leave the endpoint empty."
            ) from error
        self._provider = sdk.TracerProvider(
            resource=resources.Resource.create({"service.name": SERVICE}),
            sampler=sampling.TraceIdRatioBased(sampled),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter, max_queue_size=MAX_QUEUED))
        self._tracer = self._provider.get_tracer(SERVICE)
        self._error = trace.Status(trace.StatusCode.ERROR)
        self._kind = trace.SpanKind.SERVER

    def attempt(self, transport: str, stage: str, outcome: str, ref: str, began_ns: int, ended_ns: int) -> None:
        """A provision attempt, decided."""
        members = {
            "muster.transport": transport, "muster.stage": stage, "muster.outcome": outcome, "muster.ref": ref
        }  # fmt: skip
        self._add("provision", members, began_ns, ended_ns, is_error=outcome == "UNAVAILABLE")

    def call(self, method: str, route: str, status: int, began_ns: int, ended_ns: int) -> None:
        """A REST call, answered. `route` as `route_of` gives it."""
        members = {"http.request.method": method, "http.response.status_code": status, "http.route": route}
        self._add(f"{method} {route}", members, began_ns, ended_ns, is_error=status >= 500)

    def stop(self) -> None:
        """Sends what has gathered, for STOP_MS at the most; blocks until then."""
        self._provider.force_flush(STOP_MS)
        self._provider.shutdown()

    def _add(self, name: str, members: Mapping[str, Any], began_ns: int, ended_ns: int, *, is_error: bool) -> None:
        span = self._tracer.start_span(name, kind=self._kind, attributes=members, start_time=began_ns)
        if is_error:
            span.set_status(self._error)
        span.end(ended_ns)
