"""CoAP by aiocoap's client, confirmable and not: codes, types, Observe numbers, paths (O1 to O6, P20 to P22)."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiocoap
import pytest

from tests.contract.drivers import CoapLoop, encoded
from tests.contract.operators import Later, attributes_of, claim, command, make_customer, telemetry_path
from tests.support.server import CoreProcess

WAIT_S = 15.0
TYPES = {"CON": {"ACK", "CON"}, "NON": {"NON"}}  # a confirmable request may be answered in its acknowledgement
_numbers = itertools.count()


class Coap:
    """Requests of one message type; every answer is checked to be of that type too (O5)."""

    def __init__(self, loop: CoapLoop, port: int, kind: str) -> None:
        self._loop = loop
        self._tuning = aiocoap.Reliable if kind == "CON" else aiocoap.Unreliable
        self.kind = kind
        self.base = f"coap://127.0.0.1:{port}/"

    def message(self, code: Any, path: str, body: Any = b"", **options: Any) -> aiocoap.Message:
        return aiocoap.Message(
            code=code, uri=self.base + path, payload=encoded(body), transport_tuning=self._tuning, **options
        )

    def send(self, message: aiocoap.Message) -> aiocoap.Message:
        async def ask() -> aiocoap.Message:
            return await self._loop.context.request(message).response

        answer: aiocoap.Message = self._loop.run(ask())
        assert answer.mtype is not None and answer.mtype.name in TYPES[self.kind]
        return answer

    def post(self, path: str, body: Any = b"") -> aiocoap.Message:
        return self.send(self.message(aiocoap.POST, path, body))

    def get(self, path: str) -> aiocoap.Message:
        return self.send(self.message(aiocoap.GET, path))

    @contextmanager
    def observing(self, path: str) -> Iterator[Observation]:
        async def observe() -> Observation:
            request = self._loop.context.request(self.message(aiocoap.GET, path, observe=0))
            return Observation(self._loop, request, await request.response, self.kind)

        observation: Observation = self._loop.run(observe())
        assert observation.first.mtype.name in TYPES[self.kind]
        try:
            yield observation
        finally:
            observation.cancel()


class Observation:
    """`first` is the answer to the request. Made in the client's loop."""

    def __init__(self, loop: CoapLoop, request: Any, first: aiocoap.Message, kind: str) -> None:
        self.first = first
        self._loop = loop
        self._request = request
        self._kind = kind
        self._news = aiter(request.observation)

    def next(self) -> aiocoap.Message:
        async def wait() -> aiocoap.Message:
            return await asyncio.wait_for(anext(self._news), WAIT_S)

        news: aiocoap.Message = self._loop.run(wait())
        assert news.mtype is not None and news.mtype.name == self._kind
        return news

    def cancel(self) -> None:
        async def cancel() -> None:
            if not self._request.observation.cancelled:
                self._request.observation.cancel()

        self._loop.run(cancel())


@pytest.fixture(params=["CON", "NON"])
def coap(request: pytest.FixtureRequest, cores: dict[bool, CoreProcess], coap_loop: CoapLoop) -> Coap:
    return Coap(coap_loop, cores[True].coap_port, request.param)


@pytest.fixture
def core(cores: dict[bool, CoreProcess]) -> CoreProcess:
    return cores[True]


@pytest.fixture
def name() -> str:
    return f"coap-row-{next(_numbers)}"


def told(answer: aiocoap.Message) -> Any:
    return json.loads(answer.payload)


# -- requests ---------------------------------------------------------------------------------------


def test_what_is_posted_is_created_and_seen(coap: Coap, core: CoreProcess, token: str, name: str) -> None:
    """2.01 without payload for telemetry with and without a time, for attributes, for a claim (O1, O5)."""
    values = {"text": "value", "flag": True, "double": 3.0, "long": 4, "json": {"a": [1]}}
    for path, body in (
        ("telemetry", values),
        ("telemetry", {"ts": 1_527_863_043_000, "values": {"old": 1}}),
        (
            "telemetry",
            [{"ts": 1_527_863_044_000, "values": {"old": 2}}, {"ts": 1_527_863_045_000, "values": {"old": 3}}],
        ),
        ("attributes", values),
        ("claim", {"secretKey": "s", "durationMs": 60_000}),
        ("claim", b""),
    ):
        answer = coap.post(f"api/v1/{token}/{path}", body)
        assert (answer.code, answer.payload) == (aiocoap.CREATED, b"")
    assert core.latest(name) == {**values, "old": 3}
    shown = core.rest.get(f"{telemetry_path(core, name)}/values/timeseries")
    assert {key: points[0]["value"] for key, points in shown.items()} == {
        "text": "value", "flag": "true", "double": "3.0", "long": "4", "json": '{"a":[1]}', "old": "3",
    }  # fmt: skip
    assert shown["old"][0]["ts"] == 1_527_863_045_000
    assert attributes_of(core, name, "CLIENT_SCOPE") == values
    assert claim(core, make_customer(core, name), name, "s")[0] == 200


