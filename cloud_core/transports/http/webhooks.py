"""Webhooks: calls of devices, posted to the URLs that operators bound them to.

A request carries `X-Muster-Method` and, over its body, `X-Muster-Signature-256: sha256=<hex of HMAC-SHA256>` made
with the method's secret. Redirects are not followed; anything but a 2xx answer is a failure.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from cloud_core.model import ServerMethod

log = Logger()
MAX_ANSWER_BYTES = 65_536
KEPT_OPEN_PER_HOST = 8
KEPT_OPEN_S = 30
SIGNATURE = "X-Muster-Signature-256"


class WebhookFailed(Exception):
    """`str()` is the reason, for the log."""


class _Whole:
    """A request's body, written at once: twisted's IBodyProducer, in as much as `Agent` asks for it."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is written already."""

    def resumeProducing(self) -> None:
        """It is written already."""

    def stopProducing(self) -> None:
        """It is written already."""


class _Body(Protocol):
    """Gathers an answer's body, up to the bound."""

    transport: Any  # twisted's TransportProxyProducer

    def __init__(self, done: Deferred[bytes]) -> None:
        self._done = done
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_ANSWER_BYTES:
            self._parts.append(data)
        elif not self._done.called:
            self._done.errback(WebhookFailed(f"its answer is above {MAX_ANSWER_BYTES} bytes"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self._done.callback(b"".join(self._parts))
        else:
            self._done.errback(reason)


class Webhooks:
    """Sends; each call ends within the timeout of its method."""

    def __init__(self, reactor: Any, agent: Any = None) -> None:
        # Untyped: `reactor` stands for TCP, TLS and time at once; a test gives its own `agent`.
        self._reactor = reactor
        self._pool: Any = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = KEPT_OPEN_PER_HOST
        self._pool.cachedConnectionTimeout = KEPT_OPEN_S
        self._pool.retryAutomatically = False
        self._agent: Any = agent or Agent(reactor, pool=self._pool)

    def post(self, method: ServerMethod, body: bytes, done: Callable[[bytes | None], None]) -> None:
        """`done` with the answer's body; None when it failed or took too long, which the log explains."""
        called = Deferred.fromCoroutine(self._answer_to(method, body))
        timer = self._reactor.callLater(method.timeout_ms / 1000, called.cancel)

        def ended(outcome: bytes | Failure) -> None:
            if timer.active():
                timer.cancel()
            if isinstance(outcome, Failure):
                host = urlsplit(method.url).hostname or ""  # the rest of a URL may hold secrets
                log.warn(
                    "The webhook of {method} at {host} failed: {why}", method=method.method, host=host,
                    why=_reason(outcome),
                )  # fmt: skip
                done(None)
            else:
                done(outcome)

        called.addBoth(ended)

    def stop(self) -> Deferred[Any]:
        """Closes the connections that are kept open."""
        closed: Deferred[Any] = self._pool.closeCachedConnections()
        return closed

    async def _answer_to(self, method: ServerMethod, body: bytes) -> bytes:
        headers = {
            "Content-Type": ["application/json"], "User-Agent": ["muster"], "X-Muster-Method": [method.method],
            SIGNATURE: [f"sha256={signature(method.secret, body)}"],
        }  # fmt: skip
        response: Any = await self._agent.request(b"POST", method.url.encode("ascii"), Headers(headers), _Whole(body))
        gathered: Deferred[bytes] = Deferred(lambda _: receiver.transport.loseConnection())
        receiver = _Body(gathered)
        response.deliverBody(receiver)
        content = await gathered
        if not 200 <= response.code < 300:
            raise WebhookFailed(f"it answered with status {response.code}")
        return content


def signature(secret: str, body: bytes) -> str:
    """Hex of HMAC-SHA256 over the body."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _reason(failure: Failure) -> str:
    if failure.check(CancelledError):
        return "no answer in time"
    if failure.check(WebhookFailed):
        return failure.getErrorMessage()
    return failure.type.__name__ if failure.type else "unknown"
