"""The gateway's own life: provision, connect, be online, wait, again. The states and all transitions are the two
tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from twisted.logger import Logger

from edge_gateway.core.provisioning import (
    Outcome,
    ProvisionAttempt,
    Provisioned,
    Refused,
    propose,
    request_body,
)
from edge_gateway.core.rates import SessionLimits, session_limits
from edge_gateway.model import Credentials
from edge_gateway.settings import Core
from edge_gateway.uplink.interface import Ended, Uplink

log = Logger()

LIMITS_TIMEOUT_S = 5.0  # cores that do not know getSessionLimits stay silent
STEADY_S = 30.0  # online for so long: the next wait begins small again
REFUSALS_BEFORE_NEW_CREDENTIALS = 3
LIMITS_REQUEST = "v1/devices/me/rpc/request/1"
LIMITS_RESPONSE = "v1/devices/me/rpc/response/1"
SUBSCRIPTIONS = [
    "v1/devices/me/attributes",
    "v1/devices/me/attributes/response/+",
    "v1/devices/me/rpc/request/+",
    "v1/devices/me/rpc/response/+",
    "v1/gateway/attributes",
    "v1/gateway/attributes/response",
    "v1/gateway/rpc",
]


class State(Enum):
    IDLE = "not started"
    PROVISIONING = "asking the core for credentials"
    CONNECTING = "connecting to the core"
    SETTLING = "connected; asking what the core allows"
    ONLINE = "online"
    WAITING = "waiting before the next attempt"
    STOPPED = "stopped"


class Event(Enum):
    BEGIN_UNKNOWN = "begin; the gateway has no credentials"
    BEGIN_KNOWN = "begin; the gateway has credentials"
    PROVISIONED = "credentials were given"
    CONNECTED = "the core accepted the connection"
    SETTLED = "the core's limits are known, or it stays silent about them"
    ENDED = "the attempt or the connection is over"
    STOP = "stop"


NEXT = {
    (State.IDLE, Event.BEGIN_UNKNOWN): State.PROVISIONING,
    (State.IDLE, Event.BEGIN_KNOWN): State.CONNECTING,
    (State.IDLE, Event.STOP): State.STOPPED,
    (State.PROVISIONING, Event.PROVISIONED): State.CONNECTING,
    (State.PROVISIONING, Event.ENDED): State.WAITING,
    (State.PROVISIONING, Event.STOP): State.STOPPED,
    (State.CONNECTING, Event.CONNECTED): State.SETTLING,
    (State.CONNECTING, Event.ENDED): State.WAITING,
    (State.CONNECTING, Event.STOP): State.STOPPED,
    (State.SETTLING, Event.SETTLED): State.ONLINE,
    (State.SETTLING, Event.ENDED): State.WAITING,
    (State.SETTLING, Event.STOP): State.STOPPED,
    (State.ONLINE, Event.ENDED): State.WAITING,
    (State.ONLINE, Event.STOP): State.STOPPED,
    (State.WAITING, Event.BEGIN_UNKNOWN): State.PROVISIONING,
    (State.WAITING, Event.BEGIN_KNOWN): State.CONNECTING,
    (State.WAITING, Event.STOP): State.STOPPED,
}


class Keyring(Protocol):
    """Where the gateway's own secrets lie. Every change is on disk when the call returns; all methods may raise an
    exception whose `str()` is for people, such as when the disk is full."""

    def credentials(self) -> Credentials | None: ...

    def proposed(self) -> Credentials | None:
        """What an earlier attempt asked for and got no answer to."""

    def propose(self, credentials: Credentials) -> None: ...

    def save(self, credentials: Credentials) -> None:
        """These work, or were given; nothing is proposed any more."""

    def discard(self) -> None:
        """Forgets both."""

    def certificate_pem(self) -> str:
        """The gateway's own certificate, made at the first call."""


class Link(Protocol):
    """Who uses the connection while it is online."""

    def online(self, uplink: Uplink, limits: SessionLimits, *, max_packet_bytes: int, receive_maximum: int) -> None: ...

    def received(self, topic: str, payload: bytes) -> None: ...

    def offline(self) -> None: ...


