"""Calls of devices to the server: the core's own methods and those that operators bind to webhooks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from cloud_core.core.rpc import server_methods as module
from cloud_core.core.rpc.server_methods import ServerMethods
from cloud_core.model import PROVISIONING_IDENTITY, Identity, Role, ServerMethod
from shared.errors import InvalidArgument, NotAuthorized, NotFound
from shared.messages import RpcRequest
from tests.support.stores import TENANT, StoreUnderTest

LIMITS = {
    "maxPayloadSize": 65_536, "maxInflightMessages": 100,
    "rateLimits": {"messages": "200:1", "telemetryMessages": None, "telemetryDataPoints": None},
}  # fmt: skip
DEVICE = Identity(Role.DEVICE, TENANT, 7, UUID(int=7), "dev")
METHOD = ServerMethod(tenant_id=TENANT, method="getWeather", url="https://hooks.example/weather", secret="s" * 20)


class MethodsUnderTest:
    """`ServerMethods` whose webhooks the test answers."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.store = store
        self.posted: list[tuple[ServerMethod, Any, Callable[[bytes | None], None]]] = []
        self.methods = ServerMethods(
            store=store.store, now_ms=lambda: 1_631_881_236_974, session_limits=self._limits, post=self._post
        )

    def _limits(self, identity: Identity) -> dict[str, Any]:
        return LIMITS | ({"gatewayRateLimits": LIMITS["rateLimits"]} if identity.role is Role.GATEWAY else {})

    def _post(self, method: ServerMethod, body: bytes, done: Callable[[bytes | None], None]) -> None:
        self.posted.append((method, json.loads(body), done))

    def bind(self, **members: Any) -> None:
        values = {name: getattr(METHOD, name) for name in ServerMethod.__slots__} | members
        self.store.wait(lambda done: self.methods.bind(ServerMethod(**values), done))

    def call(self, method: str, params: Any = None, identity: Identity = DEVICE) -> list[Any]:
        """The outcomes so far: none while a webhook is asked."""
        outcomes: list[Any] = []
        self.methods.call(identity, RpcRequest(method=method, params=params), outcomes.append)
        self.store.read(lambda tx: None)
        return outcomes


@pytest.fixture
def methods(sqlite_store: StoreUnderTest) -> MethodsUnderTest:
    return MethodsUnderTest(sqlite_store)


@pytest.mark.parametrize("role", [Role.DEVICE, Role.GATEWAY])
def test_session_limits_have_exactly_the_members_that_clients_read(methods: MethodsUnderTest, role: Role) -> None:
    """For a gateway also those of its sub-devices (R7)."""
    [answer] = methods.call("getSessionLimits", identity=Identity(role, TENANT, 7))
    expected = {"maxPayloadSize", "maxInflightMessages", "rateLimits"}
    assert set(answer) == expected | ({"gatewayRateLimits"} if role is Role.GATEWAY else set())


def test_the_current_time_is_a_bare_number_of_ms(methods: MethodsUnderTest) -> None:
    """As in ThingsBoard's guide, which devices are written after."""
    assert methods.call("getCurrentTime", {}) == [1_631_881_236_974]


def test_an_unknown_method_is_answered_at_once_and_says_how_to_bind_it(methods: MethodsUnderTest) -> None:
    """No device waits a minute for nothing."""
    [answer] = methods.call("getWeather")
    assert "POST /api/serverMethods" in answer["error"] and "getWeather" in answer["error"]
    assert methods.posted == []


def test_a_bound_method_is_posted_and_its_answer_reaches_the_device(methods: MethodsUnderTest) -> None:
    """Who calls what, as JSON; the webhook's JSON is the device's answer, numbers as written (R8)."""
    methods.bind()
    outcomes = methods.call("getWeather", {"city": "Kyiv"})
    [(method, body, answer)] = methods.posted
    assert (method.url, method.secret, outcomes) == (METHOD.url, METHOD.secret, [])
    assert body == {
        "deviceName": "dev", "deviceId": str(UUID(int=7)), "method": "getWeather", "params": {"city": "Kyiv"},
    }  # fmt: skip
    answer(b'{"degrees": 21.5}')
    assert outcomes == [{"degrees": 21.5}]


@pytest.mark.parametrize("body", [None, b"<html>no such page</html>", b"x" * 70_000, b"[" * 40 + b"]" * 40, b'{"a":'])
def test_a_webhook_that_fails_is_an_error_for_the_device(methods: MethodsUnderTest, body: bytes | None) -> None:
    """Never silence, and never anything that cannot be written to it."""
    methods.bind()
    outcomes = methods.call("getWeather")
    methods.posted[0][2](body)
    assert list(outcomes[0]) == ["error"] and "hooks.example" not in outcomes[0]["error"]


