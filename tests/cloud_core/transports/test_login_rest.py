"""Guessing administrators' passwords over REST."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from cloud_core.core.limits import AttemptRations, Ration
from cloud_core.core.people import login_admin
from cloud_core.core.people.login_admin import MAX_LOGINS
from tests.support.rest import Rest, without_threads
from tests.support.stores import StoreUnderTest

USER = {"email": "u@x", "authority": "TENANT_ADMIN", "password": "pass-word"}
RIGHT, WRONG = {"username": "u@x", "password": "pass-word"}, {"username": "u@x", "password": "guess"}


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    without_threads(monkeypatch)
    rations = AttemptRations(per_source_and_key=Ration(3, 5.0), per_source=Ration(5, 1.0))
    peer = Rest(sqlite_store, rations=rations)
    peer.made("/api/user", USER)
    yield peer
    peer.close()


def log_in(rest: Rest, body: dict[str, Any]) -> int:
    status, _ = rest.call("POST", "/api/auth/login", body, by="")
    return status


def test_failed_logins_are_rationed(rest: Rest) -> None:
    """After some failures even the right password has to wait; time brings it back."""
    assert [log_in(rest, WRONG) for _ in range(4)] == [401, 401, 401, 429]
    assert log_in(rest, RIGHT) == 429
    rest.api.now_s += 6.0
    assert log_in(rest, RIGHT) == 200


def test_trying_many_names_is_rationed_too(rest: Rest) -> None:
    """A source has a ration over all user names."""
    assert [log_in(rest, {"username": f"n{n}", "password": "x"}) for n in range(6)] == [401] * 5 + [429]


def test_logins_that_succeed_cost_nothing(rest: Rest) -> None:
    """A client that logs in with each start is never made to wait."""
    assert {log_in(rest, RIGHT) for _ in range(8)} == {200}


def test_a_waiting_login_says_how_long(rest: Rest) -> None:
    """As every 429, with Retry-After."""
    for _ in range(3):
        log_in(rest, WRONG)
    status, headers, _ = rest.post("/api/auth/login", b'{"username":"u@x","password":"guess"}')
    assert (status, headers["retry-after"]) == (429, "5")


def test_no_more_passwords_are_compared_at_once_than_there_is_room_for(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is told to come again, and is served once the others are through."""
    busy: list[Deferred[bool]] = []

    def later(work: Any, *args: Any) -> Deferred[bool]:
        busy.append(Deferred())
        return busy[-1]

    peers = [rest.another_caller() for _ in range(MAX_LOGINS)]
    with monkeypatch.context() as slow:
        slow.setattr(login_admin, "deferToThread", later)
        body = b'{"username":"u@x","password":"pass-word"}'
        for peer in peers:
            peer.send(b"POST /api/auth/login HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            peer.settle()
        assert log_in(rest, RIGHT) == 503
    for one in busy:
        one.callback(True)
    assert [peer.responses()[0][0] for peer in peers] == [200] * MAX_LOGINS
    assert log_in(rest, RIGHT) == 200
