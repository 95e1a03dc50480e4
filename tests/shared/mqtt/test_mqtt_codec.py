"""Bytes to packets and back: the catalogue fed in every way, limits, and the encoder's own errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.mqtt import codec
from shared.mqtt.codec import Decoder, encode
from shared.mqtt.codes import REASONS, Property, ReasonCode
from shared.mqtt.errors import LocalProtocolError, RemoteProtocolError
from shared.mqtt.packets import (
    Connect,
    Packet,
    Pingreq,
    Properties,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
)
from shared.mqtt.properties import RULES, pack_properties
from tests.shared.mqtt.catalogue import BAD, GOOD, Bad, Good

LIMIT = 100_000


def by_name(entry: Good | Bad) -> str:
    return entry.name


def feed_bytewise(decoder: Decoder, data: bytes) -> list[Packet]:
    """All packets of `data`, fed one byte at a time."""
    return [packet for index in range(len(data)) for packet in decoder.feed(data[index : index + 1])]


@pytest.mark.parametrize("good", GOOD, ids=by_name)
def test_a_packet_is_decoded_from_one_chunk(good: Good) -> None:
    """A whole packet gives its value and leaves nothing behind."""
    decoder = Decoder(LIMIT, version=good.version)
    assert decoder.feed(good.wire) == [good.packet]
    assert not decoder.is_mid_packet


@pytest.mark.parametrize("good", [good for good in GOOD if len(good.wire) < 1000], ids=by_name)
def test_a_packet_is_decoded_byte_by_byte(good: Good) -> None:
    """A packet appears with its last byte and not before."""
    decoder = Decoder(LIMIT, version=good.version)
    assert feed_bytewise(decoder, good.wire[:-1]) == []
    assert decoder.is_mid_packet
    assert decoder.feed(good.wire[-1:]) == [good.packet]


@pytest.mark.parametrize("good", GOOD, ids=by_name)
def test_bytes_left_over_wait_for_the_next_chunk(good: Good) -> None:
    """The beginning of a second packet is kept until its rest comes."""
    decoder = Decoder(LIMIT, version=good.version)
    cut = len(good.wire) // 2
    assert decoder.feed(good.wire + good.wire[:cut]) == [good.packet]
    assert decoder.feed(good.wire[cut:] + b"\xc0\x00") == [good.packet, Pingreq()]


@pytest.mark.parametrize("good", [good for good in GOOD if good.is_canonical], ids=by_name)
def test_a_packet_is_encoded_as_the_specification_writes_it(good: Good) -> None:
    """The encoder gives the bytes of the catalogue."""
    assert encode(good.packet, good.version) == good.wire


@pytest.mark.parametrize("bad", BAD, ids=by_name)
def test_a_malformed_packet_is_refused_with_its_code(bad: Bad) -> None:
    """A violation is reported with its reason code, and with the good packets before it."""
    decoder = Decoder(LIMIT, version=bad.version)
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.feed(b"\xc0\x00" + bad.wire)
    assert caught.value.reason_code is bad.code
    assert caught.value.packets == [Pingreq()]


@pytest.mark.parametrize("bad", BAD, ids=by_name)
def test_a_malformed_packet_is_refused_byte_by_byte(bad: Bad) -> None:
    """The reason does not depend on how the bytes are cut."""
    with pytest.raises(RemoteProtocolError) as caught:
        feed_bytewise(Decoder(LIMIT, version=bad.version), bad.wire)
    assert caught.value.reason_code is bad.code
    assert caught.value.packets == []


@pytest.mark.parametrize("good", [good for good in GOOD if len(good.wire) < 1000], ids=by_name)
def test_a_packet_cut_short_by_its_own_length_never_crashes(good: Good) -> None:
    """Every shorter body is either a packet too or malformed; nothing else is raised."""
    body = good.wire[2:]
    for length in range(min(len(body), 127)):
        decoder = Decoder(LIMIT, version=good.version)
        try:
            assert len(decoder.feed(good.wire[:1] + bytes((length,)) + body[:length])) == 1
        except RemoteProtocolError as error:
            assert error.reason_code >= 0x80


def test_a_publish_right_behind_connect_is_read_in_its_version() -> None:
    """CONNECT settles the version within one chunk: the v5 PUBLISH behind it has a property length."""
    publish = Publish("a", b"\0hi", 1, 7)
    decoder = Decoder(LIMIT)
    packets = decoder.feed(encode(Connect("d", 5)) + encode(publish, 5))
    assert packets == [Connect("d", 5), publish]
    assert decoder.version == 5


def test_a_packet_above_the_limit_is_refused_from_its_header() -> None:
    """The size limit counts the whole packet and does not wait for the body [MQTT-3.2.2-15]."""
    fits = encode(Publish("a", b"x" * 95))
    assert len(fits) == 100
    assert len(Decoder(100).feed(fits)) == 1
    with pytest.raises(RemoteProtocolError) as caught:
        Decoder(99).feed(fits[:2])
    assert caught.value.reason_code is ReasonCode.PACKET_TOO_LARGE


def test_a_payload_above_the_limit_is_refused_though_its_packet_fits() -> None:
    """The payload has a limit of its own."""
    decoder = Decoder(1000, max_payload_bytes=10)
    assert len(decoder.feed(encode(Publish("a", b"x" * 10)))) == 1
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.feed(encode(Publish("a", b"x" * 11)))
    assert caught.value.reason_code is ReasonCode.PACKET_TOO_LARGE


def test_a_topic_above_the_limit_is_refused_also_when_another_connection_used_it() -> None:
    """The limit is the connection's own, although validated topics are shared."""
    wire = encode(Publish("a" * 20, b""))
    assert len(Decoder(1000).feed(wire)) == 1
    with pytest.raises(RemoteProtocolError) as caught:
        Decoder(1000, max_topic_bytes=19).feed(wire)
    assert caught.value.reason_code is ReasonCode.TOPIC_NAME_INVALID


