"""The CoAP fast path in memory: encoded requests in, encoded answers out, a fake `DeviceApi` behind."""

from __future__ import annotations

import socket

import pytest
from aiocoap import Message
from aiocoap.numbers.codes import Code
from aiocoap.numbers.types import Type
from hypothesis import given
from hypothesis import strategies as st

from cloud_core.transports.coap import errors as coap_errors
from cloud_core.transports.coap.blockwise import Uploads
from cloud_core.transports.coap.exchanges import EXCHANGE_LIFETIME_S
from cloud_core.transports.coap.recent import Recent
from shared.credentials import AccessToken
from shared.errors import (
    AlreadyProvisioned,
    InvalidProvisionCredentials,
    PlatformError,
    ProvisionStatus,
    RateLimited,
    Unavailable,
    leaf_classes,
)
from shared.messages import ProvisionResponse
from shared.provision_protobuf import read_request
from tests.support.coap import (
    PEER,
    PROVISION,
    PROVISION_PROTOBUF,
    CoapServer,
    request,
)


@pytest.fixture
def it() -> CoapServer:
    return CoapServer()


def test_every_refusal_has_a_code() -> None:
    """A new refusal cannot be forgotten here."""
    assert set(coap_errors.CODES) == leaf_classes()


# -- what is asked, what is answered ----------------------------------------------------------------


@pytest.mark.parametrize("path", ["api/v1/provision", "api/v1/anything/provision", "api/v1/PROVISION"])
def test_provisioning_succeeds_with_created_and_json(it: CoapServer, path: str) -> None:
    """2.01 with the JSON, format 50, and the peer's plain address in the request."""
    answer = it.post(path, PROVISION)
    assert (answer.code, answer.mtype, answer.mid, answer.token) == (Code.CREATED, Type.ACK, 1, b"\x01\x02")
    assert b'"credentialsValue":"T0KEN"' in answer.payload and int(answer.opt.content_format) == 50
    asked, peer = it.api.provisioned[0]
    assert (asked.provision_key, peer.address) == ("k", "192.0.2.7")


@pytest.mark.parametrize("error", [InvalidProvisionCredentials, AlreadyProvisioned])
def test_a_refused_provisioning_is_bad_request_with_json(it: CoapServer, error: type[PlatformError]) -> None:
    """Class 4.00, the reason in the body."""
    it.api.outcome = error()
    answer = it.post("api/v1/provision", PROVISION)
    assert answer.code == Code.BAD_REQUEST and error.reason.encode() in answer.payload


def test_a_malformed_provisioning_is_told_so(it: CoapServer) -> None:
    """4.00 with FAILURE and a reference, through `refuse_provision`."""
    answer = it.post("api/v1/provision", b"{nonsense")
    assert answer.code == Code.BAD_REQUEST and b"MALFORMED_REQUEST" in answer.payload and b"R-1" in answer.payload
    assert len(it.api.refused) == 1 and not it.api.provisioned


def test_rate_limited_carries_max_age(it: CoapServer) -> None:
    """4.29 with the whole seconds to wait."""
    it.api.outcome = RateLimited(retry_after_s=4.2)
    answer = it.post("api/v1/provision", PROVISION)
    assert answer.code.dotted == "4.29" and answer.opt.max_age == 5 and b'"retryAfter":5' in answer.payload


def test_protobuf_is_answered_in_protobuf(it: CoapServer) -> None:
    """Protobuf in, protobuf out, format 42."""
    assert read_request(PROVISION_PROTOBUF) is not None
    answer = it.post("api/v1/provision", PROVISION_PROTOBUF)
    assert answer.code == Code.CREATED and int(answer.opt.content_format) == 42
    assert b"T0KEN" in answer.payload and not answer.payload.startswith(b"{")


def test_the_content_format_is_echoed(it: CoapServer) -> None:
    """The request's format comes back, whatever it is."""
    assert int(it.post("api/v1/provision", PROVISION, content_format=0).opt.content_format) == 0


