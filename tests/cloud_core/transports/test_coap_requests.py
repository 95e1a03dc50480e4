"""What devices ask over CoAP beside telemetry and provisioning, and the codes they get."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from aiocoap.numbers.codes import Code
from aiocoap.numbers.types import Type
from twisted.logger import globalLogPublisher

from cloud_core.model import Identity, Role
from cloud_core.profile_options import ProfileOptions
from shared.codecs import JsonCodec
from shared.errors import (
    AlreadyProvisioned,
    ClaimRefused,
    InvalidArgument,
    InvalidProvisionCredentials,
    NotAuthorized,
    ProvisioningDisabled,
    RateLimited,
    Unavailable,
)
from shared.messages import AttributesRequest, ClaimRequest, PackageKind, RpcRequest
from tests.support.coap import PROVISION, CoapServer, request

KINDS = pytest.mark.parametrize(("mtype", "answered"), [(Type.CON, Type.ACK), (Type.NON, Type.NON)])


@pytest.fixture
def it() -> CoapServer:
    return CoapServer()


# -- attributes -------------------------------------------------------------------------------------


@KINDS
def test_attributes_are_read_by_key(it: CoapServer, mtype: Type, answered: Type) -> None:
    """2.05 with both scopes as JSON, in the type of the request (O2, O5)."""
    it.api.client, it.api.shared = {"a": 1, "b": True}, {"c": "x"}
    answer = it.get("api/v1/tok/attributes?clientKeys=a,b&sharedKeys=c", mtype=mtype)
    assert (answer.code, answer.mtype, int(answer.opt.content_format)) == (Code.CONTENT, answered, 50)
    assert json.loads(answer.payload) == {"client": {"a": 1, "b": True}, "shared": {"c": "x"}}
    assert it.api.asked == [AttributesRequest(client_keys=("a", "b"), shared_keys=("c",))]


@pytest.mark.parametrize("query", ["", "?clientKeys=", "?other=1"])
def test_attributes_without_keys_are_all(it: CoapServer, query: str) -> None:
    """Neither scope named: everything of both."""
    it.api.client = {"a": 1}
    assert it.get(f"api/v1/tok/attributes{query}").code == Code.CONTENT
    assert it.api.asked == [AttributesRequest()]


def test_no_attributes_are_not_found(it: CoapServer) -> None:
    """4.04, not an empty object (O2)."""
    answer = it.get("api/v1/tok/attributes?clientKeys=a")
    assert (answer.code, answer.payload) == (Code.NOT_FOUND, b"")


def test_many_attributes_come_in_blocks(it: CoapServer) -> None:
    """Block 0 with Block2 and Size2; the next one by a request with another token, nothing read again."""
    it.api.client = {"a": "x" * 1_500}
    first = it.get("api/v1/tok/attributes?clientKeys=a")
    assert (first.opt.block2.block_number, first.opt.block2.more, len(first.payload)) == (0, True, 1_024)
    second = it.get("api/v1/tok/attributes?clientKeys=a", mid=2, token=b"z", block2=(1, False, 6))
    assert (second.opt.block2.block_number, second.opt.block2.more) == (1, False)
    assert json.loads(first.payload + second.payload) == {"client": it.api.client}
    assert first.opt.size2 == len(first.payload + second.payload) and len(it.api.asked) == 1


def test_small_blocks_are_sent_to_those_who_ask_for_them(it: CoapServer) -> None:
    """The size exponent of the request counts."""
    it.api.client = {"a": "x" * 100}
    answer = it.get("api/v1/tok/attributes", block2=(0, False, 1))
    assert len(answer.payload) == 32 and answer.opt.block2.size_exponent == 1
    answer = it.get("api/v1/tok/attributes", mid=2, block2=(9, False, 1))
    assert answer.code == Code.REQUEST_ENTITY_INCOMPLETE


def test_a_later_block_of_nothing_is_incomplete(it: CoapServer) -> None:
    """4.08: the peer starts again."""
    assert it.get("api/v1/tok/attributes", block2=(3, False, 6)).code == Code.REQUEST_ENTITY_INCOMPLETE


def test_a_repeated_read_gets_the_same_answer(it: CoapServer) -> None:
    """From memory while it is short; a long one is read again, which changes nothing."""
    it.api.client = {"a": 1}
    datagram = request("api/v1/tok/attributes", b"", code=Code.GET)
    assert it.receive(datagram) and it.receive(datagram)
    assert it.sent[0] == it.sent[1] and len(it.api.asked) == 1
    it.api.client = {"a": "x" * 900}
    datagram = request("api/v1/tok/attributes", b"", code=Code.GET, mid=2)
    assert it.receive(datagram) and it.receive(datagram)
    assert it.sent[2] == it.sent[3] and len(it.path._reads) == 1


# -- commands, calls, claims ------------------------------------------------------------------------


@KINDS
def test_a_reply_reaches_its_command(it: CoapServer, mtype: Type, answered: Type) -> None:
    """POST rpc/{id} is 2.01, and the decoded reply goes to the core (O4, O5, R3)."""
    answer = it.post("api/v1/tok/rpc/17", b'{"ok":true}', mtype=mtype)
    assert (answer.code, answer.mtype, answer.payload) == (Code.CREATED, answered, b"")
    assert it.api.replies == [(1, 17, {"ok": True})]


@KINDS
def test_a_call_is_answered_with_its_result(it: CoapServer, mtype: Type, answered: Type) -> None:
    """POST rpc is 2.05 with the server's answer (O5)."""
    it.api.call_answer = {"time": 5}
    answer = it.post("api/v1/tok/rpc", b'{"method":"getTime","params":{}}', mtype=mtype)
    assert (answer.code, answer.mtype, answer.payload) == (Code.CONTENT, answered, b'{"time":5}')
    assert int(answer.opt.content_format) == 50
    assert it.api.calls == [RpcRequest(method="getTime", params={})]


