"""Live events as server-sent events (WHATWG HTML section 9.2): ours alone."""

from __future__ import annotations

from typing import Any

import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http import Request
from werkzeug.exceptions import MethodNotAllowed, NotFound

from cloud_core.core.admin import AdminApi
from cloud_core.core.events import GAP, Event, Events
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import CallSupport, answers, no_route, query
from shared.errors import InvalidArgument, NotAuthorized

EVENT_TYPE = "text/event-stream"
AUDIT = "audit"
KINDS = ("attempt", "deviceCreated", "gateway", "approval", AUDIT)


class EventRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = Klein()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._events = admin.events

    @app.handle_errors(NotFound, MethodNotAllowed)
    def no_route(self, request: Request, failure: Failure) -> bytes:
        return no_route(request, failure)

    @app.route("/api/events", methods=["GET"])
    @answers
    async def events(self, request: Request) -> Any:
        """`kinds`: those alone, separated by commas; the audit is told to administrators.

        `Last-Event-ID` or `lastEventId`: what was seen last.
        """
        operator = self.operator(request, Act.READ)
        kinds = tuple(one for one in query(request, "kinds").split(",") if one)
        unknown = [one for one in kinds if one not in KINDS]
        if unknown:
            raise InvalidArgument(f"kinds must be of {', '.join(KINDS)}")
        if not operator.may(Act.READ_AUDIT):
            if AUDIT in kinds:
                raise NotAuthorized
            kinds = kinds or tuple(one for one in KINDS if one != AUDIT)
        last_id = (request.getHeader("last-event-id") or query(request, "lastEventId"))[:64]
        stream = Stream(request, self._events, kinds)
        stream.open(operator.tenant_id, last_id)
        await stream.ended
        return b""


class Stream:
    """One connection; a push producer: while it is paused, events wait in its listener's bounded queue."""

    def __init__(self, request: Any, events: Events, kinds: tuple[str, ...]) -> None:  # Any: as in `calls`
        self._request = request
        self._events = events
        self._kinds = kinds
        self._is_paused = False
        self.ended: Deferred[None] = Deferred()

    def open(self, tenant_id: int, last_id: str) -> None:
        """Raises: Unavailable."""
        self._listener = self._events.listen(tenant_id, last_id, self._wake, self._end)
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
        if self._is_paused:
            return
        waiting = self._listener.take()
        wanted = [one for one in waiting if one.kind in self._kinds or one.kind == GAP or not self._kinds]
        if wanted:
            self._request.write(b"".join(map(self._rendered, wanted)))
        elif not waiting:
            self._request.write(b":\n\n")  # a comment keeps it open

    def _rendered(self, event: Event) -> bytes:
        data = msgspec.json.encode(event.data)  # one line: JSON escapes line breaks
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (self._events.id_of(event).encode(), event.kind.encode(), data)

    def _end(self) -> None:
        """The client comes again with its Last-Event-ID."""
        self._events.leave(self._listener)
        self._request.unregisterProducer()
        if not self.ended.called:
            self.ended.callback(None)
