"""One MQTT connection's packets to `DeviceApi` calls and back; no sockets, no protocol rules.

Acknowledgements leave in the order of the publishes [MQTT-4.6.0-2]: each read's consecutive
telemetry is one unit of storage with one slot in `_slots`; a slot that is ready waits for those
before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.core.tokens import new_secret
from cloud_core.model import Identity, Peer, PresentedCredentials, Role
from cloud_core.transports.mqtt.errors import REASONS, connack_codes
from shared import payloads, topics
from shared.errors import PlatformError, Unavailable
from shared.messages import ProvisionResponse, Sample
from shared.mqtt.codes import ConnectReturnCode, ReasonCode
from shared.mqtt.connection import ServerConnection
from shared.mqtt.errors import RemoteProtocolError
from shared.mqtt.packets import Connect, Disconnect, Publish, Subscribe, Unsubscribe
from shared.operations import Operation

log = Logger()

SUCCESS = 0x00
NOT_AUTHORIZED = 0x87
TOPIC_FILTER_INVALID = 0x8F
TOPIC_NAME_INVALID = 0x90
NO_SUBSCRIPTION = 0x11

_RESPONSES = Operation.RECEIVE_PROVISION_RESPONSE

Packet = Connect | Publish | Subscribe | Unsubscribe | Disconnect


class Session(Protocol):
    """What the adapter needs of the socket side."""

    peer: Peer

    def flush_soon(self) -> None:
        """Something is in the connection's outbound buffer."""

    def logged_in(self, identity: Identity) -> None:
        """CONNECT was accepted; register the session."""

    def end(self) -> None:
        """Send what is buffered, then close."""


class _GoneSession:
    """Stands in for a socket that is closed while answers are still awaited."""

    __slots__ = ("peer",)

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def flush_soon(self) -> None:
        """Nobody listens."""

    def logged_in(self, identity: Identity) -> None:
        """Such a session never takes over a living one."""

    def end(self) -> None:
        """It has ended."""


class _Slot:
    """Acknowledgements that wait for one outcome."""

    __slots__ = ("packet_ids", "reason")

    def __init__(self, packet_ids: list[int]) -> None:
        self.packet_ids = packet_ids
        self.reason = -1  # not known yet