def test_a_repeated_call_is_not_made_twice(it: CoapServer) -> None:
    """A call may have effects: its duplicate gets the remembered answer."""
    datagram = request("api/v1/tok/rpc", b'{"method":"m"}')
    assert it.receive(datagram) and it.receive(datagram)
    assert len(it.api.calls) == 1 and it.sent[0] == it.sent[1]


@pytest.mark.parametrize("kind", ["call", "read"])
def test_no_answer_in_ten_seconds_is_a_gateway_timeout(it: CoapServer, kind: str) -> None:
    """5.04 instead of silence; the late answer is dropped."""
    it.api.is_holding = True
    post, body = (Code.POST, b'{"method":"m"}') if kind == "call" else (Code.GET, b"")
    it.receive(request("api/v1/tok/rpc" if kind == "call" else "api/v1/tok/attributes", body, code=post))
    it.loop.advance(9.9)
    assert [one.code for one in it.taken()] == [Code.EMPTY]
    it.loop.advance(0.2)
    assert [one.code for one in it.taken()] == [Code.GATEWAY_TIMEOUT]
    it.api.release()
    assert it.taken() == [] and it.path.in_work == 0


def test_what_writes_is_never_given_up(it: CoapServer) -> None:
    """A device must not be told that data failed which may yet be stored."""
    it.api.is_holding = True
    it.receive(request("api/v1/tok/telemetry", b'{"t":1}', mtype=Type.NON))
    it.loop.advance(60)
    assert it.taken() == []
    it.api.release()
    assert it.answer().code == Code.CREATED


@pytest.mark.parametrize(
    ("body", "claim"),
    [
        (b"", ClaimRequest()),
        (b'{"secretKey":"s","durationMs":60000}', ClaimRequest(secret="s", duration_ms=60_000)),
    ],
)
@KINDS
def test_a_claim_is_offered(it: CoapServer, body: bytes, claim: ClaimRequest, mtype: Type, answered: Type) -> None:
    """2.01, with and without a body (O1, O5, M9)."""
    answer = it.post("api/v1/tok/claim", body, mtype=mtype)
    assert (answer.code, answer.mtype, it.api.offers) == (Code.CREATED, answered, [claim])


