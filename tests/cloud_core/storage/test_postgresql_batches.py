"""What a batch does together on PostgreSQL gives what its units would have given one by one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from cloud_core.core import provisioning
from cloud_core.core.authentication import confirm
from cloud_core.core.provisioning import Policy
from cloud_core.model import DevicePresence, Page, Peer, Reprovisioning, Scope, Transport
from cloud_core.storage import arrays
from cloud_core.storage.interface import TimeSeriesQuery
from cloud_core.storage.pipelined import PipelinedCursor
from shared.credentials import AccessToken
from shared.errors import DeviceAlreadyExists, PlatformError, Unavailable
from shared.payloads import ProvisionRequest
from tests.support.stores import TENANT, StoreUnderTest, open_store

PEER = Peer(Transport.MQTT, "192.0.2.1")


@pytest.fixture
def pg(postgresql: Callable[[], str]) -> Iterator[StoreUnderTest]:
    store = open_store(postgresql())
    yield store
    store.close()


def together(store: StoreUnderTest, *units: tuple[Callable[..., Any], tuple[Any, ...]]) -> list[Any]:
    """The answers of units that are certain to be in one batch: they queue up while the writer is held."""
    held, answers = threading.Event(), [None] * len(units)
    left = [len(units) + 1]

    def answer(place: int) -> Callable[[Any], None]:
        def done(outcome: Any) -> None:
            left[0] -= 1
            if place >= 0:
                answers[place] = outcome

        return done

    store.store.submit(lambda tx: held.wait(10), (), answer(-1))
    for place, (work, args) in enumerate(units):
        store.store.submit(work, args, answer(place))
    held.set()
    store.reactor.run_until(lambda: not left[0])
    return answers


def attempt(name: str, *, now_ms: int = 1_000_000, token: str = "", digest: bytes = b"d" * 16) -> Any:
    request = ProvisionRequest(
        device_name=name, provision_key="sensor-key", provision_secret="sensor-secret", token=token
    )
    return provisioning.attempt, (request, digest, PEER, now_ms, Policy(), {"deviceName": name}, "")


def outcomes(answers: list[Any]) -> list[str]:
    return [one.outcome.reason.value if isinstance(one.outcome, PlatformError) else "SUCCESS" for one in answers]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent: list[str] = []
    send = PipelinedCursor.send

    def noted(self: PipelinedCursor, sql: str, *args: Any, **options: Any) -> Any:
        sent.append(sql)
        return send(self, sql, *args, **options)

    monkeypatch.setattr(PipelinedCursor, "send", noted)
    return sent


def test_a_batch_of_attempts_costs_a_constant_number_of_statements(pg: StoreUnderTest, statements: list[str]) -> None:
    """What each asks is looked up for all, what each inserts is written for all."""
    pg.add_profile()
    together(pg, *(attempt(f"warm{number}") for number in range(100)))
    statements.clear()
    assert set(outcomes(together(pg, *(attempt(f"d{number}") for number in range(100))))) == {"SUCCESS"}
    assert len(statements) < 20
    assert pg.read(lambda tx: tx.devices(TENANT, Page(0, 1)))[1] == 200


def test_equal_names_in_one_batch_make_one_device(pg: StoreUnderTest) -> None:
    """The second is refused by its own rule, though both were looked up before either was made."""
    pg.add_profile()
    names = ["a", "b", "a", "c", "b", "a"]
    found = outcomes(together(pg, *(attempt(name) for name in names)))
    assert found == ["SUCCESS", "SUCCESS", "DEVICE_EXISTS", "SUCCESS", "DEVICE_EXISTS", "DEVICE_EXISTS"]


def test_a_lost_answer_within_one_batch_is_given_again(pg: StoreUnderTest) -> None:
    """A repeated request beside the first one is a replay of it."""
    pg.add_profile(reprovisioning=Reprovisioning.REPLAY_UNTIL_CONFIRMED)
    answers = together(pg, *(attempt(name) for name in ("a", "b", "c", "a")))
    assert answers[3].outcome.credentials == answers[0].outcome.credentials
    assert answers[3].line.outcome == "REPLAYED"


def test_a_token_that_a_neighbour_in_the_batch_has_taken_is_refused(pg: StoreUnderTest) -> None:
    """What is looked up ahead does not outlive what the batch itself writes."""
    pg.add_profile(accept_device_credentials=True)
    answers = together(pg, *(attempt(name, token="one-token-for-all-000") for name in "abc"))
    assert outcomes(answers)[0] == "SUCCESS" and "SUCCESS" not in outcomes(answers)[1:]


def test_confirmation_and_deletion_in_one_batch_keep_their_order(pg: StoreUnderTest) -> None:
    """Each unit sees what those before it have done."""
    profile_id = pg.add_profile()
    numbers = [pg.add_device(f"d{number}", profile_id) for number in range(4)]
    units = [(confirm, (number, AccessToken(f"token-d{place}"), 5)) for place, number in enumerate(numbers)]
    units.insert(2, (lambda tx: tx.delete_device(numbers[3]), ()))
    answers = together(pg, *units)
    assert [type(one).__name__ for one in answers] == ["NoneType"] * 4 + ["NotAuthenticated"]
    assert pg.read(lambda tx: [tx.credentials(one) and tx.credentials(one).confirmed_ms for one in numbers]) == [
        5, 5, 5, None,
    ]  # fmt: skip


def test_nodes_that_take_the_same_names_at_once_make_each_device_once(postgresql: Callable[[], str]) -> None:
    """The unique constraint decides, the loser is refused by its own rule, and nobody is answered UNAVAILABLE."""
    url = postgresql()
    nodes = [open_store(url) for _ in range(3)]
    nodes[0].add_profile()
    found: list[list[str]] = [[], [], []]

    def provision(number: int) -> None:
        names = [f"d{place}" for place in range(60)]
        for _ in range(number):
            names.reverse()
        for first in range(0, 60, 20):
            found[number] += outcomes(together(nodes[number], *(attempt(name) for name in names[first : first + 20])))

    threads = [threading.Thread(target=provision, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    flat = [one for each in found for one in each]
    assert (flat.count("SUCCESS"), flat.count("DEVICE_EXISTS")) == (60, 120)
    assert nodes[0].read(lambda tx: tx.devices(TENANT, Page(0, 1)))[1] == 60
    for node in nodes:
        node.close()


def test_samples_that_come_again_merge_with_the_stored_ones(pg: StoreUnderTest, statements: list[str]) -> None:
    """Many at once, by two statements more; other keys of the same timestamp are kept."""
    device_id = pg.add_device("d", pg.add_profile())
    pg.append(device_id, [(ts, {"a": ts}) for ts in range(500)])
    statements.clear()
    pg.append(device_id, [(ts, {"b": -ts} if ts % 2 else {"a": ts}) for ts in range(600)])
    assert len(statements) < 12
    query = TimeSeriesQuery(("a", "b"), 0, 1000, limit=1000, descending=False)
    found = pg.read(lambda tx: tx.history(device_id, query))
    assert [ts for ts, _ in found["a"]] == [*range(501), *range(502, 600, 2)]
    assert found["b"] == [(ts, -ts) for ts in range(1, 600, 2)]


def test_text_that_postgresql_cannot_hold_fails_nobody(pg: StoreUnderTest) -> None:
    """NUL in what a stranger sends stands in the log as the replacement character."""
    pg.add_profile()
    request = ProvisionRequest(device_name="x\0y", provision_key="sensor-key", provision_secret="sensor-secret")
    odd = (provisioning.attempt, (request, b"d" * 16, PEER, 1, Policy(), {"deviceName": "x\0y"}, ""))
    answers = together(pg, attempt("a"), odd, attempt("b"), attempt("c"))
    assert [outcomes(answers)[place] for place in (0, 2, 3)] == ["SUCCESS"] * 3
    lines = pg.read(lambda tx: tx.attempts(10))
    assert "x\ufffdy" in [line.device_name for line in lines]


def test_attributes_written_twice_in_a_batch_have_the_last_value(pg: StoreUnderTest) -> None:
    """One row each, whatever order they are written in."""
    device_id = pg.add_device("d", pg.add_profile())
    work = [(lambda tx, n: tx.put_attributes(device_id, Scope.CLIENT, {"k": n}, now_ms=n), (n,)) for n in range(5)]
    together(pg, *work, (lambda tx: tx.delete_attributes(device_id, Scope.CLIENT, ["k"]), ()))
    assert pg.read(lambda tx: tx.attribute(device_id, Scope.CLIENT, "k")) is None
    together(pg, *work)
    assert pg.read(lambda tx: tx.attribute(device_id, Scope.CLIENT, "k")) == 4


def test_presence_is_written_for_many_devices_at_once(pg: StoreUnderTest) -> None:
    """Times of 0 leave the stored ones, devices that are gone get none."""
    profile_id = pg.add_profile()
    one, two = pg.add_device("one", profile_id), pg.add_device("two", profile_id)
    pg.run(lambda tx: tx.put_presence([presence(two, 7), presence(one, 6), presence(99_999, 5)]))
    pg.run(lambda tx: tx.put_presence([presence(one, 0)]))
    assert pg.read(lambda tx: [tx.presence(number) for number in (one, two, 99_999)]) == [
        presence(one, 6), presence(two, 7), None,
    ]  # fmt: skip


def presence(device_id: int, at_ms: int) -> DevicePresence:
    return DevicePresence(
        device_id=device_id, is_active=True, last_connect_ms=at_ms, last_disconnect_ms=0, last_activity_ms=0,
        inactivity_alarm_ms=0,
    )  # fmt: skip


def test_look_ups_of_one_moment_are_one_statement(pg: StoreUnderTest, statements: list[str]) -> None:
    """Logins of many devices that connect at once; those of nobody are None."""
    profile_id = pg.add_profile()
    for number in range(10):
        pg.add_device(f"d{number}", profile_id)
    held, answers = threading.Event(), []  # type: ignore[var-annotated]
    pg.store.read(lambda tx: held.wait(10), (), lambda outcome: None)
    for number in range(12):
        pg.store.read(lambda tx, token: tx.logins([token]), ([f"token-d{number}"]), answers.append)
    statements.clear()
    held.set()
    pg.reactor.run_until(lambda: len(answers) == 12)
    assert [one[0] is not None for one in answers] == [True] * 10 + [False] * 2
    assert len([sql for sql in statements if "credentials" in sql]) == 1


@pytest.mark.parametrize(
    ("packed", "values"),
    [
        (arrays.bigints, [0, 1, -1, 2**63 - 1, -(2**63)]), (arrays.bigints, [5, None, -5]), (arrays.bigints, []),
        (arrays.byteas, [b"", b"\0x", None]), (arrays.texts, ["", "ü€😀", None]),
        (arrays.booleans, [True, False, None]),
    ],
)  # fmt: skip
def test_arrays_arrive_as_they_were_given(pg: StoreUnderTest, packed: Any, values: list[Any]) -> None:
    """Packed here, unpacked by the server."""

    def sent(tx: Any) -> Any:
        tx.cursor.execute("SELECT %s", (packed(values),))
        return tx.cursor.fetchone()[0]

    assert pg.read(sent) == values


def test_a_decision_that_fails_in_the_database_fails_alone(pg: StoreUnderTest) -> None:
    """Its error surfaces with others' statements behind it, and the batch is replayed without it."""
    pg.add_profile()

    def broken(tx: Any) -> None:
        tx.writes += 1
        tx.cursor.execute("INSERT INTO device (id) VALUES (1)")

    answers = together(pg, attempt("a"), (broken, ()), attempt("b"), attempt("c"))
    assert type(answers[1]).__name__ == "Unavailable"
    assert [one.line.outcome for one in (answers[0], answers[2], answers[3])] == ["SUCCESS"] * 3


