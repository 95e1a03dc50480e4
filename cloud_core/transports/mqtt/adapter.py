"""One MQTT connection's packets to calls of the core and back; no sockets, no protocol rules.

Login, subscriptions, and the hot path of telemetry stand here: each read's consecutive telemetry is one unit of
storage. What a publish asks for beyond that is carried out by `requests`, `provisioning`, `downloads` and
`gateway`; what the core sends by itself comes through `pushes`.

Sessions do not outlive their connection (wire-contract.md section 2.1): session present is always 0, and an expiry
interval that a 5.0 client asks for is answered with 0. What waits for an absent device waits in the core, as a
persistent command.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.core.downlinks import Ending
from cloud_core.core.tokens import new_secret
from cloud_core.model import Identity, Peer, PresentedCredentials, Role
from cloud_core.transports.mqtt.downloads import Downloads
from cloud_core.transports.mqtt.errors import REASONS, UNAVAILABLE, connack_codes
from cloud_core.transports.mqtt.gateway import GatewayAdapter
from cloud_core.transports.mqtt.ports import Counters, GoneSession, Session
from cloud_core.transports.mqtt.provisioning import provision, response_topic
from cloud_core.transports.mqtt.pushes import Pushes, Receipt, uplink_codec
from cloud_core.transports.mqtt.requests import ONE_SHOT, Requests
from cloud_core.transports.mqtt.slots import SUCCESS, Slots
from cloud_core.transports.mqtt.subscriptions import Subscriptions
from shared import topics
from shared.errors import MalformedRequest, PlatformError, RateLimited, Unavailable
from shared.messages import Sample
from shared.mqtt.codes import ConnectReturnCode, ReasonCode
from shared.mqtt.connection import ServerConnection
from shared.mqtt.errors import RemoteProtocolError
from shared.mqtt.packets import V5, Connect, Disconnect, Publish, Subscribe, Unsubscribe
from shared.operations import Operation
from shared.topics import Target

log = Logger()

NOT_AUTHORIZED = 0x87
TOPIC_FILTER_INVALID = 0x8F
TOPIC_NAME_INVALID = 0x90
NO_SUBSCRIPTION = 0x11
TRANSPORT_TYPES = ("DEFAULT", "MQTT")  # of a profile whose devices may come in here (section 2.6)
_TELEMETRY = Target(Operation.POST_TELEMETRY)
_ATTRIBUTES = Target(Operation.POST_ATTRIBUTES)

Packet = Connect | Publish | Subscribe | Unsubscribe | Disconnect


class MqttAdapter:
    """Translates for one connection."""

    __slots__ = ("_api", "_connection", "_counters", "_downloads", "_gateway", "_identity", "_pushes", "_session",
                 "_slots", "_subscribed")  # fmt: skip

    def __init__(self, api: DeviceApi, connection: ServerConnection, session: Session, counters: Counters) -> None:
        self._api = api
        self._connection = connection
        self._session: Session = session
        self._counters = counters
        self._identity: Identity | None = None
        # What follows is made when first needed: most connections idle.
        self._slots: Slots | None = None
        self._pushes: Pushes | None = None
        self._downloads: Downloads | None = None
        self._gateway: GatewayAdapter | None = None
        self._subscribed: Subscriptions | None = None

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
        self._session = GoneSession(peer)
        if self._gateway is not None:
            self._gateway.close()
        if self._pushes is not None:
            self._pushes.close()

    def settled(self, settled: list[tuple[object, bool]]) -> None:
        """Messages of ours that the client has acknowledged."""
        for receipt, is_accepted in settled:
            if isinstance(receipt, Receipt) and self._pushes is not None:
                self._pushes.acknowledged(receipt, is_accepted=is_accepted)

    def pinged(self) -> None:
        """A PINGREQ was answered."""
        if self._gateway is not None:
            self._gateway.pinged()

    def handle(self, packets: list[Packet]) -> None:
        """Acts on the packets of one read, in order; consecutive telemetry is joined."""
        samples: list[Sample] = []
        ids: list[int] = []
        received_ms = self._api.now_ms()
        for packet in packets:
            if type(packet) is Publish:
                target = self._target_of(packet)
                if target is not None and target.operation is Operation.POST_TELEMETRY and self._may(target.operation):
                    self._collect(packet, target, samples, ids, received_ms)
                    continue
                self._post(samples, ids)
                samples, ids = [], []
                self._publish(packet, target)
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
                    self._refuse(outcome, connack_codes(outcome, presented))
                    return
                outcome = anonymous
            elif outcome.options.transport_type not in TRANSPORT_TYPES:
                kind = outcome.options.transport_type
                self._refuse(MalformedRequest(f"the profile's transport type is {kind}"), UNAVAILABLE)
                return
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

    def register(self) -> None:
        """The socket side has registered the session: from here on the core can reach the device through it."""
        identity = self._identity
        assert identity is not None, "only a session that has logged in is registered"
        self._pushes = Pushes(identity, self._subscriptions, self._api.downlinks, publish=self._send, end=self._ended)
        if identity.role is Role.GATEWAY:
            self._gateway = GatewayAdapter(self._api, identity, self)

    def _ended(self, why: Ending) -> None:
        device = self._identity.device_name if self._identity else ""
        log.info("Session of {device} closed: {why}", device=device, why=why.name)
        self._session.close_with(ReasonCode.ADMINISTRATIVE_ACTION)

    def _refuse(self, error: PlatformError, codes: tuple[int, int]) -> None:
        if self._connection.is_closed:
            return
        log.warn("MQTT login refused: {error}", error=str(error), source=self._session.peer.address)
        self._connection.refuse(ConnectReturnCode(codes[0]), ReasonCode(codes[1]))
        self._session.end()

    def _may(self, operation: Operation) -> bool:
        return self._identity is not None and self._api.may(self._identity, operation)

    @property
    def _is_provision_only(self) -> bool:
        return self._identity is not None and self._identity.role is Role.PROVISIONING

    # -- publishes --------------------------------------------------------------------------------

    def _target_of(self, packet: Publish) -> Target | None:
        """As the profile names its topics; a topic with a bad number in it is no target."""
        identity = self._identity
        if identity is not None and identity.options.has_own_topics:
            options = identity.options
            if topics.matches(options.telemetry_filter, packet.topic):
                return _TELEMETRY
            if topics.matches(options.attributes_filter, packet.topic):
                return _ATTRIBUTES
            if packet.topic in ("v1/devices/me/telemetry", "v1/devices/me/attributes"):
                return None  # the profile's names stand in place of these (section 2.11)
        try:
            return topics.target_of(packet.topic)
        except MalformedRequest:
            return None

    def _collect(
        self, packet: Publish, target: Target, samples: list[Sample], ids: list[int], received_ms: int
    ) -> None:
        try:
            assert self._identity is not None
            codec = uplink_codec(self._identity, target.flavour)
            samples += codec.telemetry(packet.payload, received_ms=received_ms)
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
        done = self._take(ids)
        if self._api.rates.is_on:
            points = sum(len(values) for _, values in samples)
            limited = self._api.rates.telemetry(self._identity, max(len(ids), 1), points)
            if limited is not None:
                self._slow_down(limited, done)
                return
        self._api.post_telemetry(self._identity, samples, done)

    def _publish(self, packet: Publish, target: Target | None) -> None:
        if target is None:
            self._unknown_topic(packet, TOPIC_NAME_INVALID)
        elif not self._may(target.operation):
            reason = TOPIC_NAME_INVALID if self._is_provision_only else NOT_AUTHORIZED
            self._unknown_topic(packet, reason)
        elif target.operation is Operation.PROVISION:
            self._provision(packet)
        elif self._gateway is not None and packet.topic.startswith("v1/gateway/"):
            self._gateway.publish(packet)
        else:
            self._request(packet, target)

    def _request(self, packet: Publish, target: Target) -> None:
        assert self._identity is not None
        try:
            done = self.slot(packet)
            limited = self._api.rates.message(self._identity) if self._api.rates.is_on else None
            if limited is not None:
                self._slow_down(limited, done)
            elif target.operation in ONE_SHOT:
                requests = Requests(self._api, self._identity, self._answer)
                requests.perform(target, packet.payload, done)
            else:
                self._download(target, packet, done)
        except PlatformError as error:
            self._malformed(packet, error)
            done(error)

    def _download(self, target: Target, packet: Publish, done: Callable[[object], None]) -> None:
        if self._downloads is None:
            assert self._identity is not None
            self._downloads = Downloads(self._identity, self._api.packages, self._answer)
        self._downloads.fetch(target, packet.payload, done)

    def _provision(self, packet: Publish) -> None:
        topic = response_topic(packet.topic, self._subscriptions)
        provision(
            self._api, packet, self._session.peer, self.slot(packet), lambda body: self._answer(topic, body)
        )  # fmt: skip

    def _unknown_topic(self, packet: Publish, reason: int) -> None:
        """Acknowledged with the reason; a provision-only session ends (section 2.3)."""
        self._counters.refused_topics += 1
        if packet.qos:
            self._take_slots().acknowledge(packet.packet_id, reason)
        if self._is_provision_only:
            log.warn("A provision-only session published to {topic}", topic=packet.topic[:100])
            self._connection.disconnect(ReasonCode.TOPIC_NAME_INVALID)
            self._session.end()

    def _drop(self, packet: Publish, error: PlatformError) -> None:
        self._malformed(packet, error)
        if packet.qos:
            self._take_slots().acknowledge(packet.packet_id, REASONS[type(error)])

    def _malformed(self, packet: Publish, error: PlatformError) -> None:
        """Counted and logged; where the profile wants ThingsBoard's way, a client of 3.1.1 is closed (section 2.3)."""
        self._counters.malformed += 1
        device = self._identity.device_name if self._identity else ""
        log.warn("Message on {topic} dropped: {error}", topic=packet.topic, error=str(error), device=device)
        if self._identity is not None and self._identity.options.closes_on_malformed and self._connection.version < 5:
            self._session.end()

    def _slow_down(self, limited: RateLimited, done: Callable[[object], None]) -> None:
        """Refuses and reads nothing for a while: a peer that cannot be told is slowed down by its full socket."""
        self._counters.rate_limited += 1
        device = self._identity.device_name if self._identity else ""
        log.warn("{device} is slowed down: {error}", device=device, error=str(limited))
        done(limited)
        if self._connection.version < 5:
            self._session.pause(limited.retry_after_s or 1.0)

    # -- what others send through here (GatewayPort) ----------------------------------------------

    def publish(self, topic: str, payload: bytes, qos: int, on_acknowledged: Callable[[bool], None] | None) -> None:
        """`on_acknowledged(True)` once the peer has it, False when it will not get it."""
        if not self._pushes_of().send(topic, payload, qos, on_acknowledged) and on_acknowledged is not None:
            on_acknowledged(False)

    def slot(self, packet: Publish) -> Callable[[object], None]:
        """A `done` that acknowledges the packet in its turn."""
        return self._take([packet.packet_id] if packet.qos else [])

    def subscribed_qos(self, topic: str) -> int:
        """The QoS granted for `topic`, 1 where it was not subscribed to."""
        return 1 if self._subscribed is None else self._subscribed.qos_for(topic)

    @property
    def is_v5(self) -> bool:
        return self._connection.version == V5

    def pause(self, seconds: float, resumed: Callable[[], None]) -> None:
        self._session.pause(seconds, resumed)

    def _pushes_of(self) -> Pushes:
        assert self._pushes is not None, "a gateway's session is registered"
        return self._pushes

    def _answer(self, topic: str, payload: bytes) -> None:
        self._send(topic, payload, self.subscribed_qos(topic))

    def _send(self, topic: str, payload: bytes, qos: int, receipt: object = None) -> bool:
        if self._connection.is_closed:
            return False
        is_sent = self._connection.publish(topic, payload, qos, receipt)
        if not is_sent:
            self._counters.undelivered += 1
        self._session.flush_soon()
        return is_sent

    # -- acknowledgements in order ----------------------------------------------------------------

    def _take(self, packet_ids: list[int]) -> Callable[[object], None]:
        return self._take_slots().take(packet_ids)

    def _take_slots(self) -> Slots:
        if self._slots is None:
            self._slots = Slots(self._connection, self._flush_soon, self._end)
        return self._slots

    def _flush_soon(self) -> None:
        self._session.flush_soon()

    def _end(self) -> None:
        self._session.end()

    # -- the rest ---------------------------------------------------------------------------------

    def _subscribe(self, packet: Subscribe) -> None:
        codes = [self._grant(wanted.topic_filter, min(wanted.qos, 1)) for wanted in packet.subscriptions]
        self._connection.suback(packet.packet_id, codes)
        self._session.flush_soon()
        if self._pushes is not None:
            self._pushes.settle()

    def _grant(self, topic_filter: str, qos: int) -> int:
        """The granted QoS, or the refusal's code."""
        operation = topics.operation_for_subscribe(topic_filter)
        identity = self._identity
        if operation is None and identity is not None and topic_filter == identity.options.attributes_subscribe_topic:
            operation = Operation.RECEIVE_ATTRIBUTES
        if operation is None or not self._may(operation):
            return TOPIC_FILTER_INVALID
        self._subscriptions.add(topic_filter, qos)
        return qos

    @property
    def _subscriptions(self) -> Subscriptions:
        if self._subscribed is None:
            self._subscribed = Subscriptions()
        return self._subscribed

    def _unsubscribe(self, packet: Unsubscribe) -> None:
        known = self._subscriptions
        codes = [SUCCESS if known.discard(one) else NO_SUBSCRIPTION for one in packet.topic_filters]
        self._connection.unsuback(packet.packet_id, codes)
        self._session.flush_soon()
        if self._pushes is not None:
            self._pushes.settle()

    def _disconnect(self, _packet: Disconnect) -> None:
        self._session.end()


_HANDLERS: dict[type, Callable[..., None]] = {
    Connect: MqttAdapter._connect,
    Subscribe: MqttAdapter._subscribe,
    Unsubscribe: MqttAdapter._unsubscribe,
    Disconnect: MqttAdapter._disconnect,
}
