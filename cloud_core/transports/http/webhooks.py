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

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from cloud_core.model import ServerMethod
from cloud_core.transports.http.fetching import AnswerRefused, WholeBody, body_of, reason_of

log = Logger()
MAX_ANSWER_BYTES = 65_536
KEPT_OPEN_PER_HOST = 8
KEPT_OPEN_S = 30
SIGNATURE = "X-Muster-Signature-256"


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
                    why=reason_of(outcome),
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
        url = method.url.encode("ascii")
        response: Any = await self._agent.request(b"POST", url, Headers(headers), WholeBody(body))
        content = await body_of(response, MAX_ANSWER_BYTES)
        if not 200 <= response.code < 300:
            raise AnswerRefused(f"it answered with status {response.code}")
        return content


def signature(secret: str, body: bytes) -> str:
    """Hex of HMAC-SHA256 over the body."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