class Agent:
    """Keeps the gateway connected. `state`, `reason` (why it is not online) and `since_s` may be read at any time."""

    def __init__(
        self,
        *,
        core: Core,
        name: str,
        keyring: Keyring,
        uplinks: Callable[[Credentials | None, str], Uplink],  # (credentials, version)
        link: Link,
        reactor: Any,
        random: Callable[[], float],
        new_secret: Callable[[int], str],
    ) -> None:
        # `name`: of the gateway at the core. `reactor`: callLater and seconds; untyped because a test passes a Clock.
        self.state = State.IDLE
        self.reason = ""
        self.version = "3.1.1" if core.version == "3.1.1" else "5"
        self.name = name
        self._core = core
        self._keyring = keyring
        self._uplinks = uplinks
        self._link = link
        self._reactor = reactor
        self._random = random
        self._new_secret = new_secret
        self.since_s: float = reactor.seconds()
        self._failures = 0
        self._refusals = 0
        self._closed_early = 0
        self._retry_after_s = 0.0
        self._uplink: Uplink | None = None
        self._attempt: ProvisionAttempt | None = None
        self._max_packet_bytes = 0
        self._receive_maximum = 0
        self._timer: Any = None
        self._trial: Credentials | None = None  # proposed ones that a refusal makes worth trying
        self._unsaved: Credentials | None = None  # good ones that the disk did not take

    # -- from outside -----------------------------------------------------------------------------

    def start(self) -> None:
        self._begin()

    def stop(self) -> None:
        if self.state is not State.STOPPED:
            was_online = self.state is State.ONLINE
            self._move(Event.STOP)
            self._cancel_timer()
            if was_online:
                self._link.offline()
            if self._attempt is not None:
                self._attempt.stop()
            if self._uplink is not None:
                self._uplink.close()

    def reconnect(self, reason: str) -> None:
        """The connection is of no use any more, such as when nothing is acknowledged; it is made anew."""
        self.reason = reason
        if self._uplink is not None:
            self._uplink.close()

    def forget_credentials(self) -> None:
        """An operator's order: the gateway provisions itself again."""
        self._discard()
        self.reconnect("the credentials were removed on order")

    # -- the machine ------------------------------------------------------------------------------

    def _move(self, event: Event) -> None:
        """Raises: KeyError, for what cannot happen: a mistake of ours."""
        self.state = NEXT[self.state, event]
        self.since_s = self._reactor.seconds()

    def _begin(self) -> None:
        self._timer = None
        try:
            credentials = self._known() or self._trial
        except Exception as error:  # the disk's trouble, which may pass
            self._move(Event.BEGIN_KNOWN)
            self._wait(str(error))
            return
        if credentials is None and self._core.provision is None:
            self._move(Event.BEGIN_KNOWN)  # a core that lets anybody in, or a certificate alone
            self._connect(Credentials(kind="ACCESS_TOKEN"))
        elif credentials is None:
            self._move(Event.BEGIN_UNKNOWN)
            try:
                self._provision()
            except Exception as error:
                self._wait(str(error))
        else:
            self._move(Event.BEGIN_KNOWN)
            self._connect(credentials)

    def _known(self) -> Credentials | None:
        """What the configuration gives, or what was saved."""
        core = self._core
        if core.token:
            return Credentials(kind="ACCESS_TOKEN", token=core.token, client_id=core.client_id)
        if core.username or core.client_id:
            return Credentials(
                kind="MQTT_BASIC", client_id=core.client_id, username=core.username, password=core.password
            )
        if core.certificate:
            return Credentials(kind="X509_CERTIFICATE")
        return self._unsaved or self._keyring.credentials()

    def _save(self, credentials: Credentials) -> None:
        """Kept in memory, and tried again at the next connection, while the disk does not take them."""
        try:
            self._keyring.save(credentials)
            self._unsaved = None
        except Exception as error:
            self._unsaved = credentials
            log.error("The gateway's credentials are not on disk, a restart would lose them: {error}", error=str(error))

    def _discard(self) -> None:
        self._unsaved = None
        try:
            self._keyring.discard()
        except Exception as error:
            log.error("The gateway's credentials could not be removed: {error}", error=str(error))

    # -- provisioning -----------------------------------------------------------------------------

    def _provision(self) -> None:
        provision = self._core.provision
        assert provision is not None
        proposed = self._keyring.proposed()
        was_asked = proposed is not None
        if proposed is None:
            proposed = propose(provision.credentials, new_secret=self._new_secret)
            self._keyring.propose(proposed)
        pem = self._keyring.certificate_pem() if proposed.kind == "X509_CERTIFICATE" else ""
        self._attempt = ProvisionAttempt(
            uplink=self._uplinks(None, "3.1.1"),
            body=request_body(provision, self.name, proposed, pem),
            proposed=proposed,
            reactor=self._reactor,
            done=lambda outcome: self._provision_answered(outcome, proposed if was_asked else None),
        )
        self._attempt.start()

    def _provision_answered(self, outcome: Outcome, asked_before: Credentials | None) -> None:
        self._attempt = None
        if self.state is State.STOPPED:
            return
        if isinstance(outcome, Provisioned):
            self._save(outcome.credentials)
            log.info("Provisioned at the core as {name}", name=self.name)
            self._failures = self._refusals = 0
            self._move(Event.PROVISIONED)
            self._connect(outcome.credentials)
            return
        if isinstance(outcome, Refused):
            self._retry_after_s = self._core.backoff_max if outcome.retry_after_s is None else outcome.retry_after_s
            if outcome.is_taken and asked_before is not None:
                self._trial, self._retry_after_s = asked_before, 0.0
        self._wait(outcome.text)

    # -- the connection ---------------------------------------------------------------------------

    def _connect(self, credentials: Credentials) -> None:
        self._uplink = self._uplinks(credentials, self.version)
        self._uplink.open(self)

    def connected(self, *, max_packet_bytes: int, receive_maximum: int) -> None:
        assert self._uplink is not None
        self._move(Event.CONNECTED)
        self._max_packet_bytes, self._receive_maximum = max_packet_bytes, receive_maximum
        self._refusals = self._closed_early = 0
        good, self._trial = self._trial or self._unsaved, None
        if good is not None:
            self._save(good)
        self._timer = self._reactor.callLater(LIMITS_TIMEOUT_S, self._settled, SessionLimits())
        body = json.dumps({"method": "getSessionLimits", "params": {"timeout": round(LIMITS_TIMEOUT_S * 1000)}})
        uplink = self._uplink
        uplink.subscribe(SUBSCRIPTIONS, lambda _codes: uplink.publish(LIMITS_REQUEST, body.encode()))

    def received(self, topic: str, payload: bytes) -> None:
        if self.state is State.SETTLING and topic == LIMITS_RESPONSE:
            try:
                answer = json.loads(payload)
            except ValueError:
                answer = None
            self._settled(session_limits(answer))
        else:
            self._link.received(topic, payload)

    def _settled(self, limits: SessionLimits) -> None:
        assert self._uplink is not None
        self._cancel_timer()
        self._move(Event.SETTLED)
        self.reason = ""
        log.info("Online at {url} with MQTT {version}", url=self._core.url, version=self.version)
        self._link.online(
            self._uplink, limits, max_packet_bytes=self._max_packet_bytes, receive_maximum=self._receive_maximum
        )

    def ended(self, why: Ended, text: str) -> None:
        self._uplink = None
        self._cancel_timer()
        if self.state is State.STOPPED:
            return
        if self.state is State.ONLINE:
            self._link.offline()
            if self._reactor.seconds() - self.since_s >= STEADY_S:
                self._failures = 0
        elif self.state is State.CONNECTING:
            self._learn_from(why)
        self._wait(self.reason if why is Ended.CLOSED and self.reason else text)

    def _learn_from(self, why: Ended) -> None:
        """A connection that was never accepted."""
        self._closed_early = self._closed_early + 1 if why is Ended.LOST else 0
        if self._core.version == "auto" and (why is Ended.REFUSED_VERSION or self._closed_early >= 2):
            self.version = "3.1.1" if self.version == "5" else "5"
            self._closed_early = 0
        if why is Ended.REFUSED_CREDENTIALS:
            self._credentials_refused()

    def _credentials_refused(self) -> None:
        self._refusals += 1
        provision = self._core.provision
        if self._trial is not None:  # somebody else has this name
            self._trial = None
            self._retry_after_s = self._core.backoff_max
        elif provision is not None and provision.again == "when-refused":
            if self._refusals >= REFUSALS_BEFORE_NEW_CREDENTIALS:
                log.warn("The core has refused the credentials {n} times: asking for new ones", n=self._refusals)
                self._discard()
                self._refusals = 0
        else:
            self._retry_after_s = self._core.backoff_max

    def _wait(self, reason: str) -> None:
        """Back-off: doubling, and of a random part of it, so that a thousand gateways do not come back at once."""
        self._move(Event.ENDED)
        if reason != self.reason:
            log.warn("Not connected: {reason}", reason=reason)
        self.reason = reason
        core = self._core
        longest = min(core.backoff_max, core.backoff_min * 2.0 ** min(self._failures, 16))
        self._failures += 1
        delay_s = max(longest * (0.5 + self._random() / 2), self._retry_after_s)
        self._retry_after_s = 0.0
        self._timer = self._reactor.callLater(delay_s, self._begin)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
