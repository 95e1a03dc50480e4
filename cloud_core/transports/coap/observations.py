"""Observations of all devices: registered, notified, kept honest and ended; no thread or timer for each.

Keyed by device and feature, so that a device that comes back from another port (behind a NAT, or after a restart)
replaces its former observation. One confirmable notification of an observation is under way at a time; what
comes meanwhile waits.

Source: RFC 7641; wire-contract.md section 4.4.
"""

from __future__ import annotations

from functools import partial

from twisted.logger import Logger

from cloud_core.core.downlinks import Delivery, Ending
from cloud_core.model import Identity
from cloud_core.transports.coap.adapter import CoapDeviceAdapter, format_for
from cloud_core.transports.coap.errors import CONTENT, DELETED, NOT_FOUND, SERVICE_UNAVAILABLE, UNAUTHORIZED, VALID
from cloud_core.transports.coap.exchanges import Exchange
from cloud_core.transports.coap.observation import Observation, ObservedAttributes, ObservedCommands
from cloud_core.transports.coap.outbox import Address, Ancillary, Fate, Key, Outbox, plain_address
from cloud_core.transports.coap.requests import Answered, Request, Sessions, refusal
from cloud_core.transports.coap.wire import CON, NON, encode
from shared.device_paths import Feature
from shared.errors import NotAuthorized, PlatformError, Unavailable
from shared.messages import AttributesAnswer, AttributesChange, AttributesRequest

log = Logger()

MAX_OBSERVATIONS = 200_000
MAX_UNCONFIRMED = 10  # non-confirmable notifications in a row; then one asks whether anybody listens
ALIVE_S = 86_400.0  # so long a device may say nothing before it is asked (RFC 7641 section 4.5)
_CHECK_S = 60.0
_MAX_CHECKS = 200  # of one round
_MAX_ANCILLARIES = 256
_COME_BACK_S = 5
_EVERYTHING = AttributesRequest()
_KINDS: dict[Feature, type[Observation]] = {one.feature: one for one in (ObservedAttributes, ObservedCommands)}


