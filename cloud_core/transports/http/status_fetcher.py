"""Gets what CAs publish about revoked certificates: lists (GET) and OCSP answers (POST), within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from cloud_core.core.certificates.crl import is_web_address
from cloud_core.core.certificates.revocation import FetchFailed
from cloud_core.transports.http.fetching import AnswerRefused, WholeBody, body_of, reason_of

TIMEOUT_S = 10
MAX_ANSWER_BYTES = 4 << 20
MAX_REDIRECTS = 3  # of a GET
KEPT_OPEN_PER_HOST = 4
KEPT_OPEN_S = 30
_REDIRECTS = (301, 302, 303, 307, 308)


class StatusFetcher:
    """`fetch` is what `core.revocation` asks for."""

    def __init__(self, reactor: Any, agent: Any = None) -> None:
        # Untyped: `reactor` stands for TCP, TLS and time at once; a test gives its own `agent`.
        self._reactor = reactor
        self._pool: Any = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = KEPT_OPEN_PER_HOST
        self._pool.cachedConnectionTimeout = KEPT_OPEN_S
        self._agent: Any = agent or Agent(reactor, pool=self._pool, connectTimeout=TIMEOUT_S)

    def fetch(
        self, url: str, body: bytes | None, content_type: str, done: Callable[[bytes | FetchFailed], None]
    ) -> None:
        """`done` is called once, within TIMEOUT_S."""
        called = Deferred.fromCoroutine(self._answer_of(url, body, content_type))
        timer = self._reactor.callLater(TIMEOUT_S, called.cancel)

        def ended(outcome: bytes | Failure) -> None:
            if timer.active():
                timer.cancel()
            done(FetchFailed(reason_of(outcome)) if isinstance(outcome, Failure) else outcome)

        called.addBoth(ended)

    def stop(self) -> Deferred[Any]:
        """Closes the connections that are kept open."""
        closed: Deferred[Any] = self._pool.closeCachedConnections()
        return closed

    async def _answer_of(self, url: str, body: bytes | None, content_type: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._response(url, body, content_type)
            content = await body_of(response, MAX_ANSWER_BYTES)
            if response.code not in _REDIRECTS or body is not None:
                break
            url = _further(url, response)
        if response.code != 200:
            raise AnswerRefused(f"it answered with status {response.code}")
        return content

    async def _response(self, url: str, body: bytes | None, content_type: str) -> Any:
        headers = {"User-Agent": ["muster"]}
        if body is None:
            return await self._agent.request(b"GET", url.encode("ascii"), Headers(headers), None)
        headers["Content-Type"] = [content_type]
        return await self._agent.request(b"POST", url.encode("ascii"), Headers(headers), WholeBody(body))


def _further(url: str, response: Any) -> str:
    """Where a redirect leads: over HTTP still, and not from encrypted to plain. Raises: AnswerRefused."""
    places = response.headers.getRawHeaders("location", [""])
    place: str = urljoin(url, places[0])
    if not is_web_address(place) or (urlsplit(url).scheme, urlsplit(place).scheme) == ("https", "http"):
        raise AnswerRefused("it redirects to an address that is not followed")
    return place