def test_attributes_are_read_by_key(coap: Coap, core: CoreProcess, token: str, name: str) -> None:
    """2.05 and JSON by scope; 4.04 where none of them exists (O2, O5)."""
    core.rest.post(f"{telemetry_path(core, name)}/SHARED_SCOPE", {"limit": 7, "other": {"x": [1]}})
    coap.post(f"api/v1/{token}/attributes", {"fw": "v1", "on": True})
    for query, expected in (
        ("?clientKeys=fw,absent&sharedKeys=limit", {"client": {"fw": "v1"}, "shared": {"limit": 7}}),
        ("?sharedKeys=other", {"shared": {"other": {"x": [1]}}}),
        ("", {"client": {"fw": "v1", "on": True}, "shared": {"limit": 7, "other": {"x": [1]}}}),
    ):
        answer = coap.get(f"api/v1/{token}/attributes{query}")
        assert (answer.code, answer.opt.content_format, told(answer)) == (aiocoap.CONTENT, 50, expected)
    nothing = coap.get(f"api/v1/{token}/attributes?clientKeys=absent")
    assert (nothing.code, nothing.payload) == (aiocoap.NOT_FOUND, b"")


def test_a_call_of_the_server_is_answered(coap: Coap, token: str) -> None:
    """2.05 with the JSON of the answer (O5)."""
    answer = coap.post(f"api/v1/{token}/rpc", {"method": "getSessionLimits", "params": {}})
    assert (answer.code, answer.opt.content_format) == (aiocoap.CONTENT, 50)
    assert told(answer)["maxPayloadSize"] == 65_536


# -- observations -----------------------------------------------------------------------------------


def test_the_first_answer_tells_the_state_and_each_change_counts_one(
    coap: Coap, core: CoreProcess, token: str, name: str
) -> None:
    """2.05 with `{}` or what there is and Observe 0; updates and deletions each one more (O3, O5)."""
    path = f"{telemetry_path(core, name)}/SHARED_SCOPE"
    with coap.observing(f"api/v1/{token}/attributes") as observation:
        first = observation.first
        assert (first.code, first.payload, first.opt.observe) == (aiocoap.CONTENT, b"{}", 0)
        for number, (change, expected) in enumerate(
            [({"a": 1}, {"a": 1}), ({"a": 2, "b": {"c": [3]}}, {"a": 2, "b": {"c": [3]}}), ("b", {"deleted": ["b"]})],
            start=1,
        ):
            core.rest.delete(path, keys=change) if isinstance(change, str) else core.rest.post(path, change)
            news = observation.next()
            assert (news.code, told(news), news.opt.observe) == (aiocoap.CONTENT, expected, number)
    with coap.observing(f"api/v1/{token}/attributes") as observation:
        first = observation.first
        assert (first.code, told(first), first.opt.observe) == (aiocoap.CONTENT, {"a": 2}, 0)


def test_commands_are_told_and_answered(coap: Coap, core: CoreProcess, token: str, name: str) -> None:
    """First 2.03, empty, Observe 0; each command 2.05 and one more; replies by POST; offline 504 (O4, O5)."""
    assert command(core, name, "oneway").status_code == command(core, name, "twoway").status_code == 504
    with coap.observing(f"api/v1/{token}/rpc") as observation:
        first = observation.first
        assert (first.code, first.payload, first.opt.observe) == (aiocoap.VALID, b"", 0)
        for number, way in enumerate(("oneway", "twoway", "twoway"), start=1):
            later = Later(core, name, way)
            news = observation.next()
            heard = told(news)
            assert (news.code, news.opt.observe) == (aiocoap.CONTENT, number)
            assert heard == {"id": heard["id"], "method": "setGpio", "params": {"pin": 7}}
            if way == "oneway":
                assert (later.answer().status_code, later.answer().content) == (200, b"")
                continue
            reply = coap.post(f"api/v1/{token}/rpc/{heard['id']}", {"done": number})
            assert (reply.code, reply.payload) == (aiocoap.CREATED, b"")
            assert (later.answer().status_code, later.answer().json()) == (200, {"done": number})