def test_a_cursor_gives_each_answer_to_who_asked(postgresql: Callable[[], str]) -> None:
    """Also behind statements whose answers nobody has read, and after an error."""
    with psycopg.connect(postgresql().replace("+psycopg", ""), autocommit=True) as connection:
        cursor = PipelinedCursor(connection)
        for number in range(5):
            cursor.execute("SELECT %s::bigint", (number,))
        assert cursor.fetchall() == [(4,)]
        cursor.execute("BEGIN")
        with pytest.raises(psycopg.Error):
            cursor.execute("SELECT 1 / 0")
            cursor.execute("SELECT 5")
            cursor.fetchall()
        cursor.roll_back()
        cursor.execute("SELECT 6")
        assert cursor.fetchone() == (6,)
        cursor.close()


def test_a_name_is_taken_whoever_made_the_device(pg: StoreUnderTest) -> None:
    """Devices of before the batch are found by the look-up ahead."""
    profile_id = pg.add_profile()
    pg.add_device("old", profile_id)
    found = together(pg, *(attempt(name) for name in ("new", "old", "newer", "newest")))
    assert isinstance(found[1].outcome, DeviceAlreadyExists)
    assert outcomes(found) == ["SUCCESS", "DEVICE_EXISTS", "SUCCESS", "SUCCESS"]


