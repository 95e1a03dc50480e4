"""Parts of the core that write down what they are asked and answer what the test says."""

from __future__ import annotations

from typing import Any

from cloud_core.model import Identity
from shared.errors import PackageNotFound, RateLimited
from shared.messages import ClaimRequest, PackageChunk, PackageRequest, RpcRequest


class RecordingDelivery:
    """What became of a command."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def delivered(self) -> None:
        self.outcomes.append("delivered")

    def failed(self) -> None:
        self.outcomes.append("failed")


class RecordingRpc:
    def __init__(self) -> None:
        self.replies: list[tuple[int, int, Any]] = []

    def reply(self, identity: Identity, number: int, value: Any, done: Any) -> None:
        self.replies.append((identity.device_id, number, value))
        done(None)


class RecordingServerMethods:
    def __init__(self) -> None:
        self.calls: list[RpcRequest] = []
        self.outcome: Any = None

    def call(self, identity: Identity, request: RpcRequest, done: Any) -> None:
        self.calls.append(request)
        done(self.outcome)


class RecordingClaims:
    def __init__(self) -> None:
        self.offers: list[ClaimRequest] = []
        self.outcome: Any = None

    def offer(self, identity: Identity, request: ClaimRequest, done: Any) -> None:
        self.offers.append(request)
        done(self.outcome)


class RecordingPresence:
    def __init__(self) -> None:
        self.devices: list[int] = []

    def seen(self, device_id: int) -> None:
        self.devices.append(device_id)

    def forget(self, device_id: int) -> None:
        """Deleted."""


class EmptyRates:
    """Nothing is left to spend."""

    is_on = True

    def message(self, identity: Identity) -> RateLimited | None:
        return RateLimited("message rate exceeded", retry_after_s=6.2)

    def telemetry(self, identity: Identity, messages: int, data_points: int) -> RateLimited | None:
        return RateLimited(f"{messages} and {data_points}", retry_after_s=6.2)


class PackagesFake:
    """One package; `fetch` gives its pieces, at once or when the test says so."""

    def __init__(self, data: bytes = b"", *, file_name: str = "fw.bin", content_type: str = "text/plain") -> None:
        self.data = data
        self.file_name = file_name
        self.content_type = content_type
        self.requests: list[PackageRequest] = []
        self.outcome: Any = None
        self.waiting: list[Any] | None = None  # a list: answers wait here

    def fetch(self, identity: Identity, request: PackageRequest, done: Any) -> None:
        self.requests.append(request)
        start = request.chunk * request.chunk_bytes
        end = start + (request.chunk_bytes or len(self.data))
        chunk = PackageChunk(
            data=self.data[start:end], file_name=self.file_name, content_type=self.content_type,
            total_bytes=len(self.data),
        )  # fmt: skip
        outcome = self.outcome or chunk
        if self.waiting is None:
            done(outcome)
        else:
            self.waiting.append(lambda: done(outcome))

    def vanish(self) -> None:
        self.outcome = PackageNotFound()