@pytest.mark.parametrize("feature", ["attributes", "rpc"])
def test_a_deregistered_observer_hears_nothing(
    coap: Coap, core: CoreProcess, token: str, name: str, feature: str
) -> None:
    """Observe 1 with the same token is answered 2.02; changes are not told any more, commands find nobody (O3, O4)."""
    with RawPeer(core.coap_port, coap.kind) as peer:
        peer.send(f"api/v1/{token}/{feature}", observe=0)
        assert peer.receive().opt.observe == 0
        path = f"{telemetry_path(core, name)}/SHARED_SCOPE"
        if feature == "attributes":
            core.rest.post(path, {"a": 1})
            assert told(peer.receive()) == {"a": 1}
        peer.send(f"api/v1/{token}/{feature}", observe=1)
        ended = peer.receive()
        assert (ended.code, ended.opt.observe) == (aiocoap.DELETED, None)
        if feature == "attributes":
            core.rest.post(path, {"a": 2})
        else:
            assert command(core, name, "oneway").status_code == 504
        peer.send(f"api/v1/{token}/attributes?sharedKeys=none", token=b"other")
        assert (peer.receive().token, peer.is_silent) == (b"other", True)


def test_an_observer_that_resets_a_notification_is_gone(coap: Coap, core: CoreProcess, token: str, name: str) -> None:
    """A confirmable one, which then has failed, or not; the next command finds nobody (O3, O4)."""
    with RawPeer(core.coap_port, coap.kind) as peer:
        peer.send(f"api/v1/{token}/rpc", observe=0)
        assert peer.receive().code is aiocoap.VALID
        later = Later(core, name, "oneway")
        peer.reset(peer.receive(is_to_be_acknowledged=False))
        assert later.answer().status_code == (504 if coap.kind == "CON" else 200)
        assert command(core, name, "oneway").status_code == 504


def test_aiocoaps_cancel_ends_the_observation(
    cores: dict[bool, CoreProcess], coap_loop: CoapLoop, token: str, name: str
) -> None:
    """It refuses what comes afterwards, by resetting a confirmable notification (O3, O4)."""
    core = cores[True]
    with Coap(coap_loop, core.coap_port, "CON").observing(f"api/v1/{token}/rpc") as observation:
        observation.cancel()
        command(core, name, "oneway")
        assert command(core, name, "oneway").status_code == 504


class RawPeer:
    """Datagrams built with aiocoap's codec: its client chooses tokens itself, so it cannot show Observe 1."""

    def __init__(self, port: int, kind: str) -> None:
        self._type = aiocoap.CON if kind == "CON" else aiocoap.NON
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(WAIT_S)
        self._socket.connect(("127.0.0.1", port))
        self._message_id = 0

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, path: str, *, observe: int | None = None, token: bytes = b"t") -> None:
        self._message_id += 1
        message = aiocoap.Message(
            code=aiocoap.GET, uri=f"coap://127.0.0.1/{path}", observe=observe, _mid=self._message_id, _token=token,
            _mtype=self._type,
        )  # fmt: skip
        self._socket.send(message.encode())

    def receive(self, *, is_to_be_acknowledged: bool = True) -> aiocoap.Message:
        """The next one that is not merely an acknowledgement; a confirmable one is acknowledged."""
        while True:
            message = aiocoap.Message.decode(self._socket.recv(2_000))
            if message.mtype is aiocoap.CON and is_to_be_acknowledged:
                self._answer(message, aiocoap.ACK)
            if message.code is not aiocoap.EMPTY:
                return message

    def reset(self, message: aiocoap.Message) -> None:
        self._answer(message, aiocoap.RST)

    def _answer(self, message: aiocoap.Message, kind: Any) -> None:
        self._socket.send(aiocoap.Message(code=aiocoap.EMPTY, _mid=message.mid, _mtype=kind).encode())

    @property
    def is_silent(self) -> bool:
        """Whether nothing has arrived that was not received."""
        return not select.select([self._socket], [], [], 0)[0]


# -- paths ------------------------------------------------------------------------------------------

