"""The topics `v1/gateway/*` of one gateway's connection, to its `GatewaySession` and back.

Every message has one acknowledgement, after everything it says is on disk. A wrong message is acknowledged
and dropped with its reason, and the connection stays. Above its rates a v5 gateway is refused (0x97, and a
notice for each device); a v3 gateway, which no refusal can reach, is read more slowly by the MQTT adapter, which
brings the message again.

Source: wire-contract.md sections 5.2 to 5.6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.core.downlinks import Delivery
from cloud_core.core.gateways import Dropped
from cloud_core.model import Identity
from cloud_core.transports.mqtt import traced
from shared import gateway_json
from shared.errors import (
    InvalidArgument,
    InvalidDeviceName,
    MalformedRequest,
    NotFound,
    PlatformError,
    QuotaExceeded,
    RateLimited,
    Unavailable,
)
from shared.gateway_json import ByDevice
from shared.messages import AttributesAnswer, AttributesChange, RpcCommand, Sample
from shared.mqtt.packets import Publish

log = Logger()

CONNECT = "v1/gateway/connect"
DISCONNECT = "v1/gateway/disconnect"
TELEMETRY = "v1/gateway/telemetry"
ATTRIBUTES = "v1/gateway/attributes"
ATTRIBUTES_REQUEST = "v1/gateway/attributes/request"
ATTRIBUTES_RESPONSE = "v1/gateway/attributes/response"
RPC = "v1/gateway/rpc"
CLAIM = "v1/gateway/claim"

CONNECT_COST = 2  # messages: one to find or create the device, one to subscribe for it
DEFAULT_PAUSE_S = 1.0

Acknowledge = Callable[[Any], None]


class GatewayPort(Protocol):
    """What the gateway's side needs of the MQTT adapter of its connection."""

    @property
    def is_v5(self) -> bool:
        """Whether the connection speaks MQTT 5, so that refusals and notices reach the gateway."""

    def publish(
        self, topic: str, payload: bytes, qos: int, on_acknowledged: Callable[[bool], None] | None = None
    ) -> bool:
        """Whether it was sent. `on_acknowledged(True)` once the peer has it (QoS 0: once written), else False."""

    def slot(self, packet: Publish) -> Acknowledge:
        """Called once for each packet, in order. What it returns is called once: with None for success or with a
        PlatformError, which is logged and whose reason code is sent (v5). RateLimited, said at once, makes the
        packet come again after its time on v3. Acknowledgements leave in the order of the packets."""

    def subscribed_qos(self, topic: str) -> int:
        """Of the subscription that the topic matches; 1 where there is none."""

    def pause(self, seconds: float) -> None:
        """Reads nothing for so long."""


