"""The server side of one MQTT connection, without the connection: bytes in, packets out, bytes to send.

What it does
- speaks 3.1, 3.1.1 and 5.0, and answers a CONNECT of any other level as far as the client can read it
- decides which packet may come when, by the tables of `legality.py`; anything else ends the connection
- keeps packets that arrive before the CONNECT is accepted, within bounds
- answers PINGREQ; runs the QoS 1 and 2 exchanges of both directions and allocates packet identifiers
- says of each message that we send whether the client has acknowledged it
- holds back what the client cannot take: its maximum packet size and its receive maximum

What it refuses to do
- no socket and no clock: `idle_limit_s` says how long a client may be silent, the caller has to notice
- no authentication: the caller answers a CONNECT by `accept` or `refuse`; v5 authentication exchanges
  are refused
- no acknowledgement on its own: a message is acknowledged when the caller says that it is stored
- no sessions that outlive the connection, so no re-sending and never "session present" on its own
- no retained messages and no wills: both are read and ignored, also on v5 where they could be refused,
  because devices send them and lose nothing
- no topic aliases, no subscription identifiers; what may be subscribed and published to, and shared
  subscriptions, is for the caller to decide
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import pack
from typing import Any, NoReturn

from shared.mqtt.codec import Decoder, encode
from shared.mqtt.codes import FIRST_FAILURE, REASONS, ConnectReturnCode, PacketKind, Property, ReasonCode
from shared.mqtt.errors import LocalProtocolError, RemoteProtocolError
from shared.mqtt.filters import is_valid_topic
from shared.mqtt.inflight import (
    MAX_PACKET_ID,
    Answer,
    InboundDelivery,
    InboundEvent,
    OnSettled,
    OutboundDelivery,
    event_of,
    packet_for,
)
from shared.mqtt.legality import (
    Action,
    State,
    check_first_byte,
    check_publish_properties,
    check_subscribe,
    state_after_action,
    state_after_packet,
)
from shared.mqtt.opening import EarlyPackets, Limits, answer_to_connect, check_connect, connack_properties
from shared.mqtt.packets import (
    V5,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from shared.mqtt.properties import integer

__all__ = ["Action", "Delivered", "Limits", "OnSettled", "ServerConnection", "State"]

Delivered = Connect | Publish | Subscribe | Unsubscribe | Disconnect | Pingreq
"""The packets a caller has to act upon, and PINGREQ, which is answered here but tells that the client lives; the
others are dealt with here."""


class ServerConnection:
    """One client, from its first byte to the end; see the module for what it does and does not.

    `version` is 3, 4 or 5 (0 before the CONNECT), `client_id` what the client or `accept` chose,
    `keep_alive_s` the interval in force (0: none).
    """

    __slots__ = (
        "_client_max_packet_bytes",
        "_client_receive_maximum",
        "_decoder",
        "_early",
        "_inbound",
        "_limits",
        "_outbound",
        "_outgoing",
        "_wants_session",
        "client_id",
        "keep_alive_s",
        "state",
        "version",
    )

    def __init__(self, limits: Limits) -> None:
        self.state = State.AWAITING_CONNECT
        self.version = 0
        self.client_id = ""
        self.keep_alive_s = 0
        self._limits = limits
        self._decoder = Decoder(
            limits.max_packet_bytes,
            max_payload_bytes=limits.max_payload_bytes,
            max_topic_bytes=limits.max_topic_bytes,
        )
        self._outgoing: list[bytes] = []
        self._early: EarlyPackets | None = None
        self._inbound: InboundDelivery | None = None
        self._outbound: OutboundDelivery | None = None
        self._wants_session = False  # v5: asked for a session that outlives the connection
        self._client_max_packet_bytes = 0  # 0: no limit
        self._client_receive_maximum = MAX_PACKET_ID

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over."""
        return self.state is State.CLOSED

    @property
    def idle_limit_s(self) -> float | None:
        """Silence, in seconds, after which the client must be dropped; None for never [MQTT-3.1.2-22]."""
        return self.keep_alive_s * 1.5 if self.keep_alive_s else None

    # What the client sends

    def receive_data(self, data: bytes) -> list[Delivered]:
        """The packets that `data` completes and the caller must act upon, in order.

        A CONNECT is returned at once, what follows it only by `accept`.

        Raises: RemoteProtocolError, with the packets before the violation in its `packets`. The state is
        CLOSED then, and `data_to_send` has what may still be said to the client.
        """
        if self.is_closed or not data:
            return []
        violation: RemoteProtocolError | None = None
        packets: Sequence[Packet] = ()
        try:
            if self.version == 0 and not self._decoder.is_mid_packet:
                check_first_byte(data[0])
            packets = self._decoder.feed(data)
        except RemoteProtocolError as error:
            violation = error
            packets = error.packets
        delivered = self._take(packets)
        if violation is not None and not self.is_closed:
            self._fail(violation, delivered)
        return delivered

    def _take(self, packets: Iterable[Packet]) -> list[Delivered]:
        """Apply the state's rules to packets; those for the caller."""
        delivered: list[Delivered] = []
        try:
            if self.state is State.ACTIVE:
                self._take_active(packets, delivered)
            else:
                self._take_early(packets, delivered)
        except RemoteProtocolError as error:
            self._fail(error, delivered)
        return delivered

    def _take_early(self, packets: Iterable[Packet], delivered: list[Delivered]) -> None:
        """Before `accept`: the CONNECT goes to the caller, the rest is kept."""
        for packet in packets:
            state = state_after_packet(self.state, packet)
            if isinstance(packet, Connect):
                self._begin(packet)
                delivered.append(packet)
            else:
                self._keep(packet)
            self.state = state

    def _take_active(self, packets: Iterable[Packet], delivered: list[Delivered]) -> None:
        """After `accept`. The loop runs for every message: what is common is inlined."""
        maximum = self._limits.receive_maximum if self.version == V5 else MAX_PACKET_ID
        inbound = self._inbound
        room = maximum - inbound.count if inbound else 0
        for packet in packets:
            if type(packet) is Publish:  # legal: (ACTIVE, Publish) is in RECEIVED
                if packet.properties is not None:
                    check_publish_properties(packet.properties)
                qos = packet.qos
                if qos == 0:
                    delivered.append(packet)
                    continue
                packet_id = packet.packet_id
                if (
                    qos == 1
                    and room > 0
                    and inbound
                    and packet_id not in inbound.owed
                    and packet_id not in inbound.exchanges
                ):
                    inbound.owed.add(packet_id)  # (FREE, PUBLISH_QOS1) of INBOUND
                    room -= 1
                    delivered.append(packet)
                    continue
                if self._begin_inbound(packet, maximum):
                    delivered.append(packet)
            elif self._act_on(packet, delivered) is State.CLOSED:
                self._forget()
                return
            inbound = self._inbound
            room = maximum - inbound.count if inbound else 0

    def _begin_inbound(self, packet: Publish, maximum: int) -> bool:
        """Apply a QoS 1 or 2 message; whether it is to be delivered."""
        if self._inbound is None:
            self._inbound = InboundDelivery()
        event = InboundEvent.PUBLISH_QOS1 if packet.qos == 1 else InboundEvent.PUBLISH_QOS2
        answer = self._inbound.received(packet.packet_id, event)
        if self._inbound.count > maximum:
            raise RemoteProtocolError(
                ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "More unacknowledged messages than the receive maximum"
            )  # [MQTT-3.3.4-9]
        self._answer(answer, packet.packet_id)
        return answer is Answer.DELIVER

    def _act_on(self, packet: Packet, delivered: list[Delivered]) -> State:
        """Apply any packet but PUBLISH; the state after it."""
        self.state = state_after_packet(self.state, packet)
        consume = _CONSUMED.get(type(packet))
        if consume is not None:
            consume(self, packet)
        elif isinstance(packet, Delivered):
            if isinstance(packet, Subscribe):
                check_subscribe(packet)
            elif isinstance(packet, Pingreq):
                self._send(Pingresp())  # [MQTT-3.12.4-1]
            delivered.append(packet)
        return self.state

    def _release_inbound(self, packet: Pubrel) -> None:
        if self._inbound is None:
            self._inbound = InboundDelivery()
        self._answer(self._inbound.received(packet.packet_id, InboundEvent.PUBREL), packet.packet_id)

    def _advance_outbound(self, packet: Puback | Pubrec | Pubcomp) -> None:
        """An acknowledgement of one of our messages; it may make room for those that wait."""
        outbound = self._outbound_delivery()
        self._answer(outbound.received(packet.packet_id, event_of(packet)), packet.packet_id)
        for message in outbound.next_messages():
            self._send(message)
        told = outbound.settled(packet.packet_id) if not isinstance(packet, Pubcomp) else None
        if told is not None:  # last: it may send, or end the connection
            told(packet.reason_code < FIRST_FAILURE)

    # The beginning

    def _begin(self, packet: Connect) -> None:
        """Learn from a CONNECT what matters here, or refuse it where the protocol says so."""
        self.version = packet.version
        self.client_id = packet.client_id
        self.keep_alive_s = packet.keep_alive_s
        check_connect(packet)
        properties = packet.properties
        self._wants_session = integer(properties, Property.SESSION_EXPIRY_INTERVAL, 0) > 0
        self._client_max_packet_bytes = integer(properties, Property.MAXIMUM_PACKET_SIZE, 0)
        self._client_receive_maximum = integer(properties, Property.RECEIVE_MAXIMUM, MAX_PACKET_ID)

    def _keep(self, packet: Packet) -> None:
        """Hold a packet back until `accept`."""
        if self._early is None:
            self._early = EarlyPackets()
        self._early.keep(packet, self._limits)

    def accept(
        self,
        session_present: bool = False,
        *,
        assigned_client_id: str | None = None,
        server_keep_alive_s: int | None = None,
    ) -> list[Delivered]:
        """Accept the client; the packets it sent meanwhile, as `receive_data` would return them.

        `assigned_client_id` is taken when the client gave none; v5 demands it then [MQTT-3.2.2-16].
        `server_keep_alive_s` replaces the client's interval on v5; older clients cannot be told, so theirs
        stays. Nothing happens if the connection is closed already.

        Raises: RemoteProtocolError, as `receive_data` does.
        """
        if self.version == V5 and not (self.client_id or assigned_client_id or self.is_closed):
            raise LocalProtocolError("A v5 client without an identifier must be given one")
        if not self._moves(Action.ACCEPT):
            return []
        properties: Properties | None = None
        if self.version == V5:
            properties = connack_properties(
                self._limits,
                assigned_client_id=None if self.client_id else assigned_client_id,
                keep_alive_s=server_keep_alive_s,
                wants_session=self._wants_session,
            )
            self.keep_alive_s = self.keep_alive_s if server_keep_alive_s is None else server_keep_alive_s
        self.client_id = self.client_id or assigned_client_id or ""
        self._send(Connack(0, session_present, properties))
        early, self._early = self._early, None
        return self._take(early.packets) if early else []

    def refuse(
        self, v3_code: ConnectReturnCode, v5_code: ReasonCode, *, is_repeated: bool = False, reason: str = ""
    ) -> None:
        """Refuse the client with the code of its version; the connection is CLOSED after the CONNACK.

        `reason` is said to v5 clients whose packets may be so large [MQTT-3.2.2-19].

        `is_repeated` says it to v5 clients again in a DISCONNECT, which the specification forbids (also the
        codes: written as they are) and clients of other servers may read all the same.
        """
        if self._moves(Action.REFUSE):
            answer = Connack(v5_code if self.version == V5 else v3_code)
            if reason and self.version == V5:
                explained = Connack(v5_code, properties={Property.REASON_STRING: reason})
                room = self._client_max_packet_bytes
                answer = explained if not room or len(encode(explained, V5)) <= room else answer
            self._send(answer)
            if is_repeated and self.version == V5:
                self._outgoing.append(bytes((PacketKind.DISCONNECT << 4, 1, v5_code)))
            self._forget()

    # What we send

    def acknowledge(self, packet_ids: Iterable[int], reason: ReasonCode = ReasonCode.SUCCESS) -> None:
        """Answer the messages with these identifiers, in this order: they are stored, or (v5) refused.

        QoS 1 gets PUBACK, QoS 2 PUBREC. On v3 `reason` cannot be said and every answer is a success.

        Raises: LocalProtocolError, if one of them waits for no answer.
        """
        if self.state is not State.ACTIVE and not self._moves(Action.SEND):  # ACTIVE may always send
            return
        identifiers = packet_ids if isinstance(packet_ids, list) else list(packet_ids)
        if not identifiers:
            return
        if self._inbound is None:
            raise LocalProtocolError("There is nothing to acknowledge")
        if self.version != V5:
            reason = ReasonCode.SUCCESS
        if not reason and self._inbound.settle_all(identifiers):
            numbers = map(_PUBACK_SUCCESS.__add__, identifiers)
            self._outgoing.append(pack(f">{len(identifiers)}I", *numbers))
            return
        event = InboundEvent.REFUSED if reason >= FIRST_FAILURE else InboundEvent.ACCEPTED
        for packet_id in identifiers:
            self._answer(self._inbound.settle(packet_id, event), packet_id, reason)

    def suback(self, packet_id: int, codes: Iterable[int]) -> None:
        """Answer a SUBSCRIBE: one granted QoS or v5 reason code per subscription; v3 knows one failure."""
        if self._moves(Action.SEND):
            self._send(Suback(packet_id, list(codes)))  # [MQTT-3.8.4-1] [MQTT-3.8.4-6]

    def unsuback(self, packet_id: int, codes: Iterable[int] = ()) -> None:
        """Answer an UNSUBSCRIBE: one v5 reason code per filter; v3 says none."""
        if self._moves(Action.SEND):
            self._send(Unsuback(packet_id, list(codes)))  # [MQTT-3.10.4-4]

    def publish(self, topic: str, payload: bytes, qos: int, on_settled: OnSettled | None = None) -> bool:
        """Send a message to the client; False if it was dropped.

        Dropped are messages above the client's maximum packet size [MQTT-3.1.2-24], and those of QoS 1 and
        2 when its receive maximum and our queue are full. QoS 0 is sent at once, also past a full queue.
        `on_settled` hears of a message of QoS 1 or 2 that was not dropped, once: True when the client owns it
        (PUBACK, PUBREC), False when it refused it or the connection ended before.

        Raises: LocalProtocolError, if `topic` is no topic name or `qos` is not 0, 1 or 2.
        """
        if not self._moves(Action.SEND):
            return False
        if not is_valid_topic(topic) or qos not in (0, 1, 2):
            raise LocalProtocolError(f"No message can go to {topic!r} with QoS {qos}")
        if self._client_max_packet_bytes:
            trial = Publish(topic, payload, qos, 1 if qos else 0)
            if len(encode(trial, self.version)) > self._client_max_packet_bytes:
                return False
        message = Publish(topic, payload, qos)
        ready = self._outbound_delivery().send(message, on_settled) if qos else [message]
        for packet in ready or ():
            self._send(packet)
        return ready is not None

    def disconnect(self, reason: ReasonCode = ReasonCode.NORMAL_DISCONNECTION) -> None:
        """End the connection; an accepted v5 client is told why, nobody else can be [MQTT-3.14.0-1]."""
        was_active = self.state is State.ACTIVE
        if self._moves(Action.DISCONNECT):
            if was_active and self.version == V5:
                self._send(Disconnect(reason))
            self._forget()

    def data_to_send(self) -> bytes:
        """The bytes for the client that have piled up, and forget them; b"" when there are none."""
        if not self._outgoing:
            return b""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    def _moves(self, action: Action) -> bool:
        """Apply an action of the caller to the state; False if it comes too late to matter.

        Raises: LocalProtocolError, if it comes too early.
        """
        before = self.state
        self.state = state_after_action(before, action)
        return before is not State.CLOSED

    def _send(self, packet: Packet) -> None:
        self._outgoing.append(encode(packet, self.version))

    def _answer(self, answer: Answer, packet_id: int, reason: int = 0) -> None:
        """Send the packet a delivery table asks for, if it asks for one."""
        packet = packet_for(answer, packet_id, reason)
        if packet is not None:
            self._send(packet)

    def _outbound_delivery(self) -> OutboundDelivery:
        if self._outbound is None:
            window = min(self._client_receive_maximum, self._limits.max_outbound_inflight)
            limits = self._limits
            self._outbound = OutboundDelivery(window, limits.max_outbound_queue, limits.max_outbound_queue_bytes)
        return self._outbound

    # The end

    def _fail(self, error: RemoteProtocolError, delivered: list[Delivered]) -> NoReturn:
        """Close because of the peer; raises `error`, completed with what was legal before it."""
        before, self.state = self.state, State.CLOSED
        if before is State.ACTIVE and self.version == V5:
            known = error.reason_code in REASONS[PacketKind.DISCONNECT]
            self._send(Disconnect(error.reason_code if known else ReasonCode.PROTOCOL_ERROR))
        elif before is State.AWAITING_CONNECT:
            self._outgoing.append(answer_to_connect(error))
        self._forget()
        error.packets = delivered
        raise error

    def _forget(self) -> None:
        """Give back what only a living connection needs; CLOSED already, so that whoever is told can do no harm."""
        outbound = self._outbound
        self._early = self._inbound = self._outbound = None
        for told in outbound.abandon() if outbound else ():
            told(False)


_PUBACK_SUCCESS = 0x4002_0000  # with the packet identifier added: the four bytes of a PUBACK

# Any: each entry takes the packet of its key, which a dict type cannot say.
_CONSUMED: dict[type[Packet], Callable[[ServerConnection, Any], None]] = {
    Puback: ServerConnection._advance_outbound,
    Pubrec: ServerConnection._advance_outbound,
    Pubcomp: ServerConnection._advance_outbound,
    Pubrel: ServerConnection._release_inbound,
}
