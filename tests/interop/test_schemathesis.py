"""Schemathesis against a running core: whatever is sent to a described route, it never fails (no 5xx)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.server import CoreProcess

pytestmark = pytest.mark.filterwarnings("default")
BUDGET_S = 40.0
EXAMPLES = 5
# Wait for news of a device as long as they are told to; their twins with a body go the same way.
WAITS = ("/rpc", "/attributes/updates")
ENDS_THE_LOGIN = ("/api/auth/logout",)  # with which all that follows is refused
ALLOWED = (503, 504)  # busy, and a command to a device that is not there


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    """A core of its own: what is thrown at it stays in it."""
    process = CoreProcess(tmp_path_factory.mktemp("fuzzed") / "data").start()
    yield process
    process.stop()


def known_ids(core: CoreProcess) -> dict[str, str]:
    """Of entities that exist, so that calls get past the look-up of their path."""
    device = core.rest.post("/api/device", {"name": "fuzzed", "type": "fuzzed"})
    customer = core.rest.post("/api/customer", {"title": "fuzzed"})
    token = core.rest.get(f"/api/device/{device['id']['id']}/credentials")["credentialsId"]
    return {
        "device": device["id"]["id"], "customer": customer["id"]["id"], "token": token,
        "profile": device["deviceProfileId"]["id"],
    }  # fmt: skip


def with_known_ids(case: Any, ids: dict[str, str]) -> None:
    """Every other case is about an entity that exists, and that is not deleted."""
    parameters = case.path_parameters or {}
    if case.method.upper() == "DELETE":
        return
    for name in ("uuid", "device", "customer", "profile", "token"):
        if name in parameters:
            kind = name if name != "uuid" else "device"
            if name == "uuid" and "Profile" in case.path:
                kind = "profile"
            if name == "uuid" and case.path.startswith("/api/customer/"):
                kind = "customer"
            parameters[name] = ids[kind]


class Attack:
    """Sends generated calls and keeps what failed."""

    def __init__(self, core: CoreProcess) -> None:
        self._ids, self._session = known_ids(core), requests.Session()
        self._session.headers["X-Authorization"] = f"Bearer {core.jwt}"
        self._until_s = time.monotonic() + BUDGET_S
        self._count = 0
        self.is_late = False
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []

    def run(self, operation: Any) -> None:
        from hypothesis import HealthCheck, Phase, Verbosity, given, settings

        once = given(case=operation.as_strategy())(lambda case: self._send(case))
        settings(
            max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        )(once)()  # fmt: skip

    def _send(self, case: Any) -> None:
        if time.monotonic() > self._until_s:
            self.is_late = True
            return
        self._count += 1
        if self._count % 2:
            with_known_ids(case, self._ids)
        if isinstance(case.body, dict) and "timeout" in case.body:
            case.body["timeout"] = 1  # nobody is there to answer
        try:
            answer = case.call(session=self._session, timeout=15)
        except requests.exceptions.InvalidHeader:
            return  # the client itself does not send it
        self.statuses[answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code not in ALLOWED:
            self.failures.append(f"{case.method} {case.path}: {case.as_curl_command()}: {answer.text}")


def test_no_route_fails_whatever_it_is_sent(fuzzed: CoreProcess) -> None:
    """Calls made from the description, about entities that exist and ones that do not."""
    import schemathesis

    schema = schemathesis.openapi.from_url(f"{fuzzed.http}/api/openapi.json")
    attack, tried = Attack(fuzzed), 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.method.upper() == "GET" and "/v1/" in operation.path and operation.path.endswith(WAITS):
            continue
        if operation.path in ENDS_THE_LOGIN or operation.path == "/api/events":  # a stream that does not end
            continue
        attack.run(operation)
        tried += 1
    assert not attack.failures, "\n".join(attack.failures[:10])
    assert not attack.is_late, "not all were tried in time"
    assert tried > 90 and sum(attack.statuses.values()) > 300 and attack.statuses[200] > 50, attack.statuses
    headers = {"X-Authorization": f"Bearer {fuzzed.jwt}"}
    assert requests.get(f"{fuzzed.http}/api/auth/user", headers=headers, timeout=5).status_code == 200
    log = fuzzed.log.read_text()
    assert "A REST call failed" not in log and "Unhandled" not in log, log[-3000:]
