"""paho-mqtt as an oracle: what its encoder writes, our decoder reads. Its socket is a list of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.subscribeoptions import SubscribeOptions

from shared.mqtt.codec import Decoder
from shared.mqtt.codes import Property
from shared.mqtt.packets import (
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)

VERSIONS = [MQTTProtocolVersion.MQTTv31, MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5]


class Wire:
    """In place of paho's socket: keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def send(self, data: bytes) -> int:
        self.written += data
        return len(data)

    def close(self) -> None:
        """Nothing to close."""


def paho(version: int) -> tuple[Client, Wire]:
    """A paho client and what it is connected to."""
    client = Client(CallbackAPIVersion.VERSION2, "dev", protocol=MQTTProtocolVersion(version))
    wire = Wire()
    client._sock = wire  # type: ignore[assignment]
    return client, wire


def read(wire: Wire, version: int) -> list[Packet]:
    """What paho wrote, as our packets."""
    return Decoder(1_000_000, version=version).feed(wire.written)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_connect_of_paho_is_understood(version: int) -> None:
    """Credentials, will and keep-alive arrive in every version."""
    client, wire = paho(version)
    client.username_pw_set("token", "pässword")
    client.will_set("last", b"gone", 1, retain=True)
    if version == 5:
        client._clean_start = True
    client._send_connect(60)
    expected = Connect("dev", version, True, 60, "token", "pässword".encode(), Will("last", b"gone", 1, True))
    assert read(wire, 0) == [expected]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_other_packets_of_paho_are_understood(version: int) -> None:
    """SUBSCRIBE, UNSUBSCRIBE, PINGREQ and DISCONNECT."""
    client, wire = paho(version)
    if version == 5:
        client._send_subscribe(False, [(b"a/+", SubscribeOptions(1, True, True, 2))])
        wanted = Subscription("a/+", 1, True, True, 2)
    else:
        client._send_subscribe(False, [(b"a/+", 1)])
        wanted = Subscription("a/+", 1)
    client._send_unsubscribe(False, [b"a/+", b"b"])
    client._send_pingreq()
    client._send_disconnect()
    assert read(wire, version) == [
        Subscribe(1, [wanted]),
        Unsubscribe(2, ["a/+", "b"]),
        Pingreq(),
        Disconnect(),
    ]


def test_the_properties_of_paho_are_understood() -> None:
    """Every kind of property value, as paho packs it."""
    properties = PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it open
    properties.PayloadFormatIndicator = 1
    properties.MessageExpiryInterval = 3600
    properties.ContentType = "application/json"
    properties.CorrelationData = b"\0\xff"
    properties.UserProperty = [("a", "1"), ("a", "2")]
    client, wire = paho(5)
    client._send_publish(7, b"t", b"x", 1, properties=properties)
    (packet,) = read(wire, 5)
    assert isinstance(packet, Publish)
    assert packet.properties == {
        Property.PAYLOAD_FORMAT_INDICATOR: 1,
        Property.MESSAGE_EXPIRY_INTERVAL: 3600,
        Property.CONTENT_TYPE: "application/json",
        Property.CORRELATION_DATA: b"\0\xff",
        Property.USER_PROPERTY: [("a", "1"), ("a", "2")],
    }


@given(
    st.sampled_from(VERSIONS),
    st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=30),
    st.binary(max_size=20_000),
    st.integers(0, 2),
    st.booleans(),
    st.integers(1, 65_535),
)
def test_any_message_of_paho_is_understood(
    version: int, topic: str, payload: bytes, qos: int, retain: bool, packet_id: int
) -> None:
    """Topic, payload and flags come out as they went in."""
    client, wire = paho(version)
    client._send_publish(packet_id, topic.encode(), payload, qos, retain, qos > 0, MQTTMessageInfo(packet_id))
    expected = Publish(topic, payload, qos, packet_id if qos else 0, qos > 0, retain)
    assert read(wire, version) == [expected]
