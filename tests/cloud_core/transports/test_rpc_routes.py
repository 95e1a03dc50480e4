"""REST of commands and server methods, in memory: real klein, real core, recording downlinks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from cloud_core.core.admin import AdminApi
from cloud_core.core.api import Options
from cloud_core.core.downlinks import Delivery
from cloud_core.core.people.logins import Operator, Tokens
from cloud_core.core.rpc.commands import RpcOptions
from cloud_core.model import DEFAULT_TENANT, RpcStatus
from cloud_core.transports.http.rest.rpc_routes import command_from
from cloud_core.transports.http.service import HttpService
from shared.codecs import JSON
from shared.errors import InvalidArgument
from shared.lenient_json import NumberText
from shared.messages import RpcCommand
from tests.support.api import ApiUnderTest
from tests.support.downlinks import RecordingDownlink
from tests.support.stores import TENANT, StoreUnderTest

KEY = b"j" * 64
PREFIXES = ["/api/rpc", "/api/plugins/rpc"]


class Rest:
    """One connection of an operator, and the device's end of its downlink."""

    def __init__(self, store: StoreUnderTest, **options: Any) -> None:
        self.clock = Clock()
        self.core = ApiUnderTest(store, call_later=self.clock.callLater, options=Options(rpc=RpcOptions(**options)))
        service = HttpService(
            api=self.core.api,
            admin=AdminApi(store=store.store, api=self.core.api, jwt_key=KEY),
            reactor=self.clock,
            is_fast_path_on=True,
            request_timeout_s=20.0,
        )
        self.factory = service.factory()
        self.factory.startFactory()
        self.transport = StringTransport()
        self.protocol = self.factory.buildProtocol(None)
        self.transport.protocol = self.protocol  # type: ignore[attr-defined]
        self.protocol.makeConnection(self.transport)
        self.store = store
        self.device_id = store.add_device("dev", store.add_profile())
        self.device = str(store.read(lambda tx: tx.device_by_id(self.device_id)).uuid)
        self.log_in_as("TENANT_ADMIN")

    def log_in_as(self, authority: str) -> None:
        operator = Operator("admin@test", authority, TENANT, DEFAULT_TENANT, uuid4())
        self.token = Tokens(KEY).issue(operator, int(time.time()))["token"]

    def settle(self) -> None:
        for _ in range(12):
            self.store.run(lambda tx: None)
            self.store.read(lambda tx: None)
            self.store.survey(lambda tx: None)
            self.clock.advance(0)

    def pass_time(self, seconds: float) -> None:
        self.core.now_s += seconds
        self.clock.advance(seconds)
        self.settle()

    def start(self, method: str, path: str, body: Any = None) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nX-Authorization: Bearer {self.token}\r\n"
        data = head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(content), content)
        self.transport.protocol.dataReceived(data)  # type: ignore[attr-defined]
        self.settle()

    def answer(self) -> tuple[int, str, bytes] | None:
        """(status, content type, body); None while there is none."""
        data = self.transport.value()
        self.transport.clear()
        if not data:
            return None
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines[1:]}
        assert int(headers["content-length"]) == len(body)
        return int(lines[0].split()[1]), headers.get("content-type", ""), body

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, decoded body)."""
        self.start(method, path, body)
        answer = self.answer()
        assert answer is not None, "no answer yet"
        status, kind, content = answer
        return status, json.loads(content) if kind == "application/json" and content else content.decode()

    def downlink(self, **members: Any) -> RecordingDownlink:
        opened = RecordingDownlink(self.core.api.downlinks, self.device_id, **members).open()
        self.settle()
        return opened

    def answering(self, reply: bytes) -> RecordingDownlink:
        """A device that answers each command with this body."""
        downlink = RecordingDownlink(self.core.api.downlinks, self.device_id, acknowledges=True)

        def answer(command: RpcCommand, _delivery: Delivery) -> None:
            self.core.api.rpc.reply_of(self.device_id, command.number, JSON.reply(reply), lambda _: None)

        downlink.on_command = answer
        downlink.open()
        self.settle()
        return downlink

    def close(self) -> None:
        self.factory.stopFactory()


@pytest.fixture
def rest(sqlite_store: StoreUnderTest) -> Iterator[Rest]:
    opened = Rest(sqlite_store)
    yield opened
    opened.close()


# -- at once --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prefix", "status"), [(PREFIXES[0], 504), (PREFIXES[1], 409)])
@pytest.mark.parametrize("way", ["oneway", "twoway"])
def test_a_command_to_an_offline_device_says_how_to_have_it_wait(
    rest: Rest, prefix: str, status: int, way: str
) -> None:
    """504, or 409 under the older prefix (R1)."""
    code, body = rest.call("POST", f"{prefix}/{way}/{rest.device}", {"method": "m"})
    assert (code, body["status"]) == (status, status)
    assert "persistent" in body["message"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("device", [str(UUID(int=1)), "nonsense"])
def test_a_command_to_an_unknown_device_is_404_with_a_text(rest: Rest, prefix: str, device: str) -> None:
    """ThingsBoard's, word for word (R1)."""
    rest.start("POST", f"{prefix}/oneway/{device}", {"method": "m"})
    assert rest.answer() == (404, "text/plain; charset=utf-8", b"Device with requested id wasn't found!")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_one_way_command_is_answered_empty_once_it_is_delivered(rest: Rest, prefix: str) -> None:
    """And not before; the device gets method and params as they were given (R2)."""
    downlink = rest.downlink()
    body = b'{"method":"setGpio","params":{"pin":7,"value":1E+1,"big":123456789012345678901}}'
    rest.start("POST", f"{prefix}/oneway/{rest.device}", body)
    assert rest.answer() is None
    rendered = JSON.render_command(downlink.commands[0], with_id=False)
    assert rendered == b'{"method":"setGpio","params":{"pin":7,"value":1E+1,"big":123456789012345678901}}'
    downlink.deliveries[0].delivered()
    rest.settle()
    answer = rest.answer()
    assert answer is not None and (answer[0], answer[2]) == (200, b"")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (b'{"success":true,"value":1.5}', b'{"success":true,"value":1.5}'),
        (b"42", b"42"),
        (b'"text"', b'"text"'),
        (b"1E+400", b"1E+400"),
        (b"", b""),
    ],
)
def test_the_reply_of_the_device_is_the_answer(rest: Rest, prefix: str, reply: bytes, answer: bytes) -> None:
    """Numbers as it wrote them; an empty reply is an empty answer (R3)."""
    rest.answering(reply)
    rest.start("POST", f"{prefix}/twoway/{rest.device}", {"method": "get"})
    outcome = rest.answer()
    assert outcome is not None and (outcome[0], outcome[2]) == (200, answer)


