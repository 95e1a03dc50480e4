"""Firmware and software over HTTP (wire-contract.md section 3.1)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_core.storage.interface.packages import BLOCK_BYTES
from cloud_core.transports.http.downloads import disposition, header_name, media_type
from shared.credentials import AccessToken
from shared.errors import InvalidArgument, PackageNotFound
from shared.messages import PackageKind, PackageRequest
from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer
from tests.support.recording import PackagesFake
from tests.support.stores import StoreUnderTest

FIRMWARE = "/api/v1/tok/firmware?title=fw&version=1.2"
LARGE = bytes(range(256)) * 3_000  # 2.93 blocks


@pytest.fixture(params=[True, False], ids=["front", "klein"])
def http(request: pytest.FixtureRequest, sqlite_store: StoreUnderTest) -> Iterator[HttpPeer]:
    sqlite_store.add_device("dev", sqlite_store.add_profile(), AccessToken("tok"))
    peer = HttpPeer(ApiUnderTest(sqlite_store), is_fast=request.param)
    yield peer
    peer.close()


def assigned(http: HttpPeer, data: bytes = LARGE, **members: Any) -> PackagesFake:
    packages: Any = PackagesFake(data, **members)
    http.api.api.packages = packages
    fake: PackagesFake = packages
    return fake


def test_a_whole_package_comes_in_one_answer(http: HttpPeer) -> None:
    """With its length, type and file name; the core is asked for one block at a time."""
    packages = assigned(http)
    status, headers, body = http.get(FIRMWARE)
    assert (status, body == LARGE, int(headers["content-length"])) == (200, True, len(LARGE))
    assert headers["content-disposition"] == "attachment;filename=fw.bin"
    assert (headers["x-filename"], headers["content-type"]) == ("fw.bin", "text/plain")
    assert [(one.chunk, one.chunk_bytes) for one in packages.requests] == [(n, BLOCK_BYTES) for n in range(3)]
    assert all((one.kind, one.title, one.version) == (PackageKind.FIRMWARE, "fw", "1.2") for one in packages.requests)


@pytest.mark.parametrize(
    ("size", "chunk"),
    [
        (1_000, 0), (1_000, 767), (1_000, 768), (1, 3), (BLOCK_BYTES, 2), (BLOCK_BYTES + 1, 0), (BLOCK_BYTES + 1, 1),
        (BLOCK_BYTES * 2 - 7, 1), (10**9, 0), (10**9, 1), (BLOCK_BYTES + 1, 5), (99_999_999_999, 99_999_999_999),
        (0, 0),
    ],
)  # fmt: skip
def test_any_piece_of_a_package_is_exact(http: HttpPeer, size: int, chunk: int) -> None:
    """Also pieces larger than a block and at its borders; past the end there is nothing."""
    assigned(http)
    status, headers, body = http.get(f"{FIRMWARE}&size={size}&chunk={chunk}")
    expected = LARGE[size * chunk : size * (chunk + 1)] if size else LARGE
    assert (status, body == expected, int(headers["content-length"])) == (200, True, len(expected))


def test_a_small_piece_is_asked_for_as_it_is(http: HttpPeer) -> None:
    """Software likewise."""
    packages = assigned(http, b"0123456789")
    assert http.get("/api/v1/tok/software?title=s&version=v&size=4&chunk=1")[2] == b"4567"
    assert packages.requests == [
        PackageRequest(kind=PackageKind.SOFTWARE, title="s", version="v", chunk_bytes=4, chunk=1)
    ]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "title"), ("?title=fw", "version"), ("?version=1", "title"), ("?title=&version=1", "title"),
        ("?title=fw&version=1&size=-1", "size"), ("?title=fw&version=1&chunk=x", "chunk"),
    ],
)  # fmt: skip
def test_a_missing_or_wrong_parameter_is_400_and_named(http: HttpPeer, query: str, named: str) -> None:
    """The core is not asked."""
    packages = assigned(http)
    status, _, body = http.get(f"/api/v1/tok/firmware{query}")
    assert (status, packages.requests) == (400, [])
    assert f"'{named}'" in json.loads(body)["message"]


@pytest.mark.parametrize(
    ("error", "status"), [(PackageNotFound(), 404), (InvalidArgument("another version is assigned"), 400)]
)
def test_what_is_not_assigned_is_refused_in_json(http: HttpPeer, error: Exception, status: int) -> None:
    """404 without a package, 400 where title or version are another's."""
    assigned(http).outcome = error
    answer = http.get(FIRMWARE)
    assert (answer[0], json.loads(answer[2])["message"]) == (status, str(error))