@pytest.mark.parametrize("path", ["api/v1/tok/telemetry", "api/v1/tok/TELEMETRY"])
def test_telemetry_is_stored(it: CoapServer, path: str) -> None:
    """2.01, empty."""
    answer = it.post(path, b'{"t":21}')
    assert (answer.code, answer.payload) == (Code.CREATED, b"")
    assert it.api.telemetry == [(1, [(1_000, {"t": 21})])]


def test_a_path_in_one_option_is_accepted(it: CoapServer) -> None:
    """Some clients put the whole path into one Uri-Path option."""
    message = Message(code=Code.POST, payload=b'{"t":1}', _mtype=Type.CON, _mid=1, _token=b"")
    message.opt.uri_path = ("api/v1/tok/telemetry",)
    assert it.receive(message.encode()) and it.answer().code == Code.CREATED


def test_attributes_are_stored(it: CoapServer) -> None:
    """2.01, empty."""
    assert it.post("api/v1/tok/attributes", b'{"fw":"a"}').code == Code.CREATED
    assert it.api.posted_attributes == [(1, {"fw": "a"})]


def test_a_first_login_is_looked_up(it: CoapServer) -> None:
    """A token that has not been seen goes through `authenticate_token`."""
    assert it.post("api/v1/new/telemetry", b'{"t":1}').code == Code.CREATED
    assert it.api.telemetry[0][0] == 2


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("api/v1/nobody/telemetry", Code.UNAUTHORIZED),
        ("api/v1/telemetry", Code.UNAUTHORIZED),
        ("api/v1//telemetry", Code.UNAUTHORIZED),
        ("api/v1/tok/unknown", Code.BAD_REQUEST),
        ("api/v1", Code.BAD_REQUEST),
        ("", Code.BAD_REQUEST),
        ("api/v1/rpc/99999999999999", Code.BAD_REQUEST),
        ("fw/tok", Code.METHOD_NOT_ALLOWED),
    ],
)
def test_wrong_paths_are_refused(it: CoapServer, path: str, code: Code) -> None:
    """Unknown token 4.01; unknown or incomplete path 4.00."""
    assert it.post(path, b'{"t":1}').code == code


def test_malformed_telemetry_is_bad_request(it: CoapServer) -> None:
    """4.00 and nothing stored."""
    assert it.post("api/v1/tok/telemetry", b"[1,").code == Code.BAD_REQUEST
    assert it.api.telemetry == []


def test_a_full_queue_is_service_unavailable(it: CoapServer) -> None:
    """5.03 with Max-Age."""
    it.api.stored = Unavailable(retry_after_s=2)
    answer = it.post("api/v1/tok/telemetry", b'{"t":1}')
    assert answer.code == Code.SERVICE_UNAVAILABLE and answer.opt.max_age == 2


def test_a_bug_is_an_internal_error_and_not_silence(it: CoapServer) -> None:
    """5.00; the process and later requests live on."""
    it.api.post_telemetry = None  # type: ignore[assignment,method-assign]
    assert it.post("api/v1/tok/telemetry", b'{"t":1}').code == Code.INTERNAL_SERVER_ERROR
    assert it.path.in_work == 0


# -- message layer ----------------------------------------------------------------------------------


def test_non_requests_get_non_answers(it: CoapServer) -> None:
    """The response type equals the request type; the id is ours, the token theirs."""
    answer = it.post("api/v1/tok/telemetry", b'{"t":1}', mtype=Type.NON)
    assert (answer.mtype, answer.mid, answer.token) == (Type.NON, 1_000, b"\x01\x02")


def test_a_retransmission_gets_the_same_bytes_and_is_not_executed_again(it: CoapServer) -> None:
    """One lost answer locks no device out (wire-contract.md section 4.3)."""
    datagram = request("api/v1/provision", PROVISION)
    it.receive(datagram)
    it.receive(datagram)
    assert len(it.api.provisioned) == 1 and len(it.sent) == 2 and it.sent[0] == it.sent[1]


def test_another_endpoint_or_message_id_is_another_request(it: CoapServer) -> None:
    """Duplicates are recognised by endpoint and message id only."""
    it.receive(request("api/v1/provision", PROVISION, mid=1))
    it.receive(request("api/v1/provision", PROVISION, mid=2))
    it.receive(request("api/v1/provision", PROVISION, mid=1), (PEER[0], 40_001, 0, 0))
    assert len(it.api.provisioned) == 3