def test_a_refused_claim_is_an_error(it: CoapServer) -> None:
    """Class 4, with a text that says why (M9)."""
    it.api.stored = ClaimRefused("the device has an owner")
    answer = it.post("api/v1/tok/claim", b"")
    assert answer.code == Code.BAD_REQUEST and b"owner" in answer.payload


# -- data -------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    ("body", "sample"),
    [(b'{"t":21}', (1_000, {"t": 21})), (b'{"ts":77,"values":{"t":21}}', (77, {"t": 21}))],
)
def test_telemetry_with_and_without_time(it: CoapServer, body: bytes, sample: Any, mtype: Type, answered: Type) -> None:
    """2.01; the given time is kept (O1, O5)."""
    answer = it.post("api/v1/tok/telemetry", body, mtype=mtype)
    assert (answer.code, answer.mtype) == (Code.CREATED, answered)
    assert it.api.telemetry == [(1, [sample])]


@KINDS
def test_attributes_with_their_types(it: CoapServer, mtype: Type, answered: Type) -> None:
    """2.01, client scope (O1, O5)."""
    answer = it.post("api/v1/tok/attributes", b'{"a":"x","b":true,"c":1.5}', mtype=mtype)
    assert (answer.code, answer.mtype) == (Code.CREATED, answered)
    assert it.api.posted_attributes == [(1, {"a": "x", "b": True, "c": 1.5})]


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (InvalidProvisionCredentials, b"NOT_FOUND"),
        (ProvisioningDisabled, b"NOT_FOUND"),
        (AlreadyProvisioned, b"FAILURE"),
    ],
)
@KINDS
def test_provisioning_at_any_token_is_answered_in_json_whatever_the_class(
    it: CoapServer, outcome: Any, status: bytes, mtype: Type, answered: Type
) -> None:
    """4.00 and the JSON, at `api/v1/<any>/provision` (P20, P21, P22)."""
    it.api.outcome = outcome()
    answer = it.post("api/v1/any/provision", PROVISION, mtype=mtype)
    assert (answer.code, answer.mtype) == (Code.BAD_REQUEST, answered)
    assert json.loads(answer.payload)["status"].encode() == status


def test_every_request_shows_that_the_device_lives(it: CoapServer) -> None:
    """Presence hears of reads and writes, not of strangers."""
    it.post("api/v1/tok/telemetry", b'{"t":1}')
    it.get("api/v1/new/attributes", mid=2)
    it.get("api/v1/nobody/attributes", mid=3)
    assert it.api.present == [("seen", 1), ("seen", 2)]


class _Spent:
    """Rates that refuse."""

    is_on = True

    def message(self, identity: Identity) -> RateLimited:
        return RateLimited(retry_after_s=3)

    def telemetry(self, identity: Identity, messages: int, data_points: int) -> RateLimited:
        assert (messages, data_points) == (1, 3)
        return RateLimited(retry_after_s=7)


