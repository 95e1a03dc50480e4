"""Stands for `cloud_core.tracing.Tracing`: everything is traced, and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cloud_core.model import Peer, Transport
from shared.errors import PlatformError, Reason

SUCCESS = "SUCCESS"


@dataclass
class RecordedSpan:
    transport: str
    operation: str
    traceparent: str
    outcomes: list[str] = field(default_factory=list)

    def end(self, outcome: object) -> None:
        reason = outcome.reason if isinstance(outcome, PlatformError) else outcome
        self.outcomes.append(reason.value if isinstance(reason, Reason) else SUCCESS)


class RecordedTraces:
    def __init__(self) -> None:
        self.attempts: list[tuple[Any, ...]] = []
        self.calls: list[tuple[Any, ...]] = []
        self.spans: list[RecordedSpan] = []

    def attempt(self, *members: Any) -> None:
        self.attempts.append(members)

    def call(self, *members: Any) -> None:
        self.calls.append(members)

    def begin(self, transport: Transport, operation: str, traceparent: str = "") -> RecordedSpan:
        span = RecordedSpan(transport.value, operation, traceparent)
        self.spans.append(span)
        return span

    def take(self) -> list[tuple[str, str, str]]:
        """(operation, first outcome or "" while it is under way, traceparent) of the spans since the last call."""
        taken, self.spans = self.spans, []
        return [(one.operation, one.outcomes[0] if one.outcomes else "", one.traceparent) for one in taken]

    @property
    def peers(self) -> list[Peer]:
        return [members[0] for members in self.attempts]