class Observations:
    """The observations of one socket."""

    def __init__(
        self, adapter: CoapDeviceAdapter, outbox: Outbox, sessions: Sessions, *,
        max_observations: int = MAX_OBSERVATIONS,
    ) -> None:  # fmt: skip
        self._adapter = adapter
        self._api = adapter.api
        self._outbox = outbox
        self._sessions = sessions
        self._max_observations = max_observations
        self._open: dict[tuple[int, Feature], Observation] = {}  # longest unheard of first
        self._unconfirmed: dict[Key, Observation] = {}  # by the last NON notification of each
        self._of_session: dict[Address, set[Observation]] = {}  # of DTLS alone
        self._ancillaries: dict[bytes, Ancillary] = {}
        self._is_checking = False

    def __len__(self) -> int:
        return len(self._open)

    # -- requests ---------------------------------------------------------------------------------

    def receive(self, request: Request, exchange: Exchange, *, is_wanted: bool) -> None:
        """A GET with Observe of attributes or commands; `is_wanted` False takes an observation back."""
        action = self._register if is_wanted else self._deregister
        self._adapter.identified(request, exchange.answer, partial(action, exchange))

    def _deregister(self, exchange: Exchange, identity: Identity, request: Request, _answer: object) -> None:
        known = self._open.get((identity.device_id, _feature(request)))
        if known is not None and known.is_of(exchange):
            self._end(known)
        exchange.answer(Answered(DELETED))

    def _register(self, exchange: Exchange, identity: Identity, request: Request, _answer: object) -> None:
        self._adapter.spend_message(identity)
        kind = _KINDS[_feature(request)]
        if not self._api.may(identity, kind.operation):
            raise NotAuthorized
        if not self._sessions.is_open(exchange.address):
            raise Unavailable  # it has ended while the device was looked up
        key = (identity.device_id, kind.feature)
        observation = self._open.get(key)
        if observation is not None and observation.is_of(exchange):
            observation.refresh(exchange)
            observation.identity = identity
            self._heard_of(observation)
            self._answer_registration(observation, exchange)
            return
        if observation is None and len(self._open) >= self._max_observations:
            raise Unavailable("Too many observations are open; try again later.")
        new = kind(self, identity, request, exchange, self._shared(exchange.ancillary), format_for(identity, request))
        if observation is not None:
            new.inherit(observation)
            self._end(observation, DELETED, is_replaced=True)
        self._open[key] = new
        if new.address[2]:
            self._of_session.setdefault(new.address, set()).add(new)
        self._api.presence.connected(identity.device_id)
        self._answer_registration(new, exchange)
        self._check_later()

    def _answer_registration(self, observation: Observation, exchange: Exchange) -> None:
        """The first answer, or that to a refresh. Nothing is notified before it, and no change is missed."""
        observation.holds += 1
        if observation.feature is Feature.RPC:
            exchange.answer(Answered(VALID, observe=observation.next_sequence()))
            self._release(observation)
            self._open_downlink(observation)  # which may bring commands at once
            return
        self._open_downlink(observation)

        def found(outcome: AttributesAnswer | PlatformError) -> None:
            if observation.is_over:
                exchange.answer(Answered(DELETED))
                return
            if exchange.outbox is None or isinstance(outcome, PlatformError):  # answered by a time-out, or refused
                self._end(observation)
                exchange.answer(refusal(outcome if isinstance(outcome, PlatformError) else Unavailable()))
                return
            payload = self._state(observation, outcome)
            if payload is None:
                self._end(observation)
                exchange.answer(refusal(Unavailable()))
                return
            exchange.answer(Answered(CONTENT, payload, observation.content_format, observe=observation.next_sequence()))
            self._release(observation)

        self._api.attributes.request(observation.identity, _EVERYTHING, found)

    def _open_downlink(self, observation: Observation) -> None:
        self._api.downlinks.open(observation.identity.device_id, observation, observation.interest)

    def _state(self, observation: Observation, found: AttributesAnswer) -> bytes | None:
        """All shared attributes as one change; None where they cannot be written."""
        change = AttributesChange(values=found.shared)
        try:
            return observation.identity.options.codec.render_attributes_change(change)
        except Exception:
            log.failure("Attributes of {device} could not be written", device=observation.identity.device_name)
            return None

    def _shared(self, ancillary: Ancillary) -> Ancillary:
        """An equal one for all who came to the same local address."""
        known = self._ancillaries.setdefault(ancillary[0][2], ancillary)
        if len(self._ancillaries) > _MAX_ANCILLARIES:
            self._ancillaries.clear()
        return known

    # -- notifications ----------------------------------------------------------------------------

    def flush(self, observation: Observation) -> None:
        """Sends what waits, as far as it may be sent now."""
        while not observation.holds and not observation.is_over:
            try:
                taken = observation.take(observation.identity.options.codec)
            except Exception:
                log.failure("News for {device} could not be written", device=observation.identity.device_name)
                self._end(observation, SERVICE_UNAVAILABLE)
                return
            if taken is None:
                return
            payload, delivery = taken
            self._notify(observation, CONTENT, payload, delivery)

    def _release(self, observation: Observation) -> None:
        observation.holds -= 1
        self.flush(observation)

    def _notify(
        self,
        observation: Observation,
        code: int,
        payload: bytes,
        delivery: Delivery | None = None,
        *,
        is_question: bool = False,
    ) -> None:
        """One notification; `is_question` has it acknowledged whatever the observation's kind is."""
        outbox = self._outbox
        content_format = observation.content_format if payload else None
        answered = Answered(code, payload, content_format, observe=observation.next_sequence())
        if payload:
            answered = outbox.downloads.first_block(observation.download_key, answered, observation.block2)
        self._forget_unconfirmed(observation)
        message_id = observation.next_message_id()
        while outbox.is_waiting_for(observation.address, message_id):
            message_id = observation.next_message_id()
        if observation.is_confirmable or is_question or observation.unconfirmed_count >= MAX_UNCONFIRMED:
            observation.unconfirmed_count = 0
            observation.holds += 1
            observation.delivery = delivery
            message = encode(CON, message_id, observation.token, answered)
            ended = partial(self._concluded, observation)
            outbox.confirm(message, message_id, observation.ancillary, observation.address, ended)
            return
        observation.unconfirmed_count += 1
        self._unconfirmed[observation.address, message_id] = observation
        message = encode(NON, message_id, observation.token, answered)
        outbox.send(message, observation.ancillary, observation.address)
        if delivery is not None:
            delivery.delivered()

    def _concluded(self, observation: Observation, fate: Fate) -> None:
        """The end of a confirmable notification."""
        if fate is not Fate.ACKNOWLEDGED:
            self._end(observation)
            return
        delivery, observation.delivery = observation.delivery, None
        observation.heard_s = self._outbox.loop.time()
        self._heard_of(observation)
        self._api.presence.seen(observation.identity.device_id)
        if delivery is not None:
            delivery.delivered()
        self._release(observation)

    def rejected(self, address: Address, message_id: int) -> bool:
        """Whether the RST was for a non-confirmable notification, whose observation it ends."""
        observation = self._unconfirmed.get((address, message_id))
        if observation is None:
            return False
        self._end(observation)
        return True

    def _forget_unconfirmed(self, observation: Observation) -> None:
        self._unconfirmed.pop((observation.address, observation.message_id), None)

    # -- is anybody there? ------------------------------------------------------------------------

    def _heard_of(self, observation: Observation) -> None:
        """To the end of the row: `_open` is in the order in which devices have to be asked."""
        key = (observation.identity.device_id, observation.feature)
        if self._open.get(key) is observation:
            del self._open[key]
            self._open[key] = observation

    def _check_later(self) -> None:
        if self._open and not self._is_checking:
            self._is_checking = True
            self._outbox.loop.call_later(_CHECK_S, self._check)

    def _check(self) -> None:
        self._is_checking = False
        before_s = self._outbox.loop.time() - ALIVE_S
        due: list[Observation] = []
        for observation in self._open.values():
            if observation.heard_s > before_s or len(due) >= _MAX_CHECKS:
                break
            if not observation.holds:
                due.append(observation)
        for observation in due:
            self._ask(observation)
        self._check_later()

    def _ask(self, observation: Observation) -> None:
        """A confirmable notification that says nothing new."""
        if observation.feature is Feature.RPC:
            self._notify(observation, VALID, b"", is_question=True)
            return
        observation.holds += 1

        def found(outcome: AttributesAnswer | PlatformError) -> None:
            payload = None if isinstance(outcome, PlatformError) else self._state(observation, outcome)
            if payload is not None and not observation.is_over:
                self._notify(observation, CONTENT, payload, is_question=True)
            self._release(observation)

        self._api.attributes.request(observation.identity, _EVERYTHING, found)

    # -- ends -------------------------------------------------------------------------------------

    def overflown(self, observation: Observation) -> None:
        """More has changed than is kept for a device that does not acknowledge: it has to ask for all of it."""
        self._end(observation, SERVICE_UNAVAILABLE)

    def ended_by_core(self, observation: Observation, why: Ending) -> None:
        """The core has forgotten the downlink. A device that was merely changed keeps observing."""
        if Ending.DEVICE_DELETED in why:
            self._end(observation, NOT_FOUND)
        elif Ending.CREDENTIALS_CHANGED in why:
            self._end(observation, UNAUTHORIZED)
        else:
            self._look_up_again(observation)

    def _look_up_again(self, observation: Observation) -> None:
        self._open_downlink(observation)

        def known(outcome: Identity | PlatformError) -> None:
            if observation.is_over:
                return
            if isinstance(outcome, Identity) and outcome.device_id == observation.identity.device_id:
                observation.identity = outcome
            elif not isinstance(outcome, Unavailable):
                self._end(observation, UNAUTHORIZED)

        self._adapter.authenticate(observation.url_token, observation.chain, plain_address(observation.address), known)

    def close(self) -> None:
        """The listener stops: everybody is told once, so that devices come back by themselves."""
        for observation in list(self._open.values()):
            observation.is_confirmable = False
            self._end(observation, SERVICE_UNAVAILABLE)

    def _end(self, observation: Observation, code: int | None = None, *, is_replaced: bool = False) -> None:
        """Forgets it, and says so with `code`, a notification that ends it at the device too."""
        if observation.is_over:
            return
        observation.is_over = True
        device_id = observation.identity.device_id
        key = (device_id, observation.feature)
        if self._open.get(key) is observation:
            del self._open[key]
        if observation.address[2]:
            self._leave_session(observation)
        self._forget_unconfirmed(observation)
        self._outbox.take_back(observation.address, observation.message_id)
        self._api.downlinks.close(device_id, observation)
        if not is_replaced and not self._api.downlinks.is_open(device_id):
            self._api.presence.disconnected(device_id)
        if code is not None:
            self._bid_farewell(observation, code)
        delivery, observation.delivery = observation.delivery, None
        if delivery is not None:
            delivery.failed()
        observation.drop_waiting()

    def session_ended(self, address: Address) -> None:
        """Nothing reaches this address any more."""
        for observation in list(self._of_session.get(address, ())):
            self._end(observation)

    def _leave_session(self, observation: Observation) -> None:
        of_session = self._of_session[observation.address]
        of_session.discard(observation)
        if not of_session:
            del self._of_session[observation.address]

    def _bid_farewell(self, observation: Observation, code: int) -> None:
        """Without Observe: the relation is over (RFC 7641 section 3.2)."""
        outbox, message_id = self._outbox, observation.next_message_id()
        age_s = _COME_BACK_S if code == SERVICE_UNAVAILABLE else None
        kind = CON if observation.is_confirmable else NON
        message = encode(kind, message_id, observation.token, Answered(code, max_age_s=age_s))
        if kind == CON:
            outbox.confirm(message, message_id, observation.ancillary, observation.address)
        else:
            outbox.send(message, observation.ancillary, observation.address)


def _feature(request: Request) -> Feature:
    return request.path.feature if request.path is not None else Feature.ATTRIBUTES