class MqttAdapter:
    """Translates for one connection."""

    __slots__ = ("_api", "_connection", "_identity", "_session", "_slots", "_subscriptions")

    def __init__(self, api: DeviceApi, connection: ServerConnection, session: Session) -> None:
        self._api = api
        self._connection = connection
        self._session: Session = session
        self._identity: Identity | None = None
        self._slots: deque[_Slot] | None = None  # made when first needed: most connections idle
        self._subscriptions: dict[str, int] | None = None

    @property
    def identity(self) -> Identity | None:
        return self._identity

    @property
    def has_work_pending(self) -> bool:
        return bool(self._slots)

    @property
    def is_answer_near(self) -> bool:
        """Whether what is buffered may wait: a provisioning device gets SUBACK and response in one write."""
        return bool(self._slots) and self._is_provision_only

    def peer_is_gone(self, peer: Peer) -> None:
        """Lets go of the socket side: without the circle both are freed at once, and no collector has to run."""
        self._session = _GoneSession(peer)

    def handle(self, packets: list[Packet]) -> None:
        """Acts on the packets of one read, in order; consecutive telemetry is joined."""
        samples: list[Sample] = []
        ids: list[int] = []
        received_ms = self._api.now_ms()
        for packet in packets:
            if type(packet) is Publish:
                operation = topics.operation_for_publish(packet.topic)
                if operation is Operation.POST_TELEMETRY and self._is_allowed(operation):
                    self._collect(packet, samples, ids, received_ms)
                    continue
                self._post(samples, ids)
                samples, ids = [], []
                self._publish(packet, operation)
            else:
                self._post(samples, ids)
                samples, ids = [], []
                _HANDLERS[type(packet)](self, packet)
        self._post(samples, ids)

    # -- login ------------------------------------------------------------------------------------

    def _connect(self, packet: Connect) -> None:
        presented = PresentedCredentials(
            client_id=packet.client_id,
            username=packet.user_name or "",
            password=(packet.password or b"").decode("utf-8", "surrogateescape"),
            has_password=packet.password is not None,
        )
        identity = self._api.provisioning_identity(presented)
        if identity is not None:
            self._accept(identity)
            return

        def known(outcome: Identity | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                anonymous = self._api.anonymous_identity(presented)
                if anonymous is None or isinstance(outcome, Unavailable):
                    self._refuse(outcome, presented)
                    return
                outcome = anonymous
            self._accept(outcome)

        self._api.authenticate(presented, known)

    def _accept(self, identity: Identity) -> None:
        if self._connection.is_closed:
            return  # the peer went away while its credentials were looked up
        self._identity = identity
        try:
            assigned = None if self._connection.client_id else f"muster-{new_secret()}"
            queued = self._connection.accept(assigned_client_id=assigned)
        except RemoteProtocolError as error:  # among the packets that were sent before CONNACK
            log.warn("MQTT peer {source} broke the rules: {error}", source=self._session.peer.address, error=str(error))
            self.handle(error.packets)
            self._session.end()
            return
        self._session.logged_in(identity)
        self._session.flush_soon()
        if queued:
            self.handle(queued)

    def _refuse(self, error: PlatformError, presented: PresentedCredentials) -> None:
        if self._connection.is_closed:
            return
        v3_code, v5_code = connack_codes(error, presented)
        log.warn("MQTT login refused: {error}", error=str(error), source=self._session.peer.address)
        self._connection.refuse(ConnectReturnCode(v3_code), ReasonCode(v5_code))
        self._session.end()

    def _is_allowed(self, operation: Operation) -> bool:
        return self._identity is not None and self._api.may(self._identity, operation)

    # -- publishes --------------------------------------------------------------------------------

    def _collect(self, packet: Publish, samples: list[Sample], ids: list[int], received_ms: int) -> None:
        try:
            samples += payloads.parse_telemetry(packet.payload, received_ms=received_ms)
        except PlatformError as error:
            # Acknowledge and drop (wire-contract.md section 2.3, Ours); the good ones before go first.
            self._post(samples[:], ids[:])
            samples.clear()
            ids.clear()
            self._drop(packet, error)
            return
        if packet.qos:
            ids.append(packet.packet_id)

    def _post(self, samples: list[Sample], ids: list[int]) -> None:
        if not samples and not ids:
            return
        assert self._identity is not None
        self._api.post_telemetry(self._identity, samples, self._slot(ids))

    def _publish(self, packet: Publish, operation: Operation | None) -> None:
        if operation is None:
            self._unknown_topic(packet, TOPIC_NAME_INVALID)
        elif not self._is_allowed(operation):
            reason = TOPIC_NAME_INVALID if self._is_provision_only else NOT_AUTHORIZED
            self._unknown_topic(packet, reason)
        elif operation is Operation.PROVISION:
            self._provision(packet)
        elif operation is Operation.POST_ATTRIBUTES:
            self._post_attributes(packet)
        else:
            self._unknown_topic(packet, TOPIC_NAME_INVALID)

    @property
    def _is_provision_only(self) -> bool:
        return self._identity is not None and self._identity.role is Role.PROVISIONING

    def _unknown_topic(self, packet: Publish, reason: int) -> None:
        """Acknowledged with the reason; a provision-only session ends (section 2.3)."""
        self._acknowledge(packet, reason)
        if self._is_provision_only:
            log.warn("A provision-only session published to {topic}", topic=packet.topic[:100])
            self._connection.disconnect(ReasonCode.TOPIC_NAME_INVALID)
            self._session.end()

    def _drop(self, packet: Publish, error: PlatformError) -> None:
        log.warn(
            "Message on {topic} dropped: {error}",
            topic=packet.topic,
            error=str(error),
            device=self._identity.device_name if self._identity else "",
        )
        self._acknowledge(packet, REASONS[type(error)])

    def _post_attributes(self, packet: Publish) -> None:
        assert self._identity is not None
        try:
            values = payloads.parse_attributes(packet.payload)
        except PlatformError as error:
            self._drop(packet, error)
            return
        self._api.attributes.post(self._identity, values, self._slot([packet.packet_id] if packet.qos else []))

    def _provision(self, packet: Publish) -> None:
        """PUBACK first, then the answer (section 2.2); a malformed request is answered too."""
        slot = self._slot([packet.packet_id] if packet.qos else [])
        encoding = payloads.ProvisionEncoding.JSON

        def answer(outcome: ProvisionResponse | PlatformError) -> None:
            slot(None)
            is_refused = isinstance(outcome, PlatformError)
            response = payloads.refusal_response(outcome) if isinstance(outcome, PlatformError) else outcome
            if is_refused:
                log.info("Provision request refused: {reason} {ref}", reason=response.reason, ref=response.ref)
            topic = self._response_topic(packet.topic)
            qos = min((self._subscriptions or {}).get(topic, 1), 1)
            if not self._connection.is_closed:
                self._connection.publish(topic, payloads.render_provision_response(response, encoding), qos)
                self._session.flush_soon()

        try:
            request, encoding = payloads.decode_provision(packet.payload)
        except PlatformError as error:
            self._api.refuse_provision(error, self._session.peer, answer)
            return
        self._api.provision(request, self._session.peer, answer)

    def _response_topic(self, request_topic: str) -> str:
        wanted = topics.provision_response_topic(request_topic)
        subscribed = self._subscriptions or {}
        if not subscribed or wanted in subscribed:
            return wanted
        return next((one for one in subscribed if topics.operation_for_subscribe(one) is _RESPONSES), wanted)

    # -- acknowledgements in order ----------------------------------------------------------------

    def _acknowledge(self, packet: Publish, reason: int) -> None:
        if packet.qos:
            slot = self._take_slot([packet.packet_id])
            slot.reason = reason
            self._release()

    def _slot(self, ids: list[int]) -> Callable[[object], None]:
        """A `done` that acknowledges `ids` once everything before them is acknowledged."""
        slot = self._take_slot(ids)

        def done(outcome: object) -> None:
            slot.reason = REASONS[type(outcome)] if isinstance(outcome, PlatformError) else SUCCESS
            if isinstance(outcome, Unavailable) and self._connection.version < 5:
                self._session.end()  # no negative PUBACK in 3.1.1: the client re-sends after reconnecting
            else:
                self._release()

        return done

    def _take_slot(self, ids: list[int]) -> _Slot:
        slot = _Slot(ids)
        if self._slots is None:
            self._slots = deque()
        self._slots.append(slot)
        return slot

    def _release(self) -> None:
        slots, connection = self._slots, self._connection
        assert slots is not None
        while slots and slots[0].reason >= 0:
            slot = slots.popleft()
            if slot.packet_ids and not connection.is_closed:
                connection.acknowledge(slot.packet_ids, ReasonCode(slot.reason) if slot.reason else ReasonCode.SUCCESS)
        self._session.flush_soon()

    # -- the rest ---------------------------------------------------------------------------------

    def _subscribe(self, packet: Subscribe) -> None:
        if self._subscriptions is None:
            self._subscriptions = {}
        codes: list[int] = []
        for wanted in packet.subscriptions:
            topic_filter = wanted.topic_filter
            operation = topics.operation_for_subscribe(topic_filter)
            if operation is None or not self._is_allowed(operation):
                codes.append(TOPIC_FILTER_INVALID)
                continue
            granted = min(wanted.qos, 1)
            self._subscriptions[topic_filter] = granted
            codes.append(granted)
        self._connection.suback(packet.packet_id, codes)
        self._session.flush_soon()

    def _unsubscribe(self, packet: Unsubscribe) -> None:
        known = self._subscriptions if self._subscriptions is not None else {}
        codes = [SUCCESS if known.pop(one, None) is not None else NO_SUBSCRIPTION for one in packet.topic_filters]
        self._connection.unsuback(packet.packet_id, codes)
        self._session.flush_soon()

    def _disconnect(self, _packet: Disconnect) -> None:
        self._session.end()


_HANDLERS: dict[type, Callable[..., None]] = {
    Connect: MqttAdapter._connect,
    Subscribe: MqttAdapter._subscribe,
    Unsubscribe: MqttAdapter._unsubscribe,
    Disconnect: MqttAdapter._disconnect,
}
