"""Parts of the core that record what a transport asks of them, and answer as a test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloud_core.model import Identity
from shared.errors import PackageNotFound, RateLimited
from shared.messages import ClaimRequest, PackageChunk, PackageRequest, RpcRequest


class RecordingRpc:
    """Stands for `RpcApi` as devices see it."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, Any]] = []

    def reply(self, _identity: Identity, number: int, value: Any, done: Callable[[Any], None]) -> None:
        self.replies.append((number, value))
        done(None)


class RecordingDelivery:
    """Stands for a command's way back; `outcomes` are "delivered" and "failed"."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def delivered(self) -> None:
        self.outcomes.append("delivered")

    def failed(self) -> None:
        self.outcomes.append("failed")


class RecordingMethods:
    """Stands for `ServerMethods`; the test answers by `done` of an entry of `calls`, or sets `answer`."""

    def __init__(self, answer: Any = None) -> None:
        self.calls: list[tuple[RpcRequest, Callable[[Any], None]]] = []
        self.answer = answer

    def call(self, _identity: Identity, request: RpcRequest, done: Callable[[Any], None]) -> None:
        self.calls.append((request, done))
        if self.answer is not None:
            done(self.answer)


class RecordingClaims:
    """Stands for `ClaimsApi` as devices see it; `outcome` is what an offer gets."""

    def __init__(self, outcome: Any = None) -> None:
        self.offers: list[ClaimRequest] = []
        self.outcome = outcome

    def offer(self, _identity: Identity, request: ClaimRequest, done: Callable[[Any], None]) -> None:
        self.offers.append(request)
        done(self.outcome)


class OnePackage:
    """Stands for `PackagesApi`: one package that everybody is assigned, or none.

    With `is_waiting` answers are kept until `release`.
    """

    def __init__(self, data: bytes | None = None, *, is_waiting: bool = False) -> None:
        self.data = data
        self.requests: list[PackageRequest] = []
        self._is_waiting = is_waiting
        self._kept: list[Callable[[], None]] = []

    def fetch(self, _identity: Identity, request: PackageRequest, done: Callable[[Any], None]) -> None:
        self.requests.append(request)
        if self._is_waiting:
            self._kept.append(lambda: done(self._answer(request)))
        else:
            done(self._answer(request))

    def release(self) -> None:
        """Answers the oldest request."""
        self._kept.pop(0)()

    def _answer(self, request: PackageRequest) -> Any:
        if self.data is None:
            return PackageNotFound()
        size = request.chunk_bytes or len(self.data)
        data = self.data[request.chunk * size : (request.chunk + 1) * size]
        return PackageChunk(data=data, file_name="f", content_type="", total_bytes=len(self.data))


class RecordingPresence:
    """Stands for `Presence`; `events` are ("connected" | "disconnected" | "seen", device number)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def connected(self, device_id: int) -> None:
        self.events.append(("connected", device_id))

    def disconnected(self, device_id: int) -> None:
        self.events.append(("disconnected", device_id))

    def seen(self, device_id: int) -> None:
        self.events.append(("seen", device_id))

    def forget(self, device_id: int) -> None:
        self.events.append(("forget", device_id))


class Budget:
    """Stands for `RateLimits`: so many messages now; the test gives more. `retry_after_s` None: it never fits."""

    is_on = True

    def __init__(self, left: int, *, retry_after_s: float | None = 2.0) -> None:
        self.left = left
        self.retry_after_s = retry_after_s

    def message(self, _identity: Identity) -> RateLimited | None:
        return self._spend()

    def telemetry(self, _identity: Identity, messages: int, data_points: int) -> RateLimited | None:
        assert messages == 1 and data_points >= 1, "each message is counted by itself"
        return self._spend()

    def forget(self, device_id: int) -> None:
        """Nothing is remembered by device."""

    def _spend(self) -> RateLimited | None:
        if self.left <= 0:
            return RateLimited("Too many messages.", retry_after_s=self.retry_after_s)
        self.left -= 1
        return None


class MarkedCodec:
    """Stands for a protobuf codec: JSON with `P` before it, so that a test sees who wrote what."""

    def __init__(self, json: Any) -> None:
        self._json = json

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._json, name)

        def renders(*args: Any, **options: Any) -> bytes:
            return b"P" + bytes(inner(*args, **options))

        def parses(body: bytes, **options: Any) -> Any:
            if body[:1] == b"P":
                return inner(body[1:], **options)
            return inner(b"not JSON", **options)

        return renders if name.startswith("render_") else parses
