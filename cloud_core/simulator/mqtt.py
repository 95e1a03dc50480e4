"""Devices on MQTT 3.1.1 and 5: the provisioning dialogue, and a session with reports and commands."""

from __future__ import annotations

from functools import lru_cache

from OpenSSL import SSL

from cloud_core.simulator.bodies import reply
from cloud_core.simulator.links import Listener
from cloud_core.simulator.network import Network
from cloud_core.simulator.plan import Fault, Transport
from shared.credentials import AccessToken, MqttBasic
from shared.device_json import parse_call
from shared.errors import MalformedRequest
from shared.mqtt.codec import Decoder, encode
from shared.mqtt.errors import RemoteProtocolError
from shared.mqtt.packets import (
    V5,
    V311,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Publish,
    Subscribe,
    Subscription,
)
from shared.topics import PROVISION_RESPONSE_TOPIC

MAX_PACKET_BYTES = 262_144
KEEP_ALIVE_S = 240
REQUEST_TOPIC, TELEMETRY_TOPIC = "/provision/request", "v1/devices/me/telemetry"
COMMANDS, REPLIES = "v1/devices/me/rpc/request/", "v1/devices/me/rpc/response/"
_ATTRIBUTES = "v1/devices/me/attributes"
_FIRST_ID, _LAST_ID = 1, 0xFFFF
_SUBSCRIPTION_ID = 0xFFFF
_BUSY = frozenset({3, 0x88, 0x89, 0x97, 0x9F})
"""CONNACK codes after which the same login may succeed: server unavailable, busy, quota, rate."""


@lru_cache(maxsize=4)
def _opening(version: int) -> bytes:
    return encode(Connect("", version=version, user_name="provision", keep_alive_s=60), version)


@lru_cache(maxsize=4)
def _response_subscription(version: int) -> bytes:
    return encode(Subscribe(_SUBSCRIPTION_ID, [Subscription(PROVISION_RESPONSE_TOPIC, 1)]), version)


@lru_cache(maxsize=4)
def _subscriptions(version: int) -> bytes:
    wanted = [Subscription(f"{COMMANDS}+", 1), Subscription(_ATTRIBUTES, 1)]
    return encode(Subscribe(_SUBSCRIPTION_ID, wanted), version)


class MqttLink:
    """One connection, for provisioning or for reports."""

    __slots__ = ("_answers_due", "_awaited_id", "_body", "_decoder", "_device", "_is_in", "_last_id", "_line",
                 "_network", "_report", "_version")  # fmt: skip
    stays = True

    def __init__(self, network: Network, device: Listener, identity: SSL.Context | None = None) -> None:
        self._network = network
        self._device = device
        self._version = V5 if device.plan.transport is Transport.MQTT5 else V311
        self._decoder = Decoder(MAX_PACKET_BYTES, version=self._version)
        self._line = network.tcp(self, device.plan, identity)
        self._body = self._report = b""
        self._answers_due = 0
        self._awaited_id = self._last_id = 0
        self._is_in = False

    def ask(self, body: bytes) -> None:
        self._body = body
        self._network.open(self._line, self._device.plan)

    def connect(self, report: bytes) -> None:
        self._report = report
        self._network.open(self._line, self._device.plan)

    def post(self, report: bytes) -> None:
        self._line.send(self._published(report))

    def close(self, *, abruptly: bool = False) -> None:
        if self._is_in and not abruptly:
            self._line.send(encode(Disconnect(), self._version))
        self._line.close(abruptly=abruptly)

    def ping(self) -> None:
        self._line.send(encode(Pingreq(), self._version))

    # what the line says

    def line_up(self) -> None:
        self._send(_opening(self._version) if self._body else encode(self._login(), self._version))

    def line_lost(self, why: str) -> None:
        self._device.broken(why)

    def received(self, data: bytes) -> None:
        try:
            packets = self._decoder.feed(data)
        except RemoteProtocolError as error:
            self._fail(f"not MQTT: {error}")
            return
        for packet in packets:
            self._packet(packet)

    def _packet(self, packet: Packet) -> None:
        match packet:
            case Publish():
                self._message(packet)
            case Puback(packet_id, code):
                self._stored(packet_id, code)
            case Connack(code):
                self._connack(code)
            case Disconnect(code):
                self._fail(f"DISCONNECT 0x{code:02X}")
            case _:
                pass  # SUBACK, PINGRESP

    def _login(self) -> Connect:
        match self._device.credentials:
            case AccessToken(token):
                return Connect("", version=self._version, user_name=token, keep_alive_s=KEEP_ALIVE_S)
            case MqttBasic(client_id, username, password):
                return Connect(client_id, version=self._version, user_name=username or None,
                               password=password.encode() or None, keep_alive_s=KEEP_ALIVE_S)  # fmt: skip
            case _:  # the certificate says who it is
                return Connect("", version=self._version, keep_alive_s=KEEP_ALIVE_S)

    def _connack(self, code: int) -> None:
        if code:
            self._line.close()
            name = f"CONNACK {code}" if self._version == V311 else f"CONNACK 0x{code:02X}"
            self._device.turned_away(name, retry_after_s=None, is_final=code not in _BUSY and not self._body)
            return
        self._is_in = True
        if self._body:
            request = encode(Publish(REQUEST_TOPIC, self._body, qos=1, packet_id=_FIRST_ID), self._version)
            is_twice = Fault.DUPLICATE in self._device.plan.faults
            self._answers_due = 2 if is_twice else 1
            if is_twice:
                request += encode(Publish(REQUEST_TOPIC, self._body, qos=1, packet_id=_FIRST_ID + 1), self._version)
            self._send(_response_subscription(self._version) + request)
            return
        self._device.accepted()
        if self._report:
            self._send(_subscriptions(self._version) + self._published(self._report))

    def _published(self, report: bytes) -> bytes:
        self._last_id = self._last_id % (_LAST_ID - 1) + 1  # 0xFFFF is the subscription's
        self._awaited_id = self._last_id
        return encode(Publish(TELEMETRY_TOPIC, report, qos=1, packet_id=self._last_id), self._version)

    def _stored(self, packet_id: int, code: int) -> None:
        if self._body:
            return  # of the provision request; its answer follows
        if packet_id != self._awaited_id:
            return
        self._awaited_id = 0
        if code >= 0x80:
            self._device.turned_away(f"PUBACK 0x{code:02X}", retry_after_s=None, is_final=False)
        else:
            self._device.acknowledged()

    def _message(self, packet: Publish) -> None:
        if packet.qos:
            self._line.send(encode(Puback(packet.packet_id), self._version))
        if self._body:
            self._answers_due -= 1
            self._device.answered(packet.payload, None)
        elif packet.topic.startswith(COMMANDS):
            self._command(packet)

    def _command(self, packet: Publish) -> None:
        try:
            method = parse_call(packet.payload).method
        except MalformedRequest:
            self._fail("a command that is none")
            return
        topic = REPLIES + packet.topic[len(COMMANDS) :]
        self._line.send(encode(Publish(topic, reply(method)), self._version))
        self._device.commanded()

    @property
    def awaits_more(self) -> bool:
        """Whether another answer to the request is due."""
        return self._answers_due > 0

    def _send(self, data: bytes) -> None:
        if self._body:
            self._network.send(self._line, data, self._device.plan)
        else:
            self._line.send(data)

    def _fail(self, why: str) -> None:
        self._line.close()
        self._device.broken(why)