def test_a_client_that_reads_slowly_is_sent_no_more_than_it_takes(http: HttpPeer) -> None:
    """While its connection is full, no block is fetched."""
    packages = assigned(http)
    packages.waiting = []
    http.ask(FIRMWARE)
    packages.waiting.pop()()
    channel = http.transport.protocol
    for fetched in (2, 3):
        channel.pauseProducing()  # what Twisted calls when its buffer is full
        packages.waiting.pop()()
        assert (len(packages.requests), packages.waiting) == (fetched, [])
        channel.resumeProducing()
    ((status, _, body),) = http.received()
    assert (status, body == LARGE) == (200, True)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_a_client_that_goes_away_ends_the_download(http: HttpPeer, blocks: int) -> None:
    """What was fetched for it is dropped, and nothing more is asked for."""
    packages = assigned(http)
    packages.waiting = []
    http.ask(FIRMWARE)
    for _ in range(blocks):
        packages.waiting.pop()()
    asked = len(packages.requests)
    http.lose()
    packages.waiting.pop()()
    assert (len(packages.requests), packages.waiting) == (asked, [])


def test_a_package_that_vanishes_on_the_way_breaks_the_answer_off(http: HttpPeer) -> None:
    """The head has promised more: the connection ends, and the client knows that it has not got it all."""
    packages = assigned(http)
    packages.waiting = []
    http.ask(FIRMWARE)
    packages.waiting.pop()()
    packages.vanish()
    packages.requests.clear()
    packages.waiting.pop()()  # fetched before it vanished
    packages.waiting.pop()()
    value = http.transport.value()
    assert b"Content-Length: %d" % len(LARGE) in value
    assert len(value) < len(LARGE)
    assert http.transport.disconnecting


def test_a_package_that_is_replaced_by_a_shorter_one_breaks_it_off_too(http: HttpPeer) -> None:
    """No device ever gets a mixture with the right length."""
    packages = assigned(http)
    packages.waiting = []
    http.ask(FIRMWARE)
    packages.waiting.pop()()
    packages.data = LARGE[: BLOCK_BYTES + 5]
    while packages.waiting:
        packages.waiting.pop()()
    assert http.transport.disconnecting


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("fw-1.2_a.bin", "attachment;filename=fw-1.2_a.bin"),
        ("a b.bin", "attachment;filename=\"a b.bin\";filename*=UTF-8''a%20b.bin"),
        ('";x\\\r\nA: b', "attachment;filename=\"_;x___A: b\";filename*=UTF-8''%22%3Bx%5C%0D%0AA%3A%20b"),
        ("é.bin", "attachment;filename=\"_.bin\";filename*=UTF-8''%C3%A9.bin"),
    ],
)  # fmt: skip
def test_no_file_name_can_forge_a_header(file_name: str, expected: str) -> None:
    """Odd ones are quoted and given once more in RFC 6266's form."""
    assert disposition(file_name) == expected


def test_other_headers_of_a_package_are_clean_too() -> None:
    """What the operator typed goes out only where a header can hold it."""
    assert header_name("a b.bin") == "a b.bin"
    assert header_name("é\r\n\ud800") == "%C3%A9%0D%0A%3F"
    assert media_type("application/x-tar") == "application/x-tar"
    assert media_type("text/html\r\nX: y") == media_type("") == "application/octet-stream"