PATHS: list[tuple[Any, str, bytes, Any]] = [
    (aiocoap.POST, "api/v1/{token}/telemetry", b'{"t":1}', aiocoap.CREATED),
    (aiocoap.POST, "api/v1/{token}/TeleMetry", b'{"t":1}', aiocoap.CREATED),
    (aiocoap.GET, "api/v1/{token}/telemetry", b"", aiocoap.BAD_REQUEST),
    (aiocoap.POST, "api/v1/{token}/attributes", b'{"a":1}', aiocoap.CREATED),
    (aiocoap.GET, "api/v1/{token}/ATTRIBUTES?sharedKeys=a", b"", aiocoap.NOT_FOUND),
    (aiocoap.GET, "api/v1/{token}/attributes/updates", b"", aiocoap.BAD_REQUEST),
    (aiocoap.POST, "api/v1/{token}/claim", b"", aiocoap.CREATED),
    (aiocoap.GET, "api/v1/{token}/claim", b"", aiocoap.BAD_REQUEST),
    (aiocoap.POST, "api/v1/{token}/rpc", b'{"method":"getSessionLimits"}', aiocoap.CONTENT),
    (aiocoap.GET, "api/v1/{token}/rpc", b"", aiocoap.BAD_REQUEST),
    (aiocoap.POST, "api/v1/{token}/rpc/17", b"{}", aiocoap.CREATED),
    (aiocoap.POST, "api/v1/{token}/rpc/x", b"{}", aiocoap.BAD_REQUEST),
    (aiocoap.POST, "api/v1/{token}/telemetry/17", b'{"t":1}', aiocoap.BAD_REQUEST),
    (aiocoap.POST, "api/v1/{token}/telemetry", b"{broken", aiocoap.BAD_REQUEST),
    # without a token, as for sessions that a certificate has authenticated: here nobody has
    (aiocoap.POST, "api/v1/telemetry", b'{"t":1}', aiocoap.UNAUTHORIZED),
    (aiocoap.POST, "api/v1/attributes", b'{"a":1}', aiocoap.UNAUTHORIZED),
    (aiocoap.GET, "api/v1/attributes", b"", aiocoap.UNAUTHORIZED),
    (aiocoap.POST, "api/v1/rpc", b'{"method":"m"}', aiocoap.UNAUTHORIZED),
    (aiocoap.POST, "api/v1/rpc/17", b"{}", aiocoap.UNAUTHORIZED),
    (aiocoap.POST, "api/v1/claim", b"", aiocoap.UNAUTHORIZED),
    # an unknown token
    (aiocoap.POST, "api/v1/nobody/telemetry", b'{"t":1}', aiocoap.UNAUTHORIZED),
    (aiocoap.GET, "api/v1/nobody/attributes", b"", aiocoap.UNAUTHORIZED),
    (aiocoap.GET, "fw/nobody", b"", aiocoap.UNAUTHORIZED),
    # packages
    (aiocoap.GET, "fw/{token}", b"", aiocoap.NOT_FOUND),
    (aiocoap.GET, "sw/{token}", b"", aiocoap.NOT_FOUND),
    (aiocoap.GET, "api/v1/{token}/firmware", b"", aiocoap.NOT_FOUND),
    (aiocoap.GET, "api/v1/{token}/software", b"", aiocoap.NOT_FOUND),
    (aiocoap.POST, "fw/{token}", b"", aiocoap.METHOD_NOT_ALLOWED),
    (aiocoap.POST, "sw/{token}", b"", aiocoap.METHOD_NOT_ALLOWED),
    # no feature at all
    (aiocoap.POST, "api/v1/{token}/nothing", b"{}", aiocoap.BAD_REQUEST),
    (aiocoap.POST, "api/v1/{token}", b"{}", aiocoap.BAD_REQUEST),
    (aiocoap.POST, "api/v1", b"{}", aiocoap.BAD_REQUEST),
    (aiocoap.GET, "api/v1/provision", b"", aiocoap.BAD_REQUEST),
]


@pytest.mark.parametrize("is_one_option", [False, True], ids=["segments", "one-option"])
def test_paths_lead_where_the_table_says(coap: Coap, token: str, is_one_option: bool) -> None:
    """Segment by segment, or the whole path in a single Uri-Path option (O6)."""
    for code, path, body, expected in PATHS:
        message = coap.message(code, path.format(token=token), body)
        if is_one_option:
            message.opt.uri_path = ("/".join(message.opt.uri_path),)
        answer = coap.send(message)
        assert (code, path, answer.code) == (code, path, expected)


def test_a_reply_path_names_its_command(coap: Coap, core: CoreProcess, token: str, name: str) -> None:
    """The numeric last segment is the id, whichever form the path has (O6)."""
    with coap.observing(f"api/v1/{token}/rpc") as observation:
        later = Later(core, name, "twoway")
        message = coap.message(aiocoap.POST, f"api/v1/{token}/RPC/{told(observation.next())['id']}", b'{"ok":1}')
        message.opt.uri_path = ("/".join(message.opt.uri_path),)
        assert coap.send(message).code is aiocoap.CREATED
        assert later.answer().json() == {"ok": 1}


# -- provisioning -----------------------------------------------------------------------------------

PLACES = ("api/v1/provision", "api/v1/any/provision", "api/v1/any/PROVISION")
Ask = Callable[[dict[str, Any]], tuple[Any, dict[str, Any]]]


