"""One MQTT connection's packets to `DeviceApi` calls and back; no sockets, no protocol rules.

Each read's consecutive telemetry is one unit of storage with one slot among the acknowledgements (`slots.py`).
Requests are handled in `requests.py`, what the core sends by itself in `pushes.py`, gateways in `gateway.py`.

There are no persistent sessions: CONNACK never says "session present", MQTT 5 clients that ask for a session expiry
are answered 0, and what could not be delivered before the connection ended is not kept here. Commands that must survive
that are persistent ones; they wait in the core.

What a client may not say, or says above its rate, costs the message and not the connection (wire-contract.md section
2.3, Ours). Above its rate a v5 client hears 0x97. A v3 client cannot be told: nothing more is read from it until its
rate allows the message, which is then taken and acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.core.downlinks import Delivery
from cloud_core.core.tokens import new_secret
from cloud_core.model import Identity, Peer, PresentedCredentials, Role, Transport
from cloud_core.transports.mqtt.conversation import GoneSession, Session
from cloud_core.transports.mqtt.errors import UNAVAILABLE, connack_codes, explained
from cloud_core.transports.mqtt.exchange import QUOTA_EXCEEDED, SUCCESS, Exchange
from cloud_core.transports.mqtt.flavours import NO_TELEMETRY, target_of, telemetry_parsers
from cloud_core.transports.mqtt.gateway import GatewayAdapter
from cloud_core.transports.mqtt.pushes import Pushes, is_own_attributes_filter
from cloud_core.transports.mqtt.requests import COUNTED, HANDLERS
from cloud_core.transports.mqtt.settings import Counters, Settings
from shared import payloads, topics
from shared.errors import NotAuthenticated, PlatformError, Unavailable
from shared.messages import AttributesChange, ProvisionResponse, RpcCommand, Sample
from shared.mqtt.codes import ConnectReturnCode, ReasonCode
from shared.mqtt.connection import Delivered, ServerConnection
from shared.mqtt.errors import RemoteProtocolError
from shared.mqtt.packets import Connect, Disconnect, Pingreq, Publish, Subscribe, Subscription, Unsubscribe
from shared.operations import Operation

log = Logger()

NO_SUBSCRIPTION = 0x11
NOT_AUTHORIZED = 0x87
TOPIC_FILTER_INVALID = 0x8F
TOPIC_NAME_INVALID = 0x90

MAX_SUBSCRIPTIONS = 100  # of one session
MAX_FILTER_CHARS = 1_024  # kept and matched as long as the session lasts; as long as a topic may be
_TRANSPORT_TYPES = ("DEFAULT", "MQTT")


class MqttAdapter(Exchange):
    """Translates for one connection."""

    __slots__ = ("_gateway", "_has_new_filters", "_pushes", "_taken", "_telemetry")

    def __init__(
        self, api: DeviceApi, connection: ServerConnection, session: Session, *, settings: Settings, counters: Counters
    ) -> None:
        super().__init__(api, connection, session, settings=settings, counters=counters)
        self._taken = api.metrics.taken[Transport.MQTT]
        self._telemetry = NO_TELEMETRY  # topics of the fast path
        self._pushes: Pushes | None = None
        self._has_new_filters = False  # the core is told once for all that a read has brought
        self._gateway: GatewayAdapter | None = None

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

    def session_ended(self) -> None:
        """Nothing more is taken from the peer or sent to it."""
        self._held = None
        if self._downloads is not None:
            self._downloads.forget()
        self._close_gateway()

    def peer_is_gone(self, peer: Peer) -> None:
        """Lets go of the socket side: without the circle both are freed at once, and no collector has to run."""
        self._session = GoneSession(peer)

    def handle(self, packets: Iterable[Delivered], received_ms: int = 0) -> None:
        """Acts on the packets of one read, in order; consecutive telemetry is joined.

        `received_ms` is when they came; 0 for now.
        """
        self._handle(packets, received_ms)
        if self._has_new_filters:
            self._has_new_filters = False
            self._follow_subscriptions()

    def _handle(self, packets: Iterable[Delivered], received_ms: int) -> None:
        samples: list[Sample] = []
        ids: list[int] = []
        self.received_ms = received_ms = received_ms or self.api.now_ms()
        if self._gateway is not None:
            self._gateway.heard()
        rest, taken = iter(packets), self._taken
        for packet in rest:
            if type(packet) is Publish:
                parse = self._telemetry.get(packet.topic)
                if parse is not None:
                    try:
                        samples += parse(packet.payload, received_ms=received_ms)
                    except PlatformError as error:
                        self._post(samples, ids)  # the good ones before go first
                        samples, ids = [], []
                        self._drop(packet, error)
                    else:
                        taken.telemetry += 1
                        if packet.qos:
                            ids.append(packet.packet_id)
                        continue
                else:
                    self._post(samples, ids)
                    samples, ids = [], []
                    self._publish(packet)
                if self._held is not None:
                    self._held += rest
                    return
            else:
                self._post(samples, ids)
                samples, ids = [], []
                _HANDLERS[type(packet)](self, packet)
        self._post(samples, ids)

    def resume(self) -> None:
        """The time of a pause is over, or the peer takes again what is written to it."""
        held, self._held = self._held, None
        if held:
            self.handle(held, self.received_ms)
        if self._downloads is not None:
            self._downloads.proceed(self)

    # -- login ------------------------------------------------------------------------------------

    def _connect(self, packet: Connect) -> None:
        presented = PresentedCredentials(
            client_id=packet.client_id,
            username=packet.user_name or "",
            password=(packet.password or b"").decode("utf-8", "surrogateescape"),
            has_password=packet.password is not None,
        )
        identity = self.api.provisioning_identity(presented)
        if identity is not None:
            self._accept(identity)
            return
        presented.chain = self._session.presented()

        def known(outcome: Identity | PlatformError) -> None:
            if not (isinstance(outcome, NotAuthenticated) and self.api.anonymous_identity(presented)):
                self.api.metrics.login(Transport.MQTT, outcome)
            if isinstance(outcome, PlatformError):
                anonymous = self.api.anonymous_identity(presented)
                if anonymous is None or isinstance(outcome, Unavailable):
                    codes, has_shown = connack_codes(outcome, presented), presented.chain is not None
                    self._refuse(explained(outcome), codes, is_said=has_shown)
                    return
                outcome = anonymous
            if outcome.options.transport_type not in _TRANSPORT_TYPES:
                self._refuse(
                    f"the profile of {outcome.device_name} is for the transport {outcome.options.transport_type};"
                    " choose DEFAULT or MQTT there",
                    UNAVAILABLE,
                )
                return
            self._accept(outcome)

        if presented.chain is None:
            self.api.authenticate(presented, known)
        else:  # user name and password do not count beside a certificate
            self.api.certificates.authenticate(presented.chain, self.peer, known)

    def _accept(self, identity: Identity) -> None:
        if self._connection.is_closed:
            return  # the peer went away while its credentials were looked up
        self._identity = identity
        try:
            assigned = None if self._connection.client_id else f"muster-{new_secret()}"
            queued = self._connection.accept(assigned_client_id=assigned)
        except RemoteProtocolError as error:  # among the packets that were sent before CONNACK
            self.broke_the_rules(str(error))
            self._begin(identity)
            self._handle_queued(error.packets)
            self._close_gateway()
            self._session.end()
            return
        self._session.logged_in(identity)
        self._begin(identity)
        self._session.flush_soon()
        if queued:
            self._handle_queued(queued)
        if isinstance(self._session, GoneSession):
            self._close_gateway()

    def _handle_queued(self, packets: list[Delivered]) -> None:
        """What came behind CONNECT; an error of ours ends the connection, as in all that comes later."""
        try:
            self.handle(packets)
        except Exception:
            log.failure("Error while handling messages of {device}", device=self._name)
            self._end(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)

    def _begin(self, identity: Identity) -> None:
        """What the session may say. Where rates are limited, messages are counted one by one and not joined."""
        if identity.role is Role.PROVISIONING:
            return
        if not self.api.rates.is_on:
            self._telemetry = telemetry_parsers(identity.options)
        if identity.role is Role.GATEWAY:
            self._gateway = GatewayAdapter(self.api, identity, self)

    def _refuse(self, why: str, codes: tuple[int, int], *, is_said: bool = False) -> None:
        """`is_said`: MQTT 5 tells why; so of a certificate, whose owner has no other way to find out."""
        if self._connection.is_closed:
            return
        self.counters.refused_logins += 1
        self._note("MQTT login from {source} refused: {why}", why)
        v3_code, v5_code = ConnectReturnCode(codes[0]), ReasonCode(codes[1])
        is_repeated = self.settings.repeats_refusal
        self._connection.refuse(v3_code, v5_code, is_repeated=is_repeated, reason=why if is_said else "")
        self._session.end()

    def _close_gateway(self) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            gateway.close()

    # -- publishes --------------------------------------------------------------------------------

    def _post(self, samples: list[Sample], ids: list[int]) -> None:
        if not samples and not ids:
            return
        assert self._identity is not None
        data_points = 0
        for _, values in samples:
            data_points += len(values)
        self._taken.data_points += data_points
        slots = self._all_slots()
        slot = slots.take(ids)

        def done(outcome: PlatformError | None) -> None:
            if outcome is None:
                slots.settle(slot, SUCCESS)
                self._session.flush_soon()
            else:
                self._conclude_failure(slot, None, outcome)

        self.api.post_telemetry(self._identity, samples, done)

    def _publish(self, packet: Publish) -> None:
        """Any publish that is not plain telemetry."""
        if self._is_provision_only:
            self._provision(packet)
            return
        identity = self.device
        self._taken.other += 1
        if packet.topic.startswith(topics.GATEWAY_PREFIX):
            self._publish_to_gateway(packet)
            return
        try:
            target = target_of(identity.options, packet.topic)
            if target is None:
                self._refuse_topic(packet, TOPIC_NAME_INVALID)
            elif not self.api.may(identity, target.operation):
                self._refuse_topic(packet, NOT_AUTHORIZED)
            else:
                self._current = packet
                limited = self.api.rates.message(identity) if target.operation in COUNTED else None
                if limited is not None:
                    self.conclude(self.take(packet), packet, limited)
                else:
                    HANDLERS[target.operation](self, packet, target)
        except PlatformError as error:
            self._drop(packet, error)
        finally:
            self._current = None

    def _publish_to_gateway(self, packet: Publish) -> None:
        if self._gateway is None:
            self._refuse_topic(packet, NOT_AUTHORIZED)
            return
        self._current = packet
        try:
            self._gateway.publish(packet)
        finally:
            self._current = None

    def _provision(self, packet: Publish) -> None:
        """PUBACK first, then the answer (section 2.2); a malformed request is answered too, any other topic refused."""
        if not topics.is_provision_request(packet.topic):
            self._refuse_topic(packet, TOPIC_NAME_INVALID)
            return
        slot, encoding = self.take(packet), payloads.ProvisionEncoding.JSON

        def answer(outcome: ProvisionResponse | PlatformError) -> None:
            self.conclude(slot, packet, None)
            response = payloads.refusal_response(outcome) if isinstance(outcome, PlatformError) else outcome
            if isinstance(outcome, PlatformError):
                log.info(
                    "Provision request refused: {reason} {ref}", reason=response.reason, ref=response.ref,
                    transport="mqtt", source=self.peer.address,
                )  # fmt: skip
            topic = topics.provision_response_topic(packet.topic, self.subscriptions)
            self.answer(slot, topic, payloads.render_provision_response(response, encoding))

        try:
            request, encoding = payloads.decode_provision(packet.payload)
        except PlatformError as error:
            self.api.refuse_provision(error, self.peer, answer)
            return
        self.api.provision(request, self.peer, answer)

    @property
    def _is_provision_only(self) -> bool:
        return self._identity is not None and self._identity.role is Role.PROVISIONING

    def _refuse_topic(self, packet: Publish, reason: int) -> None:
        """Acknowledged with the reason; a provision-only session ends (section 2.3)."""
        if reason == NOT_AUTHORIZED and not self._is_provision_only:
            self.counters.not_authorized += 1
            why = "this device may not publish there"
        else:
            self.counters.unknown_topic += 1
            reason = TOPIC_NAME_INVALID
            why = "there is no such topic"
        self._log_drop(packet, why)
        self._settle(self.take(packet), reason)
        if self._is_provision_only:
            self._end(ReasonCode.TOPIC_NAME_INVALID)

    def _drop(self, packet: Publish, error: PlatformError) -> None:
        """A message that cannot be read."""
        if self._is_provision_only:  # an id that is none, on a topic that is not for this session
            self._refuse_topic(packet, TOPIC_NAME_INVALID)
        else:
            self._conclude_failure(self.take(packet), packet, error)

    # -- what the core sends ----------------------------------------------------------------------

    def attributes_changed(self, change: AttributesChange) -> None:
        """As `Downlink.attributes_changed`."""
        if self._pushes is not None:
            self._pushes.attributes_changed(self, change)

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        """As `Downlink.command`."""
        if self._pushes is not None:
            self._pushes.command(self, command, delivery)
        else:
            delivery.failed()

    # -- the rest ---------------------------------------------------------------------------------

    def _subscribe(self, packet: Subscribe) -> None:
        codes = [self._grant(wanted) for wanted in packet.subscriptions]
        self._connection.suback(packet.packet_id, codes)
        self._has_new_filters = True
        self._session.flush_soon()

    def _grant(self, wanted: Subscription) -> int:
        """The granted QoS, or why not."""
        topic_filter, granted = wanted.topic_filter, min(wanted.qos, 1)
        if len(topic_filter) > MAX_FILTER_CHARS:
            return TOPIC_FILTER_INVALID
        operation = topics.operation_for_subscribe(topic_filter)
        if operation is None and is_own_attributes_filter(topic_filter, self.device.options):
            operation = Operation.RECEIVE_ATTRIBUTES
        if operation is None or not self.api.may(self.device, operation):
            return TOPIC_FILTER_INVALID
        subscribed = self.subscriptions
        if len(subscribed) >= MAX_SUBSCRIPTIONS and topic_filter not in subscribed:
            return QUOTA_EXCEEDED
        subscribed.pop(topic_filter, None)  # the last one decides the flavour of pushes
        subscribed[topic_filter] = granted
        return granted

    def _unsubscribe(self, packet: Unsubscribe) -> None:
        known = self.subscriptions
        codes = [SUCCESS if known.pop(one, None) is not None else NO_SUBSCRIPTION for one in packet.topic_filters]
        self._connection.unsuback(packet.packet_id, codes)
        self._has_new_filters = True
        self._session.flush_soon()

    def _follow_subscriptions(self) -> None:
        if self._is_provision_only:
            return
        if self._pushes is None:
            self._pushes = Pushes()
        self._session.listen(self._pushes.follow(self.subscriptions, self.device.options))

    def _pinged(self, _packet: Pingreq) -> None:
        if self._gateway is not None:
            self._gateway.pinged()

    def _disconnect(self, _packet: Disconnect) -> None:
        self._session.end()


_HANDLERS: dict[type, Callable[..., None]] = {
    Connect: MqttAdapter._connect,
    Subscribe: MqttAdapter._subscribe,
    Unsubscribe: MqttAdapter._unsubscribe,
    Pingreq: MqttAdapter._pinged,
    Disconnect: MqttAdapter._disconnect,
}