class GatewayAdapter:
    """Translates for one gateway; it is the `GatewayLink` of the session that it opens."""

    __slots__ = ("_api", "_identity", "_port", "_session")

    def __init__(self, api: DeviceApi, identity: Identity, port: GatewayPort) -> None:
        self._api = api
        self._identity = identity
        self._port = port
        self._session = api.gateways.open(identity, self)

    # -- from the gateway -------------------------------------------------------------------------

    def publish(self, packet: Publish) -> None:
        """Acts on one message to `v1/gateway/…`."""
        done = self._port.slot(packet)
        if self._api.traces is not None:
            done = traced.telling(self._api.traces, packet, done)
        act = _TOPICS.get(packet.topic)
        if act is None:
            done(NotFound("no such gateway topic"))  # 0x90: topic name invalid
            return
        try:
            act(self, packet, done)
        except PlatformError as error:
            self._session.skipped(1)
            done(error)

    def heard(self) -> None:
        """The gateway sent something, be it for itself: activity, which is passed on by the next report."""
        self._session.has_spoken = True

    def pinged(self) -> None:
        """The gateway sent a PINGREQ."""
        self._session.pinged()

    def close(self) -> None:
        """The connection is gone."""
        self._session.close()

    def _connect(self, packet: Publish, done: Acknowledge) -> None:
        connect = gateway_json.parse_connect(packet.payload)
        devices, refusal = [connect.device], None
        if self._api.rates.is_on and not self._session.is_expected(connect.device):
            if self._is_refused(packet, devices, done, self._message(1)):
                return
            refusal = self._message(CONNECT_COST - 1)
        if refusal is not None and not self._port.is_v5:
            self._port.pause(refusal.retry_after_s or DEFAULT_PAUSE_S)
            refusal = None
        if refusal is not None:  # it is connected all the same
            self._session.drop(connect.device, Dropped.RATE_LIMITED, str(refusal))
        self._session.connect(connect.device, connect.type, lambda outcome: self._answer(outcome or refusal, done))

    def _disconnect(self, packet: Publish, done: Acknowledge) -> None:
        self._session.disconnect(gateway_json.parse_disconnect(packet.payload), done)

    def _telemetry(self, packet: Publish, done: Acknowledge) -> None:
        message = gateway_json.parse_telemetry(
            packet.payload, received_ms=self._api.now_ms(), on_bad_key=self._session.skip_key
        )
        entries = message.entries
        if self._api.rates.is_on and self._is_refused(packet, entries, done, self._telemetry_refusal(entries)):
            return
        if message.latencies:
            self._session.measured(message.latencies)
        self._post(message, self._session.post_telemetry, done)

    def _attributes(self, packet: Publish, done: Acknowledge) -> None:
        message = gateway_json.parse_attributes(packet.payload, on_bad_key=self._session.skip_key)
        if not self._is_refused(packet, message.entries, done, self._message(len(message.entries))):
            self._post(message, self._session.post_attributes, done)

    def _claim(self, packet: Publish, done: Acknowledge) -> None:
        message = gateway_json.parse_claims(packet.payload)
        if not self._is_refused(packet, message.entries, done, self._message(len(message.entries))):
            self._post(message, self._session.claim, done)

    def _post(self, message: ByDevice[Any], post: Callable[..., None], done: Acknowledge) -> None:
        """Hands the good entries on; the message is as good as its worst."""
        if not message.faults and not message.skipped:
            post(message.entries, lambda outcome: self._answer(outcome, done))
            return
        self._session.skipped(message.skipped)
        for device, fault in message.faults:
            self._session.drop(device, Dropped.MALFORMED, fault)
        worst = MalformedRequest(message.faults[0][1]) if message.faults else None
        if message.entries:
            post(message.entries, lambda outcome: self._answer(outcome or worst, done))
        else:
            done(worst)

    def _request_attributes(self, packet: Publish, done: Acknowledge) -> None:
        asked = gateway_json.parse_attributes_request(packet.payload)
        if self._is_refused(packet, [asked.device], done, self._message(1)):
            return

        def answer(outcome: AttributesAnswer | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                self._answer(outcome, done)
                return
            done(None)
            self._send(ATTRIBUTES_RESPONSE, gateway_json.render_attributes_answer(asked, outcome))

        self._session.request_attributes(asked.device, asked.request, answer)

    def _reply(self, packet: Publish, done: Acknowledge) -> None:
        reply = gateway_json.parse_reply(packet.payload)
        if not self._is_refused(packet, [reply.device], done, self._message(1)):
            self._session.reply(reply.device, reply.number, reply.value, lambda outcome: self._answer(outcome, done))

    def _answer(self, outcome: PlatformError | None, done: Acknowledge) -> None:
        """Acknowledges. Refusals that only provisioning has become those that a PUBACK can tell."""
        if isinstance(outcome, QuotaExceeded):
            done(Unavailable(str(outcome)) if self._port.is_v5 else None)  # 0x97; v3 looks like success
        elif isinstance(outcome, InvalidDeviceName | InvalidArgument):
            done(MalformedRequest(str(outcome)))
        elif isinstance(outcome, NotFound):
            done(None)  # data of a deleted device: the notice is all
        else:
            done(outcome)

    # -- rates ------------------------------------------------------------------------------------

    def _message(self, count: int) -> RateLimited | None:
        return self._api.rates.sub_device_message(self._identity, count) if self._api.rates.is_on else None

    def _telemetry_refusal(self, entries: Mapping[str, list[Sample]]) -> RateLimited | None:
        """Spends for the samples, and for connecting the devices that are new."""
        new = sum(not self._session.is_expected(device) for device in entries)
        refusal = self._message(CONNECT_COST * new) if new else None
        if refusal is None:
            points = sum(len(values) for samples in entries.values() for _, values in samples)
            refusal = self._api.rates.sub_device_telemetry(self._identity, len(entries), points)
        return refusal

    def _is_refused(
        self, packet: Publish, devices: Iterable[str], done: Acknowledge, refusal: RateLimited | None
    ) -> bool:
        """Answers a message above the rates. One that comes again is not counted as dropped."""
        if refusal is None:
            return False
        comes_again = not self._port.is_v5 and packet.qos > 0 and refusal.retry_after_s is not None
        for device in () if comes_again else devices:
            self._session.drop(device, Dropped.RATE_LIMITED, str(refusal))
        done(refusal)
        return True

    # -- to the gateway ---------------------------------------------------------------------------

    def attributes_changed(self, device: str, change: AttributesChange) -> None:
        self._send(ATTRIBUTES, gateway_json.render_attributes_change(device, change))

    def command(self, device: str, command: RpcCommand, delivery: Delivery) -> None:
        def acknowledged(is_delivered: bool) -> None:
            if is_delivered:
                delivery.delivered()
            else:
                delivery.failed()

        self._send(RPC, gateway_json.render_command(device, command), acknowledged)

    def dropped(self, device: str, why: Dropped) -> None:
        """A notice, v5 only; QoS 0, because it is worth nothing later."""
        if self._port.is_v5:
            self._port.publish(DISCONNECT, gateway_json.render_dropped(device, why), 0, None)

    def ended(self, device: str) -> None:
        """Gateways are not told: what they send next connects the device again where it may be."""
        log.debug("'{device}' is not behind gateway '{gateway}' any more",
                  device=device, gateway=self._identity.device_name)  # fmt: skip

    def _send(self, topic: str, payload: bytes, on_acknowledged: Callable[[bool], None] | None = None) -> None:
        self._port.publish(topic, payload, self._port.subscribed_qos(topic), on_acknowledged)


_TOPICS: dict[str, Callable[[GatewayAdapter, Publish, Acknowledge], None]] = {
    CONNECT: GatewayAdapter._connect,
    DISCONNECT: GatewayAdapter._disconnect,
    TELEMETRY: GatewayAdapter._telemetry,
    ATTRIBUTES: GatewayAdapter._attributes,
    ATTRIBUTES_REQUEST: GatewayAdapter._request_attributes,
    RPC: GatewayAdapter._reply,
    CLAIM: GatewayAdapter._claim,
}