@pytest.mark.parametrize(
    ("path", "code", "body", "age_s"),
    [
        ("api/v1/tok/telemetry", Code.POST, b'[{"a":1,"b":2},{"a":3}]', 7),
        ("api/v1/tok/attributes", Code.POST, b'{"a":1}', 3),
        ("api/v1/tok/attributes", Code.GET, b"", 3),
        ("api/v1/tok/rpc/1", Code.POST, b"{}", 3),
        ("api/v1/tok/rpc", Code.POST, b'{"method":"m"}', 3),
        ("api/v1/tok/claim", Code.POST, b"", 3),
        ("fw/tok", Code.GET, b"", 3),
    ],
)
def test_a_spent_rate_is_too_many_requests(it: CoapServer, path: str, code: Code, body: bytes, age_s: int) -> None:
    """4.29 with Max-Age, and nothing done."""
    it.api.rates = _Spent()  # type: ignore[assignment]  # a fake
    answer = it.post(path, body, code=code)
    assert (answer.code.dotted, answer.opt.max_age) == ("4.29", age_s)
    assert not (it.api.telemetry or it.api.posted_attributes or it.api.asked or it.api.replies or it.api.calls)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        (Code.GET, "api/v1/tok/telemetry", Code.BAD_REQUEST),
        (Code.GET, "api/v1/tok/rpc", Code.BAD_REQUEST),
        (Code.GET, "api/v1/tok/claim", Code.BAD_REQUEST),
        (Code.GET, "api/v1/provision", Code.BAD_REQUEST),
        (Code.GET, "api/v1/tok/attributes/updates", Code.BAD_REQUEST),
        (Code.GET, "api/v1/tok/nothing", Code.BAD_REQUEST),
        (Code.GET, "api/v1", Code.BAD_REQUEST),
        (Code.GET, "api/v1/attributes", Code.UNAUTHORIZED),
        (Code.POST, "api/v1/rpc/17", Code.UNAUTHORIZED),
        (Code.GET, "api/v1/nobody/attributes", Code.UNAUTHORIZED),
        (Code.GET, "fw/nobody", Code.UNAUTHORIZED),
        (Code.POST, "fw/tok", Code.METHOD_NOT_ALLOWED),
        (Code.POST, "sw/tok", Code.METHOD_NOT_ALLOWED),
        (Code.POST, "api/v1/tok/rpc/x", Code.BAD_REQUEST),
        (Code.POST, "api/v1/tok/rpc", Code.BAD_REQUEST),
    ],
)
def test_paths_lead_where_the_table_says(it: CoapServer, method: Code, path: str, code: Code) -> None:
    """The path-to-feature table and the codes beside it (O6)."""
    assert it.post(path, b"", code=method).code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable(), Code.SERVICE_UNAVAILABLE),
        (NotAuthorized(), Code.FORBIDDEN),
        (InvalidArgument("no"), Code.BAD_REQUEST),
    ],
)
def test_a_refusal_of_the_core_becomes_its_code(it: CoapServer, error: Exception, code: Code) -> None:
    """For reads, calls and replies alike."""
    it.api.stored = error
    assert it.get("api/v1/tok/attributes").code == code
    assert it.post("api/v1/tok/rpc", b'{"method":"m"}', mid=2).code == code
    assert it.post("api/v1/tok/rpc/1", b"1", mid=3).code == code


def test_an_unwanted_format_is_not_acceptable(it: CoapServer) -> None:
    """4.06; JSON and octets are."""
    it.api.client = {"a": 1}
    assert it.get("api/v1/tok/attributes", accept=60).code == Code.NOT_ACCEPTABLE
    assert it.get("api/v1/tok/attributes", accept=50, mid=2).code == Code.CONTENT


# -- formats ----------------------------------------------------------------------------------------


class _Shouting(JsonCodec):
    """Another encoding than JSON."""

    attributes = staticmethod(lambda body, **_: {body.decode(): True})

    def render_call_answer(self, answer: Any, request_id: int) -> bytes:
        return b"ANSWER"


def test_the_profiles_codec_reads_and_writes(it: CoapServer) -> None:
    """Format 42 where the request names none; a request that says JSON is JSON."""
    options = ProfileOptions(codec=_Shouting())
    it.api.known["tok"] = Identity(Role.DEVICE, device_id=1, device_name="d", options=options)
    it.post("api/v1/tok/attributes", b"a-b")
    it.post("api/v1/tok/attributes", b'{"c":1}', content_format=50, mid=2)
    assert it.api.posted_attributes == [(1, {"a-b": True}), (1, {"c": 1})]
    answer = it.post("api/v1/tok/rpc", b'{"method":"m"}', mid=3)
    assert (answer.payload, int(answer.opt.content_format)) == (b"ANSWER", 42)
    answer = it.post("api/v1/tok/rpc", b'{"method":"m"}', content_format=0, mid=4)
    assert int(answer.opt.content_format) == 0


# -- packages ---------------------------------------------------------------------------------------

PACKAGE = bytes(range(256)) * 10  # 2,560 bytes
MESSAGE_IDS = itertools.count(100)


def assembled(it: CoapServer, path: str, exponent: int = 6) -> bytes:
    """As a client does it: block after block, each a request of its own."""
    data, number = b"", 0
    while True:
        block = {} if number == 0 and exponent == 6 else {"block2": (number, False, exponent)}
        answer = it.get(path, mid=next(MESSAGE_IDS), **block)
        assert answer.code == Code.CONTENT and int(answer.opt.content_format) == 42
        data += answer.payload
        if answer.opt.block2 is None or not answer.opt.block2.more:
            return data
        number += 1