@pytest.mark.parametrize("reply", [b"not json", b"ok", b'{"a":'])
def test_a_reply_that_is_no_json_is_406(rest: Rest, reply: bytes) -> None:
    rest.answering(reply)
    status, body = rest.call("POST", f"/api/rpc/twoway/{rest.device}", {"method": "get"})
    assert (status, body["status"]) == (406, 406)


@pytest.mark.parametrize(("prefix", "status"), [(PREFIXES[0], 504), (PREFIXES[1], 408)])
@pytest.mark.parametrize(("given_ms", "waits_s"), [(None, 10.0), (1, 5.0), (7_000, 7.0)])
def test_a_device_that_does_not_answer_ends_in_a_timeout(
    rest: Rest, prefix: str, status: int, given_ms: int | None, waits_s: float
) -> None:
    """After 10 s or the time given, but not before 5 s."""
    rest.downlink(acknowledges=True)
    body = {"method": "m"} | ({"timeout": given_ms} if given_ms else {})
    rest.start("POST", f"{prefix}/twoway/{rest.device}", body)
    rest.pass_time(waits_s - 0.1)
    assert rest.answer() is None
    rest.pass_time(0.2)
    answer = rest.answer()
    assert answer is not None and answer[0] == status


def test_an_answer_may_take_longer_than_a_request_may(rest: Rest) -> None:
    """The connection is not closed for waiting."""
    rest.downlink(acknowledges=True)
    rest.start("POST", f"/api/rpc/twoway/{rest.device}", {"method": "m", "timeout": 60_000})
    for _ in range(50):
        rest.pass_time(1.0)
    assert not rest.transport.disconnecting
    rest.core.api.rpc.reply_of(rest.device_id, 0, "late", lambda _: None)
    rest.settle()
    answer = rest.answer()
    assert answer is not None and (answer[0], answer[2]) == (200, b'"late"')


