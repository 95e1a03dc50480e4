"""A commit whose answer is lost may be durable: what it has changed takes effect although nobody was told."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from cloud_core.core.admin import AdminApi
from cloud_core.core.downlinks import Ending
from cloud_core.core.nodes.standing import Standing
from cloud_core.storage.sql import OutcomeUnknown
from shared.credentials import AccessToken
from shared.errors import Unavailable
from tests.support.api import ApiUnderTest
from tests.support.nodes import Session
from tests.support.rest import ADMINISTRATOR
from tests.support.stores import StoreUnderTest


def lose_the_next_answer(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    store.run(lambda tx: None)  # the lane has its connection by now
    tx: Any = store.store._writer._tx
    commit = tx._commit

    def lost() -> None:
        commit()
        monkeypatch.setattr(tx, "_commit", commit)
        raise OutcomeUnknown

    monkeypatch.setattr(tx, "_commit", lost)


def test_credentials_that_were_replaced_let_nobody_in(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator was told to try again; the token is gone all the same, from memory too, and its session ends."""
    under: Any = ApiUnderTest(store)
    admin = AdminApi(store=store.store, api=under.api, jwt_key=b"k" * 64)
    device_id = store.add_device("one", store.add_profile(), AccessToken("tok"))
    under.outcome(lambda done: under.api.authenticate_token("tok", done))
    under.outcome(lambda done: under.api.authenticate_token("tok", done))
    assert under.api.known_token("tok") is not None
    session = Session(under, device_id)
    uuid = store.read(lambda tx: tx.device_by_id(device_id)).uuid
    lose_the_next_answer(store, monkeypatch)
    answers: list[Any] = []
    Deferred.fromCoroutine(admin.save_credentials(ADMINISTRATOR, uuid, AccessToken("other"))).addBoth(answers.append)
    store.reactor.run_until(lambda: answers)
    assert isinstance(answers[0].value, Unavailable)
    for _ in range(3):
        store.run(lambda tx: None)
        store.survey(lambda tx: None)
    assert under.api.known_token("tok") is None
    assert session.endings == [Ending.CREDENTIALS_CHANGED]


@pytest.mark.parametrize(("failures", "endings"), [(1, []), (9, [Ending.CREDENTIALS_CHANGED])])
def test_sessions_outlive_the_first_look_on_a_connection_that_is_gone(
    sqlite_store: StoreUnderTest, failures: int, endings: list[Ending]
) -> None:
    """Where the database cannot be asked for good they end: nobody knows whether they may go on."""
    under: Any = ApiUnderTest(sqlite_store)
    device_id = sqlite_store.add_device("one", sqlite_store.add_profile(), AccessToken("tok"))
    under.outcome(lambda done: under.api.authenticate_token("tok", done))
    session = Session(under, device_id)
    left = [failures]

    class Failing:
        def survey(self, query: Any, args: Any, done: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                sqlite_store.store.survey(query, args, done)
            else:
                done(Unavailable())

    future_ms = under.api.now_ms() + 3_600_000
    store: Any = Failing()
    Standing(store=store, downlinks=under.api.downlinks, end=under.api.device_changed).check(future_ms)
    sqlite_store.survey(lambda tx: None)
    assert session.endings == endings
