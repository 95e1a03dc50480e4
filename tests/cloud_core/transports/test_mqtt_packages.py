"""Claims and packages over MQTT (wire-contract.md section 2.10)."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import ClaimRefused
from shared.messages import ClaimRequest, PackageKind
from shared.mqtt.packets import Puback, Publish
from tests.support.mqtt import MqttPeer, MqttServer, server_with_device
from tests.support.parts import OnePackage, RecordingClaims
from tests.support.stores import StoreUnderTest

IMAGE = bytes(range(256)) * 1_000  # 256,000 bytes
REQUEST = "v2/fw/request/1/chunk/"


@pytest.fixture
def server(sqlite_store: StoreUnderTest) -> MqttServer:
    return server_with_device(sqlite_store)


def assign(server: MqttServer, data: bytes | None = IMAGE, **options: Any) -> OnePackage:
    package = OnePackage(data, **options)
    server.api.api.packages = package  # type: ignore[assignment]
    return package


def ask(peer: MqttPeer, topic: str, body: bytes = b"") -> tuple[str, bytes]:
    """Topic and payload of the answer; the acknowledgement comes before it."""
    acknowledgement, answer = peer.publish(topic, body)
    assert acknowledgement == Puback(1)
    return answer.topic, answer.payload


@pytest.mark.parametrize(
    ("body", "offer"),
    [
        (b"", ClaimRequest()),
        (b"{}", ClaimRequest()),
        (b'{"secretKey":"s","durationMs":60000}', ClaimRequest(secret="s", duration_ms=60_000)),
    ],
)
def test_a_device_offers_itself(server: MqttServer, body: bytes, offer: ClaimRequest) -> None:
    """With or without a secret; PUBACK once the offer stands (M9)."""
    claims = RecordingClaims()
    server.api.api.claims = claims  # type: ignore[assignment]
    assert server.log_in().publish("v1/devices/me/claim", body) == [Puback(1)]
    assert claims.offers == [offer]


@pytest.mark.parametrize("version", [4, 5])
def test_a_refused_claim_is_told_where_that_is_possible(server: MqttServer, version: int) -> None:
    """0x83 on 5.0; the session goes on."""
    server.api.api.claims = RecordingClaims(ClaimRefused())  # type: ignore[assignment]
    peer = server.log_in(version)
    assert peer.publish("v1/devices/me/claim", b"{}") == [Puback(1, 0x83 if version == 5 else 0)]
    assert not peer.is_closed


@pytest.mark.parametrize(("name", "kind"), [("fw", PackageKind.FIRMWARE), ("sw", PackageKind.SOFTWARE)])
def test_a_package_comes_in_chunks_of_the_size_asked_for(server: MqttServer, name: str, kind: PackageKind) -> None:
    """The size is remembered by request id; past the end comes an empty one."""
    package = assign(server, IMAGE[:2_500])
    peer = server.log_in()
    pieces = [ask(peer, f"v2/{name}/request/7/chunk/0", b"1000")]
    pieces += [ask(peer, f"v2/{name}/request/7/chunk/{number}") for number in (1, 2, 3)]
    assert [topic for topic, _ in pieces] == [f"v2/{name}/response/7/chunk/{number}" for number in range(4)]
    assert b"".join(data for _, data in pieces) == IMAGE[:2_500]
    assert pieces[-1][1] == b""
    assert {one.kind for one in package.requests} == {kind}


def test_each_request_has_its_size(server: MqttServer) -> None:
    """Of firmware and software, too."""
    assign(server)
    peer = server.log_in()
    ask(peer, "v2/fw/request/1/chunk/0", b"10")
    ask(peer, "v2/sw/request/1/chunk/0", b"20")
    ask(peer, "v2/fw/request/2/chunk/0", b"30")
    topics = ("v2/fw/request/1/chunk/1", "v2/sw/request/1/chunk/1", "v2/fw/request/2/chunk/1")
    assert [len(ask(peer, topic)[1]) for topic in topics] == [10, 20, 30]


def test_without_a_size_everything_comes_at_once(server: MqttServer) -> None:
    """As clients that leave it out expect, as far as that is bearable."""
    assign(server)
    peer = server.log_in()
    peer._decoder = type(peer._decoder)(300_000)
    assert ask(peer, REQUEST + "0") == ("v2/fw/response/1/chunk/0", IMAGE)
    assert ask(peer, REQUEST + "1") == ("v2/fw/response/1/chunk/1", b"")


def test_a_small_package_is_fetched_once(server: MqttServer) -> None:
    package = assign(server, b"small")
    assert ask(server.log_in(), REQUEST + "0")[1] == b"small"
    assert len(package.requests) == 1


def test_a_package_that_is_too_large_must_be_asked_for_in_chunks(sqlite_store: StoreUnderTest) -> None:
    """It is not read from the database for that."""
    server = server_with_device(sqlite_store, max_whole_package_bytes=100_000)
    package = assign(server)
    peer = server.log_in()
    assert ask(peer, REQUEST + "0") == ("v2/fw/error", b"PAYLOAD_TOO_LARGE")
    assert [one.chunk_bytes for one in package.requests] == [65_536]
    assert len(ask(peer, REQUEST + "0", b"5000")[1]) == 5_000


@pytest.mark.parametrize(
    ("topic", "body", "data", "text"),
    [
        (REQUEST + "0", b"65537", IMAGE, b"PAYLOAD_TOO_LARGE"),
        (REQUEST + "0", b"100", None, b"NOT_FOUND"),
        (REQUEST + "0", b"", None, b"NOT_FOUND"),
        ("v2/sw/request/1/chunk/0", b"100", None, b"NOT_FOUND"),
    ],
)
def test_what_is_wrong_is_told_and_the_session_stays(
    server: MqttServer, topic: str, body: bytes, data: bytes | None, text: bytes
) -> None:
    """On `v2/fw/error` for both kinds; ThingsBoard would close."""
    assign(server, data)
    peer = server.log_in()
    assert ask(peer, topic, body) == ("v2/fw/error", text)
    assert not peer.is_closed


def test_errors_of_software_reach_who_listens_for_them_alone(server: MqttServer) -> None:
    assign(server, None)
    peer = server.log_in()
    peer.subscribe("v2/sw/error", qos=0)
    assert ask(peer, "v2/sw/request/1/chunk/0", b"1")[0] == "v2/sw/error"


@pytest.mark.parametrize(("topic", "body"), [(REQUEST + "0", b"-1"), (REQUEST + "0", b"ten"), (REQUEST + "x", b"")])
def test_a_malformed_request_is_refused(server: MqttServer, topic: str, body: bytes) -> None:
    """As any other bad message."""
    assign(server)
    assert server.log_in(5).publish(topic, body) == [Puback(1, 0x99)]


def test_pieces_are_fetched_one_after_the_other(server: MqttServer) -> None:
    """In the order asked for; what waits is bounded."""
    package = assign(server, is_waiting=True)
    peer = server.log_in()
    peer.send(*(Publish(f"{REQUEST}{number}", b"10", 1, number + 1) for number in range(150)))
    answers = [one for one in peer.received() if isinstance(one, Publish)]
    assert [one.payload for one in answers] == [b"RATE_LIMITED"] * 49
    assert len(package.requests) == 1
    for _ in range(101):
        package.release()
    peer.send(*(Puback(one.packet_id) for one in [*answers, *peer.received()]))
    assert [one.chunk for one in package.requests] == list(range(101))


def test_remembered_sizes_are_bounded(server: MqttServer) -> None:
    """The oldest request is forgotten: it means the whole package again."""
    package = assign(server, b"x" * 50)
    peer = server.log_in()
    for request_id in range(17):
        ask(peer, f"v2/fw/request/{request_id}/chunk/0", b"10")
    ask(peer, "v2/fw/request/16/chunk/0")
    ask(peer, "v2/fw/request/0/chunk/0")
    assert [one.chunk_bytes for one in package.requests[-2:]] == [10, 65_536]