@pytest.fixture(params=[*PLACES, "one-option"])
def ask(request: pytest.FixtureRequest, coap: Coap) -> Ask:
    """A provision request in this form; gives code and JSON."""

    def post(body: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        is_one_option = request.param == "one-option"
        message = coap.message(aiocoap.POST, PLACES[1] if is_one_option else request.param, body)
        if is_one_option:
            message.opt.uri_path = ("/".join(message.opt.uri_path),)
        answer = coap.send(message)
        return answer.code, told(answer)

    return post


def test_refused_provisioning_says_so_in_json(ask: Ask, core: CoreProcess, name: str) -> None:
    """4.00 with the JSON: switched off, wrong key, wrong secret, unknown device, taken name (P21, P22 of P1 and P8)."""
    off = core.make_profile(f"off-{name}", "DISABLED", key=f"key-{name}", provisionDeviceSecret="s")
    check = core.make_profile(f"check-{name}", "CHECK_PRE_PROVISIONED_DEVICES")
    new = core.make_profile(f"new-{name}")
    core.rest.post("/api/device", {"name": f"taken-{name}"})
    nothing = ("NOT_FOUND", "Provision data was not found!")
    failure = ("FAILURE", "Failed to provision device!")
    for request, expected in (
        ({"deviceName": name, **off}, nothing),
        (off, nothing),
        ({"deviceName": name, **new, "provisionDeviceKey": "wrong"}, nothing),
        ({"deviceName": name, **new, "provisionDeviceSecret": "wrong"}, nothing),
        ({"deviceName": name, **check}, failure),
        ({"deviceName": f"taken-{name}", **new}, failure),
    ):
        code, answer = ask(request)
        assert (code, answer["status"], answer["errorMsg"]) == (aiocoap.BAD_REQUEST, *expected)


def test_a_prepared_device_is_provisioned_once(ask: Ask, core: CoreProcess, name: str) -> None:
    """2.01 with its own credentials, then 4.00 FAILURE, in any other state too (P20, P22 of P2)."""
    profile = core.make_profile(f"check-{name}", "CHECK_PRE_PROVISIONED_DEVICES")
    core.rest.post(f"/api/device?accessToken=pre-{name}", {"name": name, "type": f"check-{name}"})
    request = {"deviceName": name, **profile}
    code, answer = ask(request)
    assert (code, answer["status"], answer["credentialsType"], answer["credentialsValue"]) == (
        aiocoap.CREATED, "SUCCESS", "ACCESS_TOKEN", f"pre-{name}",
    )  # fmt: skip
    assert attributes_of(core, name, "SERVER_SCOPE")["provisionState"] == "provisioned"
    for state in ("provisioned", "some other text"):
        core.rest.post(f"{telemetry_path(core, name)}/SERVER_SCOPE", {"provisionState": state})
        code, answer = ask(request)
        assert (code, answer["status"]) == (aiocoap.BAD_REQUEST, "FAILURE")


def test_a_new_device_is_created(ask: Ask, core: CoreProcess, name: str) -> None:
    """2.01; a generated token, a gateway, a token or a certificate of its own (P21, P22 of P3 to P6)."""
    profile = core.make_profile(f"new-{name}")
    cases: tuple[tuple[dict[str, Any], str, str | None], ...] = (
        ({}, "ACCESS_TOKEN", None),
        ({"gateway": True}, "ACCESS_TOKEN", None),
        ({"credentialsType": "ACCESS_TOKEN", "token": f"own-{name}"}, "ACCESS_TOKEN", f"own-{name}"),
        ({"credentialsType": "X509_CERTIFICATE", "hash": f"hash{name}"}, "X509_CERTIFICATE", f"hash{name}"),
    )
    for number, (members, kind, value) in enumerate(cases):
        device_name = f"{name}-{number}"
        code, answer = ask({"deviceName": device_name, **members, **profile})
        assert (code, answer["status"], answer["credentialsType"]) == (aiocoap.CREATED, "SUCCESS", kind)
        assert value is None or answer["credentialsValue"] == value
        device = core.device(device_name)
        stored = core.rest.get(f"/api/device/{device['id']['id']}/credentials")
        assert stored["credentialsType"] == kind
        if kind == "X509_CERTIFICATE":
            assert stored["credentialsId"] == hashlib.sha3_256(f"hash{name}".encode()).hexdigest()
            assert stored["credentialsValue"] == value
        else:
            assert stored["credentialsId"] == answer["credentialsValue"]
        assert bool((device["additionalInfo"] or {}).get("gateway")) is ("gateway" in members)