def test_the_memory_of_validated_topics_is_bounded() -> None:
    """Neither many topics nor long ones can make the shared memory grow."""
    decoder = Decoder(LIMIT)
    for number in range(codec.MAX_CACHED_TOPICS + 10):
        decoder.feed(encode(Publish(f"bound/{number}", b"")))
    assert len(codec._TOPICS) <= codec.MAX_CACHED_TOPICS
    decoder.feed(encode(Publish("x" * 1000, b"")))
    assert all(len(raw) <= codec.MAX_CACHED_TOPIC_BYTES for raw in codec._TOPICS)


def test_an_error_text_quotes_nothing_the_peer_sent() -> None:
    """Errors are logged; a token in a broken CONNECT must not be."""
    wire = b"\x10\x19\x00\x04MQTT\x04\x82\x00\x00\x00\x01d\x00\x05token\x00\x03abc"
    with pytest.raises(RemoteProtocolError) as caught:
        Decoder(LIMIT).feed(wire)
    assert "token" not in str(caught.value)
    assert "0x81" in str(caught.value)


def test_credentials_do_not_appear_in_a_packet_shown() -> None:
    """User name (the access token) and password stay out of `repr`."""
    shown = repr(Connect("d", user_name="secret-token", password=b"secret-password"))
    assert "secret" not in shown


def test_older_versions_are_told_what_they_can_be_told() -> None:
    """Before v5 SUBACK knows one failure, UNSUBACK no codes, PUBACK no reason."""
    assert encode(Suback(5, [1, 0x8F]), 4) == b"\x90\x04\x00\x05\x01\x80"
    assert encode(Unsuback(5, [0x11]), 4) == b"\xb0\x02\x00\x05"
    assert encode(Puback(5, 0x99), 4) == b"\x40\x02\x00\x05"


