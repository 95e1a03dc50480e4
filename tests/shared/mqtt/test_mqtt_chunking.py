"""Properties of a whole connection: any bytes, in any pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shared.mqtt.codec import encode
from shared.mqtt.connection import Delivered, Limits, ServerConnection
from shared.mqtt.errors import RemoteProtocolError
from shared.mqtt.packets import Connect
from tests.shared.mqtt.catalogue import BAD_AFTER_CONNECT, GOOD

LIMITS = Limits(max_packet_bytes=1000, receive_maximum=3, max_queued_before_connack=5)
WIRES = [*(good.wire for good in GOOD), *(bad.wire for bad in BAD_AFTER_CONNECT)]
PIECES = [wire for wire in WIRES if len(wire) < 200]

streams = st.tuples(
    st.sampled_from([b"", *(encode(Connect("d", version)) for version in (3, 4, 5))]),
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=8).map(b"".join),
).map(b"".join)
Outcome = tuple[list[Delivered], str, bytes]


def run(chunks: list[bytes], *, accepts_at_end: bool) -> Outcome:
    """What a caller sees, the violation if there is one, and what the client is sent."""
    connection = ServerConnection(LIMITS)
    delivered: list[Delivered] = []
    violation = ""
    try:
        for chunk in chunks:
            delivered += connection.receive_data(chunk)
            if not accepts_at_end and connection.state.name == "AUTHENTICATING":
                delivered += connection.accept(assigned_client_id="x")
        if connection.state.name == "AUTHENTICATING":
            delivered += connection.accept(assigned_client_id="x")
    except RemoteProtocolError as error:
        delivered += error.packets
        violation = str(error)
    return delivered, violation, connection.data_to_send()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at `cuts`."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:stop] for start, stop in pairwise(edges)]


@given(streams, st.lists(st.integers(0, 2000), max_size=12))
def test_cutting_a_stream_changes_nothing(data: bytes, cuts: list[int]) -> None:
    """A caller that accepts at the end sees the same packets, violation and answers, however bytes arrive."""
    whole = run([data], accepts_at_end=True)
    assert run(pieces(data, cuts), accepts_at_end=True) == whole
    assert run([data[i : i + 1] for i in range(len(data))], accepts_at_end=True) == whole


@given(streams, st.lists(st.integers(0, 2000), max_size=12))
def test_cutting_the_stream_of_an_accepted_client_changes_nothing(data: bytes, cuts: list[int]) -> None:
    """The same for one whose CONNECT was accepted before the rest came."""
    connect = encode(Connect("d", 5))
    whole = run([connect, data], accepts_at_end=False)
    assert run([connect, *pieces(data, cuts)], accepts_at_end=False) == whole


@given(st.binary(min_size=1, max_size=300))
def test_a_stranger_with_any_bytes_is_refused_or_waited_for(data: bytes) -> None:
    """No bytes lead to another exception; what is no CONNECT is refused by its first byte."""
    delivered, violation, _ = run([data], accepts_at_end=False)
    assert not delivered or isinstance(delivered[0], Connect)
    assert violation or data[0] == 0x10