def test_a_message_id_may_come_again_after_the_exchange_lifetime(it: CoapServer) -> None:
    """RFC 7252 section 4.4: 247 s."""
    datagram = request("api/v1/tok/telemetry", b'{"t":1}')
    it.receive(datagram)
    it.loop.advance(EXCHANGE_LIFETIME_S - 1)
    it.receive(datagram)
    assert len(it.api.telemetry) == 1
    it.loop.advance(2)
    it.receive(datagram)
    assert len(it.api.telemetry) == 2


def test_a_duplicate_non_is_ignored(it: CoapServer) -> None:
    """RFC 7252 section 4.5."""
    datagram = request("api/v1/tok/telemetry", b'{"t":1}', mtype=Type.NON)
    it.receive(datagram)
    it.receive(datagram)
    assert len(it.sent) == len(it.api.telemetry) == 1


def test_an_answer_within_500_ms_is_piggy_backed(it: CoapServer) -> None:
    """A duplicate meanwhile gets nothing; the acknowledgement carries the response."""
    it.api.is_holding = True
    datagram = request("api/v1/tok/telemetry", b'{"t":1}')
    it.receive(datagram)
    it.loop.advance(0.4)
    it.receive(datagram)
    assert it.sent == []
    it.api.release()
    it.loop.advance(5)
    assert len(it.sent) == 1 and it.answer().mtype == Type.ACK and it.answer().code == Code.CREATED


def slow(it: CoapServer) -> bytes:
    it.api.is_holding = True
    datagram = request("api/v1/provision", PROVISION, mid=7)
    it.receive(datagram)
    it.loop.advance(0.51)
    return datagram


def test_a_slow_answer_is_acknowledged_first_and_sent_separately(it: CoapServer) -> None:
    """Empty ACK at 500 ms, then a confirmable response with an id of ours."""
    datagram = slow(it)
    assert (it.answer().mtype, it.answer().code, it.answer().mid) == (Type.ACK, Code.EMPTY, 7)
    it.receive(datagram)
    assert it.sent[1] == it.sent[0]
    it.api.release()
    answer = it.answer()
    assert (answer.mtype, answer.code, answer.mid, answer.token) == (
        Type.CON,
        Code.CREATED,
        1_000,
        b"\x01\x02",
    )
    assert len(it.api.provisioned) == 1


def test_a_separate_response_is_repeated_until_acknowledged(it: CoapServer) -> None:
    """And the acknowledgement is ours, not aiocoap's."""
    slow(it)
    it.api.release()
    it.loop.advance(4)
    assert it.sent[-1] == it.sent[-2]
    count = len(it.sent)
    assert it.receive(bytes((0x60, 0, 1_000 >> 8, 1_000 & 255)))
    it.loop.advance(100)
    assert len(it.sent) == count and it.loop.calls == []


def test_a_separate_response_ends_after_four_retransmissions(it: CoapServer) -> None:
    """RFC 7252 section 4.8, MAX_RETRANSMIT."""
    slow(it)
    it.api.release()
    it.loop.advance(200)
    assert len(it.sent) == 1 + 1 + 4 and it.loop.calls == []


def test_one_of_many_waiting_requests_does_not_delay_the_others(it: CoapServer) -> None:
    """The shared sweep acknowledges each at its own time."""
    it.api.is_holding = True
    it.receive(request("api/v1/tok/telemetry", mid=1, payload=b'{"t":1}'))
    it.loop.advance(0.3)
    it.receive(request("api/v1/tok/telemetry", mid=2, payload=b'{"t":1}'))
    it.loop.advance(0.25)
    assert [Message.decode(one).mid for one in it.sent] == [1]
    it.loop.advance(0.3)
    assert [Message.decode(one).mid for one in it.sent] == [1, 2]


def test_a_flood_of_telemetry_does_not_displace_provisionings() -> None:
    """The memory of provisionings is its own."""
    it = CoapServer(max_remembered=10)
    datagram = request("api/v1/provision", PROVISION, mid=60_000)
    it.receive(datagram)
    for mid in range(100):
        it.receive(request("api/v1/tok/telemetry", b'{"t":1}', mid=mid))
    it.receive(datagram)
    assert len(it.api.provisioned) == 1
    assert len(it.path._others) <= 10