def test_an_empty_answer_of_a_webhook_is_null(methods: MethodsUnderTest) -> None:
    methods.bind()
    outcomes = methods.call("getWeather")
    methods.posted[0][2](b"")
    assert outcomes == [None]


def test_params_that_nest_too_deeply_are_refused(methods: MethodsUnderTest) -> None:
    """Before the webhook is asked."""
    methods.bind()
    params: Any = 1
    for _ in range(40):
        params = [params]
    [answer] = methods.call("getWeather", params)
    assert "nested" in answer["error"] and methods.posted == []


def test_calls_of_one_device_are_bounded(methods: MethodsUnderTest) -> None:
    """Others are served meanwhile; a call that has ended makes room."""
    methods.bind()
    for _ in range(module.MAX_CALLS_PER_DEVICE):
        assert methods.call("getWeather") == []
    assert "call again" in methods.call("getWeather")[0]["error"]
    assert methods.call("getWeather", identity=Identity(Role.DEVICE, TENANT, 8, UUID(int=8), "other")) == []
    methods.posted[0][2](b"1")
    assert methods.call("getWeather") == []


def test_calls_of_all_devices_are_bounded(methods: MethodsUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the core answers itself is not."""
    monkeypatch.setattr(module, "MAX_CALLS", 2)
    methods.bind()
    for number in range(2):
        methods.call("getWeather", identity=Identity(Role.DEVICE, TENANT, number))
    [answer] = methods.call("getWeather", identity=Identity(Role.DEVICE, TENANT, 3))
    assert "busy" in answer["error"]
    assert methods.call("getCurrentTime") != []
    for _, _, done in methods.posted:
        done(None)
    assert methods.call("getWeather") == []


def test_a_provision_only_session_may_not_call(methods: MethodsUnderTest) -> None:
    assert [type(one) for one in methods.call("getCurrentTime", identity=PROVISIONING_IDENTITY)] == [NotAuthorized]


def test_a_method_of_another_tenant_is_unknown(methods: MethodsUnderTest) -> None:
    methods.bind()
    assert "error" in methods.call("getWeather", identity=Identity(Role.DEVICE, TENANT + 1, 9))[0]


@pytest.mark.parametrize(
    "members",
    [
        {"method": ""},
        {"method": "a/b"},
        {"method": "x" * 256},
        {"method": "getSessionLimits"},
        {"method": "getCurrentTime"},
        {"url": ""},
        {"url": "ftp://hooks.example/"},
        {"url": "file:///etc/passwd"},
        {"url": "https://"},
        {"url": "https://:8080/"},
        {"url": "https://user:pass@hooks.example/"},
        {"url": "https://hooks.example/#part"},
        {"url": "https://hooks.example/a b"},
        {"url": "https://hooks.example/\r\nHost: x"},
        {"url": "https://hooks.example:99999/"},
        {"url": "https://[bad/"},
        {"url": "https://hooks.example/" + "x" * 2_048},
        {"secret": ""},
        {"secret": "x" * 256},
        {"timeout_ms": 99},
        {"timeout_ms": 60_001},
    ],
)
def test_a_binding_that_could_not_work_is_refused(methods: MethodsUnderTest, members: dict[str, Any]) -> None:
    """When it is made, with the reason."""
    with pytest.raises(InvalidArgument) as refused:
        methods.bind(**members)
    assert str(refused.value) and "pass@" not in str(refused.value)


def test_a_binding_can_be_replaced_and_removed(methods: MethodsUnderTest) -> None:
    methods.bind()
    methods.bind(url="http://10.0.0.1:8000/hook?x=1")
    [bound] = methods.store.wait(lambda done: methods.methods.bound(TENANT, done))
    assert bound.url == "http://10.0.0.1:8000/hook?x=1"
    methods.store.wait(lambda done: methods.methods.unbind(TENANT, "getWeather", done))
    assert "error" in methods.call("getWeather")[0]
    with pytest.raises(NotFound):
        methods.store.wait(lambda done: methods.methods.unbind(TENANT, "getWeather", done))


def test_bindings_of_a_tenant_are_bounded(methods: MethodsUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is there already can still be changed."""
    monkeypatch.setattr(module, "MAX_BOUND", 1)
    methods.bind()
    with pytest.raises(InvalidArgument):
        methods.bind(method="other")
    methods.bind(timeout_ms=500)