def test_a_transaction_that_has_failed_is_never_taken_for_committed(pg: StoreUnderTest) -> None:
    """Whoever has caught its error: the server answers COMMIT with ROLLBACK then, and no error."""

    def catches(tx: Any) -> None:
        tx.writes += 1
        tx.cursor.execute("SELECT 1 / 0")
        with contextlib.suppress(psycopg.Error):
            tx.cursor.sync()

    with pytest.raises(Unavailable):
        pg.run(catches)
    assert pg.add_profile() > 0


def test_what_was_to_be_prepared_behind_an_error_is_prepared_again(postgresql: Callable[[], str]) -> None:
    """The server never saw it: after the rollback the next execution must not ask for it by name."""
    cursor = PipelinedCursor(psycopg.connect(postgresql().replace("+psycopg", ""), autocommit=True))
    for _ in range(3):
        cursor.send("BEGIN")
        with pytest.raises(psycopg.errors.DivisionByZero):  # whoever comes behind it hears of it, early or late
            cursor.send("SELECT 1 / (%s::bigint - 1)", (1,), prepare=True)
            cursor.send("SELECT %s::bigint + 41", (1,), prepare=True)
            cursor.sync()
        cursor.roll_back()
        cursor.send("BEGIN")
        cursor.send("SELECT %s::bigint + 41", (1,), prepare=True)
        assert cursor.fetchone() == (42,)
        cursor.end()
    cursor.close()