def test_a_large_answer_comes_in_blocks(it: CoapServer) -> None:
    """1,024 bytes first, and Block2 says that more follow."""
    it.api.outcome = ProvisionResponse(status=ProvisionStatus.SUCCESS, credentials=AccessToken("x" * 1_500))
    answer = it.post("api/v1/provision", PROVISION)
    assert len(answer.payload) == 1_024
    assert (answer.opt.block2.block_number, answer.opt.block2.more, answer.opt.block2.size_exponent) == (
        0,
        True,
        6,
    )


@pytest.mark.parametrize(
    "datagram",
    [
        request("api/v1/tok/telemetry", code=Code.PUT, payload=b""),
        request("api/v1/tok/telemetry", block1=(0, True, 6)),
        request("api/v1/tok/telemetry", block2=(1, False, 6)),
        request("api/v1/tok/telemetry", observe=0),
        request("api/v1/tok/telemetry", proxy_scheme="coap"),
        request("api/v1/tok/telemetry", if_match=[b"x"]),
        request("api/v1/tok/telemetry", no_response=26),
        request("api/v1/tok/telemetry", accept=60),
        bytes((0x40, 0, 0, 1)),
    ],
    ids=["put", "block1", "block2", "observe", "proxy", "if-match", "no-response", "accept", "ping"],
)
def test_anything_odd_is_left_to_aiocoap(it: CoapServer, datagram: bytes) -> None:
    """Untouched: nothing is sent, nothing executed."""
    assert not it.receive(datagram) and it.sent == [] and it.api.telemetry == []


def test_a_truncated_datagram_is_too_large(it: CoapServer) -> None:
    """4.13, instead of half a body being stored."""
    assert it.receive(request("api/v1/tok/telemetry"), flags=socket.MSG_TRUNC)
    assert it.answer().code == Code.REQUEST_ENTITY_TOO_LARGE and it.api.telemetry == []


def test_remembered_options_do_not_swallow_an_end_marker_inside_a_value(it: CoapServer) -> None:
    """The same prefix before 0xFF means the same only if that 0xFF ended the options before."""
    it.post("api/v1/tok/telemetry", b'{"t":1}', mid=1)
    inside = Message(code=Code.POST, payload=b'{"t":2}', _mtype=Type.CON, _mid=2, _token=b"")
    inside.opt.uri_path = ("api", "v1", "tok", "telemetry")
    inside.opt.etags = [b"\xff\xff"]
    assert it.receive(inside.encode())
    assert it.api.telemetry[-1] == (1, [(1_000, {"t": 2})])


@given(st.binary(max_size=80))
def test_no_datagram_raises(datagram: bytes) -> None:
    """Any bytes: handled or left alone."""
    CoapServer().receive(datagram)


@given(st.binary(max_size=60), st.integers(0, 1), st.integers(0, 8))
def test_no_options_raise(rest: bytes, kind: int, token_length: int) -> None:
    """Any bytes behind the header of a plain POST."""
    it = CoapServer()
    datagram = bytes((0x40 | kind << 4 | token_length, 2, 0, 1)) + rest
    for _again in range(2):
        it.receive(datagram)
    assert it.path.in_work == 0


# -- bounded memories -------------------------------------------------------------------------------


def test_recent_keeps_half_and_forgets_the_rest() -> None:
    """Never above the limit, never less than the newest half."""
    recent: Recent[int, str] = Recent(max_entries=10)
    for number in range(100):
        recent.put(number, "x")
        assert len(recent) <= 10
    assert all(number in recent for number in range(95, 100)) and 80 not in recent


def test_uploads_are_bounded_and_in_order() -> None:
    """A gap is 4.08, more than 65,536 bytes is 4.13."""
    uploads = Uploads()
    assert uploads.add("a", 1, 6, bytes(1_024)) == coap_errors.INCOMPLETE
    for number in range(64):
        assert uploads.add("a", number, 6, bytes(1_024)) is None
    assert uploads.add("a", 64, 6, b"x") == coap_errors.TOO_LARGE
    assert uploads.take("a") == b""
