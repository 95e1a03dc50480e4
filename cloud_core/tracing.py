"""OpenTelemetry traces: a span for each provision attempt, login and REST call, and for a share of the messages that
devices send over MQTT and CoAP.

Comes with the extra `muster[tracing]`; nothing of it is imported where `[tracing] endpoint` is empty. Spans name
transports, outcomes and the kind of a call, and the reference of an attempt; never a path, a query or a name, which may
hold tokens. A device that names a span of its own (`traceparent`) has its span beneath that one, and may ask for a few
more than the share. They are handed to a thread of the exporter's; when it cannot keep up, spans are lost and nothing
waits.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from cloud_core.core import traces
from cloud_core.model import Peer, Transport
from shared.errors import PlatformError, Reason
from shared.traceparent import parse_traceparent

SERVICE = "muster-cloud-core"
EXPORT_TIMEOUT_S = 5
STOP_MS = 2_000
MAX_QUEUED = 8_192
MAX_ASKED_A_SECOND = 100  # spans beyond the share, because peers ask for them
SUCCESS = "SUCCESS"
_FAULTS = (Reason.UNAVAILABLE.value,)  # ours, not the peer's


class TracingFailed(Exception):
    """`str()` is one sentence for the user."""


class Tracing:
    """Spans that have ended already: who measures says when they began."""

    def __init__(self, *, endpoint: str, sampled: float, sampled_messages: float = 0.0, exporter: Any = None) -> None:
        """`endpoint` takes OTLP over HTTP, such as `http://collector:4318/v1/traces`; `sampled` is the share of spans
        that are sent, `sampled_messages` that of devices' messages. Any: the library has no types where it is not
        installed. Raises: TracingFailed.
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
            sampler=sampling.ALWAYS_ON,  # what is not traced does not come so far
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter, max_queue_size=MAX_QUEUED))
        self._tracer = self._provider.get_tracer(SERVICE)
        self._error = trace.Status(trace.StatusCode.ERROR)
        self._kind = trace.SpanKind.SERVER
        self._trace = trace
        self._sampled, self._sampled_messages = sampled, sampled_messages
        self._asked_at_s, self._asked = 0, 0

    def attempt(self, peer: Peer, stage: str, outcome: str, ref: str, began_ns: int, ended_ns: int) -> None:
        """As `core.traces.Traces.attempt`."""
        parent = self._parent(peer.traceparent)
        if not self._is_due(self._sampled, parent):
            return
        members = {
            "muster.transport": peer.transport.value, "muster.stage": stage, "muster.outcome": outcome,
            "muster.ref": ref,
        }  # fmt: skip
        self._add("provision", members, began_ns, ended_ns, is_error=outcome in _FAULTS, parent=parent)

    def begin(self, transport: Transport, operation: str, traceparent: str = "") -> Started | None:
        """As `core.traces.Traces.begin`."""
        parent = self._parent(traceparent)
        share = self._sampled if operation == traces.LOGIN else self._sampled_messages
        return Started(self, transport, operation, parent) if self._is_due(share, parent) else None

    def call(self, method: str, route: str, status: int, began_ns: int, ended_ns: int) -> None:
        """A REST call, answered. `route` as `route_of` gives it."""
        if not self._is_due(self._sampled, None):
            return
        members = {"http.request.method": method, "http.response.status_code": status, "http.route": route}
        self._add(f"{method} {route}", members, began_ns, ended_ns, is_error=status >= 500)

    def stop(self) -> None:
        """Sends what has gathered, for STOP_MS at the most; blocks until then."""
        self._provider.force_flush(STOP_MS)
        self._provider.shutdown()

    def ended(self, started: Started, outcome: object) -> None:
        """A span that was begun."""
        reason = outcome.reason if isinstance(outcome, PlatformError) else outcome
        said = reason.value if isinstance(reason, Reason) else SUCCESS
        members = {
            "muster.transport": started.transport.value, "muster.operation": started.operation, "muster.outcome": said
        }  # fmt: skip
        if isinstance(outcome, PlatformError) and outcome.ref:
            members["muster.ref"] = outcome.ref
        self._add(
            started.operation, members, started.began_ns, time.time_ns(), is_error=said in _FAULTS,
            parent=started.parent,
        )  # fmt: skip

    def _parent(self, traceparent: str) -> Any:  # Any: SpanContext
        """What the peer has named, None where it has not or wrongly."""
        found = parse_traceparent(traceparent) if traceparent else None
        if found is None:
            return None
        flags = self._trace.TraceFlags(self._trace.TraceFlags.SAMPLED if found.is_sampled else 0)
        return self._trace.SpanContext(found.trace_id, found.span_id, is_remote=True, trace_flags=flags)

    def _is_due(self, share: float, parent: Any) -> bool:  # Any: as above
        """By the share; beyond it where the peer keeps its own span, so many in a second."""
        if share >= 1 or random.random() < share:
            return True
        if parent is None or not parent.trace_flags.sampled:
            return False
        now_s = int(time.monotonic())
        if now_s != self._asked_at_s:
            self._asked_at_s, self._asked = now_s, 0
        self._asked += 1
        return self._asked <= MAX_ASKED_A_SECOND

    def _add(
        self, name: str, members: Mapping[str, Any], began_ns: int, ended_ns: int, *, is_error: bool, parent: Any = None
    ) -> None:
        context = None
        if parent is not None:
            context = self._trace.set_span_in_context(self._trace.NonRecordingSpan(parent))
        span = self._tracer.start_span(name, context=context, kind=self._kind, attributes=members, start_time=began_ns)
        if is_error:
            span.set_status(self._error)
        span.end(ended_ns)


class Started:
    """`core.traces.Span`: a login or a message that is under way."""

    __slots__ = ("_is_over", "_tracing", "began_ns", "operation", "parent", "transport")

    def __init__(self, tracing: Tracing, transport: Transport, operation: str, parent: Any) -> None:
        self._tracing = tracing
        self.transport = transport
        self.operation = operation
        self.parent = parent
        self.began_ns = time.time_ns()
        self._is_over = False

    def end(self, outcome: object) -> None:
        if not self._is_over:
            self._is_over = True
            self._tracing.ended(self, outcome)
