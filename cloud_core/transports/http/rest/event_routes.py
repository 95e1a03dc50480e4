"""Live events as server-sent events (WHATWG HTML section 9.2): ours alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.events import GAP, Event, Events
from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import CallSupport, answers, query, rest_app
from shared.errors import InvalidArgument, NotAuthorized, PlatformError

EVENT_TYPE = "text/event-stream"
# Who is told of what: whoever may list it.
KINDS = {
    "attempt": Act.READ, "deviceCreated": Act.READ, "gateway": Act.READ, "approval": Act.WRITE_DEVICES,
    "audit": Act.READ_AUDIT,
}  # fmt: skip


class EventRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._events = admin.events

    @app.route("/api/events", methods=["GET"])
    @answers
    async def events(self, request: Request) -> Any:
        """`kinds`: those alone, separated by commas; all that the caller may list where it is missing.

        `Last-Event-ID` or `lastEventId`: what was seen last.
        """
        operator = self.operator(request, Act.READ)
        kinds = kinds_for(operator, query(request, "kinds"))
        last_id = (request.getHeader("last-event-id") or query(request, "lastEventId"))[:64]
        stream = Stream(request, self._events, kinds, lambda: self.operator(request, Act.READ))
        stream.open(operator, last_id)
        await stream.ended
        return b""


def kinds_for(operator: Operator, listed: str) -> frozenset[str]:
    """Those of a comma list, else all that the operator may list. Raises: InvalidArgument, NotAuthorized."""
    wanted = frozenset(one for one in listed.split(",") if one)
    if not wanted <= set(KINDS):
        raise InvalidArgument(f"kinds must be of {', '.join(KINDS)}")
    kinds = frozenset(kind for kind, act in KINDS.items() if operator.may(act))
    if not wanted <= kinds:
        raise NotAuthorized
    return wanted or kinds


class Stream:
    """One connection; a push producer: while it is paused, events wait in its listener's bounded queue.

    `who`: as a call, which is refused from the moment that the login has ended; the stream ends then, too.
    """

    def __init__(
        self, request: Any, events: Events, kinds: frozenset[str], who: Callable[[], Operator]
    ) -> None:  # Any: as in `calls`
        self._request = request
        self._events = events
        self._kinds = kinds
        self._who = who
        self._is_paused = False
        self.ended: Deferred[None] = Deferred()

    def open(self, operator: Operator, last_id: str) -> None:
        """Raises: Unavailable."""
        self._listener = self._events.listen(operator, last_id, self._wake, self._end)
        request = self._request
        request.notifyFinish().addBoth(lambda _: self._events.leave(self._listener))
        request.setHeader("Content-Type", EVENT_TYPE)
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Accel-Buffering", "no")  # a proxy that collects would hold everything back
        request.registerProducer(self, True)
        self._wake()

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._wake()

    def stopProducing(self) -> None:
        self._is_paused = True
        self._events.leave(self._listener)

    def _wake(self) -> None:
        try:
            self._who()
        except PlatformError:
            self._end()
            return
        if self._is_paused:
            return
        waiting = self._events.take(self._listener)
        wanted = [one for one in waiting if one.kind in self._kinds or one.kind == GAP]
        if wanted:
            self._request.write(b"".join(map(self._rendered, wanted)))
        elif not waiting:
            self._request.write(b":\n\n")  # a comment keeps it open

    def _rendered(self, event: Event) -> bytes:
        """One line of data: JSON escapes line breaks."""
        number, kind = self._events.id_of(event).encode(), event.kind.encode()
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (number, kind, event.encoded)

    def _end(self) -> None:
        """The client comes again with its Last-Event-ID."""
        self._events.leave(self._listener)
        self._request.unregisterProducer()
        if not self.ended.called:
            self.ended.callback(None)