def test_a_caller_that_goes_away_does_no_harm(rest: Rest) -> None:
    """The device's reply finds nobody, and nothing is logged as a failure."""
    rest.downlink(acknowledges=True)
    rest.start("POST", f"/api/rpc/twoway/{rest.device}", {"method": "m"})
    rest.transport.protocol.connectionLost(Failure(ConnectionDone()))  # type: ignore[attr-defined]
    rest.core.api.rpc.reply_of(rest.device_id, 0, 1, lambda _: None)
    rest.settle()
    assert rest.answer() is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b'{"method":""}',
        b'{"method":5}',
        b'{"method":"m","timeout":"soon"}',
        b'{"method":"m","timeout":-1}',
        b'{"method":"m","expirationTime":1.5}',
        b'{"method":"m","expirationTime":true}',
        b'{"method":"m","expirationTime":9223372036854775808}',
        b'{"method":"m","retries":"many"}',
        b'{"method":"m","persistent":"yes"}',
        b'{"method":"m","requestUUID":"x"}',
        b'{"method":"m","params":' + b"[" * 40 + b"]" * 40 + b"}",
    ],
)
def test_a_command_that_makes_no_sense_is_400_and_says_why(rest: Rest, body: bytes) -> None:
    status, answer = rest.call("POST", f"/api/rpc/oneway/{rest.device}", body)
    assert (status, answer["errorCode"]) == (400, 31) and answer["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/rpc/oneway/x"),
        ("GET", "/api/rpc/persistent/x"),
        ("DELETE", "/api/rpc/persistent/x"),
        ("GET", "/api/rpc/persistent/device/x?pageSize=1&page=0"),
        ("GET", "/api/serverMethods"),
        ("POST", "/api/serverMethods"),
        ("DELETE", "/api/serverMethods/x"),
    ],
)
def test_only_operators_may_command(rest: Rest, method: str, path: str) -> None:
    rest.token = "forged"
    assert rest.call(method, path, {"method": "m"})[0] == 401


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/rpc/oneway/x"), ("PUT", "/api/serverMethods")])
def test_other_methods_are_405(rest: Rest, method: str, path: str) -> None:
    assert rest.call(method, path)[0] == 405


def test_what_is_asked_for_is_read_as_thingsboard_does() -> None:
    """Unknown members are ignored; retries are at most 5, and 5 where none are given."""
    plain = command_from({"method": "m", "other": 1}, is_oneway=True, now_ms=1_000)
    assert (plain.params, plain.expires_ms, plain.retries, plain.is_persistent) == (None, 11_000, 5, False)
    uuid = uuid4()
    given = {
        "method": "m", "params": NumberText("1E+1"), "timeout": 1, "expirationTime": 5_000, "retries": 9,
        "persistent": True, "requestUUID": str(uuid), "additionalInfo": {"a": 1},
    }  # fmt: skip
    full = command_from(given, is_oneway=False, now_ms=1_000)
    assert (full.params, full.expires_ms, full.retries) == (NumberText("1E+1"), 5_000, 5)
    assert (full.is_persistent, full.uuid, full.additional_info) == (True, uuid, {"a": 1})
    with pytest.raises(InvalidArgument):
        command_from({"method": None}, is_oneway=True, now_ms=0)


# -- waiting on disk ------------------------------------------------------------------------------


def queued(rest: Rest, method: str = "reboot", way: str = "oneway", **members: Any) -> str:
    body = {"method": method, "persistent": True, "expirationTime": int(rest.core.now_s * 1000) + 3_600_000} | members
    status, answer = rest.call("POST", f"/api/rpc/{way}/{rest.device}", body)
    assert (status, list(answer)) == (200, ["rpcId"])
    return str(answer["rpcId"])


def test_a_persistent_command_is_answered_with_its_id_and_shown_as_thingsboard_shows_it(rest: Rest) -> None:
    """While the device is away and after it has answered (R8)."""
    wanted = str(uuid4())
    params, info = {"in": 5}, {"by": "me"}
    uuid = queued(rest, way="twoway", params=params, additionalInfo=info, retries=2, requestUUID=wanted)
    assert uuid == wanted
    status, shown = rest.call("GET", f"/api/rpc/persistent/{uuid}")
    device = {"entityType": "DEVICE", "id": rest.device}
    tenant = {"entityType": "TENANT", "id": str(DEFAULT_TENANT)}
    created_ms = int(rest.core.now_s * 1000)
    assert (status, shown) == (200, {
        "id": {"entityType": "RPC", "id": uuid}, "createdTime": created_ms, "tenantId": tenant, "deviceId": device,
        "expirationTime": created_ms + 3_600_000, "status": "QUEUED", "response": None, "additionalInfo": info,
        "request": {
            "id": uuid, "tenantId": tenant, "deviceId": device, "oneway": False,
            "expirationTime": created_ms + 3_600_000, "body": {"method": "reboot", "params": '{"in":5}'},
            "persisted": True, "retries": 2, "additionalInfo": '{"by":"me"}',
        },
    })  # fmt: skip
    rest.answering(b'{"done":true}')
    _, shown = rest.call("GET", f"/api/rpc/persistent/{uuid}")
    assert (shown["status"], shown["response"]) == ("SUCCESSFUL", {"done": True})