@pytest.mark.parametrize("path", ["fw/tok", "api/v1/tok/firmware", "api/v1/tok/FIRMWARE"])
@pytest.mark.parametrize("exponent", [2, 6])
def test_firmware_comes_in_blocks(it: CoapServer, path: str, exponent: int) -> None:
    """The whole package by Block2, at both paths; only the block asked for is read."""
    it.api.package = PACKAGE
    assert assembled(it, path, exponent) == PACKAGE
    size = 1 << exponent + 4
    assert {(one.kind, one.chunk_bytes) for one in it.api.fetched} == {(PackageKind.FIRMWARE, size)}
    assert len(it.api.fetched) == -(-len(PACKAGE) // size)
    assert len(it.path._outbox.downloads._answers) == 0


def test_software_has_its_own_path(it: CoapServer) -> None:
    """`sw/{token}`, with title and version handed on."""
    it.api.package = b"abc"
    answer = it.get("sw/tok?title=T&version=1.0")
    assert (answer.code, answer.payload, answer.opt.block2) == (Code.CONTENT, b"abc", None)
    asked = it.api.fetched[0]
    assert (asked.kind, asked.title, asked.version) == (PackageKind.SOFTWARE, "T", "1.0")


@pytest.mark.parametrize("size", [100, 700, 1_024, 2_000])
def test_chunks_of_any_size_are_the_package(it: CoapServer, size: int) -> None:
    """`size` and `chunk`, whether or not the size is a multiple of a block."""
    it.api.package = PACKAGE
    chunks = [assembled(it, f"fw/tok?size={size}&chunk={number}") for number in range(-(-len(PACKAGE) // size))]
    assert b"".join(chunks) == PACKAGE and {len(one) for one in chunks[:-1]} <= {size}


def test_past_the_end_is_empty(it: CoapServer) -> None:
    """A chunk past the end is 2.05 without payload; a block past the end is an error."""
    it.api.package = PACKAGE
    answer = it.get("fw/tok?size=1024&chunk=3")
    assert (answer.code, answer.payload) == (Code.CONTENT, b"")
    assert it.get("fw/tok", block2=(9, False, 6), mid=2).code == Code.BAD_REQUEST
    assert it.get("fw/tok?size=100", block2=(1, False, 6), mid=3).code == Code.BAD_REQUEST


def test_no_or_another_package(it: CoapServer) -> None:
    """4.04 without an assignment, 4.00 for another title, 4.00 for a query that is no number."""
    assert it.get("fw/tok").code == Code.NOT_FOUND
    it.api.package, it.api.stored = PACKAGE, InvalidArgument("the assigned package is another")
    assert it.get("fw/tok?title=x", mid=2).code == Code.BAD_REQUEST
    it.api.stored = None
    for number, query in enumerate(("size=-1", "chunk=x", "size=99999999999", "size=²")):
        assert it.get(f"fw/tok?{query}", mid=10 + number).code == Code.BAD_REQUEST


def test_a_download_counts_as_one_message(it: CoapServer) -> None:
    """Later blocks are not rationed: a limit would end every update half-way."""
    it.api.package = PACKAGE
    it.api.rates = _Spent()  # type: ignore[assignment]  # a fake
    assert it.get("fw/tok", block2=(1, False, 6)).code == Code.CONTENT


def test_requests_that_are_refused_do_not_fill_the_log(it: CoapServer) -> None:
    """Anybody can send them: the log says it up to a number."""
    lines: list[Any] = []
    globalLogPublisher.addObserver(lines.append)  # type: ignore[arg-type]  # zope interface
    try:
        for mid in range(300):
            assert it.get("api/v1/guess/attributes", mid=mid).code == Code.UNAUTHORIZED
    finally:
        globalLogPublisher.removeObserver(lines.append)  # type: ignore[arg-type]  # zope interface
    assert 0 < len(lines) <= 101
