"""What is told to whoever traces: provision attempts, logins and messages of devices, each with its outcome.

`DeviceApi.traces` is None where nobody does, and that it is None is all that anything asks then. Nothing secret is
told: transports, operations, outcomes and references.
"""

from __future__ import annotations

from typing import Any, Protocol

from cloud_core.model import Peer, Transport
from cloud_core.storage.interface import Done

LOGIN = "login"
TELEMETRY = "telemetry"
ATTRIBUTES = "attributes"
ATTRIBUTES_REQUEST = "attributes request"
RPC_COMMAND = "rpc command"  # of the server; ends with its delivery
RPC_REPLY = "rpc reply"
RPC_CALL = "rpc call"  # of the device


class Span(Protocol):
    """Something under way that is traced."""

    def end(self, outcome: object) -> None:
        """A `PlatformError` or its reason; anything else is success. The first outcome counts."""


class Traces(Protocol):
    """`cloud_core.tracing.Tracing`. A `traceparent` is as the peer has sent it, empty for none."""

    def attempt(self, peer: Peer, stage: str, outcome: str, ref: str, began_ns: int, ended_ns: int) -> None:
        """A provision attempt, decided. `outcome`: SUCCESS or the reason."""

    def begin(self, transport: Transport, operation: str, traceparent: str = "") -> Span | None:
        """A login or a message of a device, if it is among those that are traced."""


def ending(span: Span | None, done: Done[Any]) -> Done[Any]:
    """`done`, with whose outcome the span ends, if there is one."""
    if span is None:
        return done

    def ended(outcome: Any) -> None:  # Any: whatever `done` takes
        span.end(outcome)
        done(outcome)

    return ended