def test_persistent_commands_are_listed_by_device_and_state(rest: Rest) -> None:
    """With the members of a page; a state that cannot be asked for is refused."""
    first, second = queued(rest, "a"), queued(rest, "b", way="twoway")
    path = f"/api/rpc/persistent/device/{rest.device}?pageSize=1&page=0"
    status, page = rest.call("GET", path)
    assert (status, page["totalElements"], page["totalPages"], page["hasNext"]) == (200, 2, 2, True)
    assert [one["id"]["id"] for one in page["data"]] == [first]
    rest.downlink(acknowledges=True)
    for wanted, expected in (("SUCCESSFUL", [first]), ("DELIVERED", [second]), ("QUEUED", [])):
        _, page = rest.call("GET", f"{path}&rpcStatus={wanted}")
        assert [one["id"]["id"] for one in page["data"]] == expected
    for wanted in (RpcStatus.DELETED.value, "ALL"):
        status, refusal = rest.call("GET", f"{path}&rpcStatus={wanted}")
        assert status == 400 and "QUEUED" in refusal["message"]
    assert rest.call("GET", f"/api/rpc/persistent/device/{uuid4()}?pageSize=1&page=0")[0] == 404


def test_a_persistent_command_can_be_taken_back(rest: Rest) -> None:
    """It is neither found nor sent any more."""
    uuid = queued(rest)
    assert rest.call("DELETE", f"/api/rpc/persistent/{uuid}") == (200, "")
    for method in ("GET", "DELETE"):
        status, answer = rest.call(method, f"/api/rpc/persistent/{uuid}")
        assert (status, answer["errorCode"]) == (404, 32)
    assert rest.downlink().commands == []


def test_the_older_prefix_has_no_less(rest: Rest) -> None:
    """Persistent commands too."""
    body = {"method": "m", "persistent": True}
    assert rest.call("POST", f"/api/plugins/rpc/oneway/{rest.device}", body)[0] == 200


def test_too_many_waiting_commands_are_429(sqlite_store: StoreUnderTest) -> None:
    rest = Rest(sqlite_store, max_waiting_per_device=1)
    queued(rest)
    status, answer = rest.call("POST", f"/api/rpc/oneway/{rest.device}", {"method": "m", "persistent": True})
    assert (status, answer["errorCode"]) == (429, 33) and "waiting" in answer["message"]
    rest.close()


# -- server methods -------------------------------------------------------------------------------


def test_a_method_is_bound_listed_and_removed(rest: Rest) -> None:
    """A generated secret is told once, a given one never."""
    status, made = rest.call("POST", "/api/serverMethods", {"method": "getWeather", "url": "https://hooks.example/w"})
    assert status == 200 and len(made.pop("secret")) == 20
    assert made == {"method": "getWeather", "url": "https://hooks.example/w", "timeoutMs": 10_000}
    body = {"method": "b", "url": "http://10.0.0.1/", "secret": "known", "timeoutMs": 500}
    _, other = rest.call("POST", "/api/serverMethods", body)
    assert other == {"method": "b", "url": "http://10.0.0.1/", "timeoutMs": 500}
    assert rest.call("GET", "/api/serverMethods") == (200, [other, made])
    assert rest.call("DELETE", "/api/serverMethods/b") == (200, "")
    assert rest.call("DELETE", "/api/serverMethods/b")[0] == 404
    assert rest.call("GET", "/api/serverMethods") == (200, [made])


@pytest.mark.parametrize(
    "body",
    [
        {"url": "https://x/"},
        {"method": "m"},
        {"method": 5, "url": "https://x/"},
        {"method": "m", "url": "javascript:1"},
        {"method": "m", "url": "https://x/", "timeoutMs": "soon"},
        {"method": "m", "url": "https://x/", "timeoutMs": 10**9},
        {"method": "m", "url": "https://x/", "secret": 5},
    ],
)
def test_a_binding_that_makes_no_sense_is_400(rest: Rest, body: Any) -> None:
    status, answer = rest.call("POST", "/api/serverMethods", body)
    assert status == 400 and "'" in answer["message"]


def test_only_tenant_administrators_bind_methods(rest: Rest) -> None:
    """A webhook is asked by the core, from inside its network."""
    rest.log_in_as("CUSTOMER_USER")
    body = {"method": "m", "url": "https://x/"}
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/m")):
        assert rest.call(method, f"/api/serverMethods{path}", body)[0] == 403