@pytest.mark.parametrize(
    "packet",
    [
        Puback(0),
        Puback(65_536),
        Publish("a", b"", 1),
        Publish("a\0", b""),
        Publish("\ud800", b""),
        Publish("a" * 65_536, b""),
        Publish("a", b"x" * 268_435_456),
        Publish("a", b"", properties={Property.MESSAGE_EXPIRY_INTERVAL: 1 << 32}),
        Connect("d", keep_alive_s=65_536),
    ],
    ids=lambda packet: type(packet).__name__,
)
def test_what_has_no_encoding_is_our_error(packet: Packet) -> None:
    """Values outside the protocol raise LocalProtocolError, nothing else."""
    with pytest.raises(LocalProtocolError):
        encode(packet, 5)


def test_every_reason_code_has_its_text() -> None:
    """A reason code is its byte and its name in the specification."""
    assert all(code.text for code in ReasonCode)
    assert ReasonCode(0x97) is ReasonCode.QUOTA_EXCEEDED
    assert ReasonCode.QUOTA_EXCEEDED.text == "Quota exceeded"
    assert all(value in set(ReasonCode) for codes in REASONS.values() for value in codes)


def test_every_property_has_a_rule() -> None:
    """No property identifier lacks its type and its packets."""
    assert set(RULES) == set(Property)


def test_many_user_properties_are_kept_in_order() -> None:
    """Names may repeat, and their order is significant [MQTT-3.1.3-10]."""
    pairs = [("k", str(number)) for number in range(2000)]
    properties: Properties = {Property.USER_PROPERTY: pairs}
    packet = Publish("a", b"", properties=properties)
    assert Decoder(LIMIT, version=5).feed(encode(packet, 5)) == [packet]
    assert pack_properties(None) == b"\0"


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
topic = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=20)
versions = st.sampled_from([3, 4, 5])


@given(
    st.lists(st.tuples(topic, st.binary(max_size=300), st.integers(0, 2), st.booleans()), max_size=8),
    versions,
)
def test_messages_survive_encoding_and_decoding(messages: list[tuple[str, bytes, int, bool]], version: int) -> None:
    """Whatever is published comes out as it went in."""
    packets: list[Packet] = [
        Publish(name, payload, qos, number if qos else 0, retain=retain)
        for number, (name, payload, qos, retain) in enumerate(messages, 1)
    ]
    wire = b"".join(encode(packet, version) for packet in packets)
    assert Decoder(LIMIT, version=version).feed(wire) == packets


@given(
    text,
    versions,
    st.booleans(),
    st.integers(0, 65_535),
    st.none() | text,
    st.none() | st.binary(max_size=20),
)
def test_a_connect_survives_encoding_and_decoding(
    client_id: str, version: int, clean: bool, keep_alive_s: int, user: str | None, password: bytes | None
) -> None:
    """Whatever a client may say about itself comes out as it went in."""
    if version != 5 and user is None:
        password = None
    packet = Connect(client_id, version, clean, keep_alive_s, user, password)
    assert Decoder(LIMIT).feed(encode(packet)) == [packet]


@given(st.binary(max_size=200), versions)
def test_any_bytes_give_packets_or_a_remote_error(data: bytes, version: int) -> None:
    """Garbage is never answered by another exception."""
    try:
        Decoder(LIMIT, version=version).feed(data)
    except RemoteProtocolError as error:
        assert error.reason_code >= 0x80


@given(st.integers(0, 255), st.binary(max_size=120), versions)
def test_any_body_behind_any_header_gives_packets_or_a_remote_error(first: int, body: bytes, version: int) -> None:
    """The same with a header that fits, which random bytes rarely have."""
    try:
        packets = Decoder(LIMIT, version=version).feed(bytes((first, len(body))) + body)
        assert len(packets) == 1
    except RemoteProtocolError as error:
        assert error.reason_code >= 0x80


def test_a_subscribe_of_many_filters_is_decoded() -> None:
    """A packet up to the limit may consist of nothing but filters."""
    entries = b"\x00\x01a\x01" * 15_000
    wire = b"\x82" + b"\xe2\xd4\x03" + b"\x00\x05" + entries
    packet = Decoder(LIMIT, version=4).feed(wire)[0]
    assert isinstance(packet, Subscribe)
    assert len(packet.subscriptions) == 15_000
