"""What one node changes takes effect on the others: at once by the fabric, and by the database without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloud_core.core.downlinks import Ending
from cloud_core.core.nodes import changes as module
from cloud_core.model import Change, ChangeKind, PresentedCredentials, Scope
from cloud_core.storage.interface import NewDevice
from shared.credentials import AccessToken, MqttBasic
from shared.errors import NotAuthenticated
from tests.support.nodes import Cluster, Node, Session
from tests.support.rest import ADMINISTRATOR
from tests.support.stores import TENANT


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        new_database: Callable[[], str] = request.getfixturevalue("postgresql")
        return new_database()
    return f"sqlite:///{tmp_path / 'muster.db'}"


@pytest.fixture
def cluster(url: str) -> Iterator[Cluster]:
    made = Cluster(url)
    yield made
    made.close()


@pytest.fixture
def a(cluster: Cluster) -> Node:
    return cluster.nodes[0]


@pytest.fixture
def b(cluster: Cluster) -> Node:
    return cluster.nodes[1]


def ran(cluster: Cluster, coroutine: Any) -> Any:
    answers: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(answers.append)
    cluster.reactor.run_until(lambda: answers)
    if isinstance(answers[0], Failure):
        answers[0].raiseException()
    cluster.clock.advance(0)
    return answers[0]


def make(node: Node, name: str, credentials: Any = None) -> int:
    known = node.store.read(lambda tx: tx.profile_by_name(TENANT, "sensor"))
    return node.store.add_device(name, known.id if known is not None else node.store.add_profile(), credentials)


def revoke(node: Node, device_id: int, token: str = "other") -> None:
    uuid = node.store.read(lambda tx: tx.device_by_id(device_id)).uuid
    work = node.admin.save_credentials(ADMINISTRATOR, uuid, AccessToken(token))
    Deferred.fromCoroutine(work).addErrback(lambda failure: failure.raiseException())


def put(node: Node, device_id: int, **values: Any) -> None:
    node.under.outcome(lambda done: node.api.attributes.put(device_id, Scope.SHARED, values, done))


def test_a_token_that_is_revoked_opens_nothing_elsewhere_at_once(cluster: Cluster, a: Node, b: Node) -> None:
    """And the session that it has opened there ends."""
    device_id = make(a, "dev", AccessToken("tok"))
    assert b.token_is_good("tok")
    assert b.token_is_good("tok")
    session = b.session(device_id)
    revoke(a, device_id)
    cluster.settle()
    assert session.endings == [Ending.CREDENTIALS_CHANGED]
    assert b.api.known_token("tok") is None
    assert not b.token_is_good("tok")
    assert b.token_is_good("other")


def test_without_the_fabric_a_revoked_token_is_refused_from_the_next_look_on(
    cluster: Cluster, a: Node, b: Node
) -> None:
    """Promptness is lost, nothing else."""
    device_id = make(a, "dev", AccessToken("tok"))
    session = b.session(device_id)
    assert [b.token_is_good("tok") for _ in range(2)] == [True, True]  # the first login confirms it
    cluster.poll()
    cluster.hub.cut("b")
    revoke(a, device_id)
    cluster.settle()
    assert (session.endings, b.api.known_token("tok") is not None) == ([], True)
    b.api.changes.poll()
    cluster.settle()
    assert session.endings == [Ending.CREDENTIALS_CHANGED]
    assert not b.token_is_good("tok")


def test_the_fabric_that_comes_back_is_a_reason_to_look_at_once(cluster: Cluster, a: Node, b: Node) -> None:
    """What was told meanwhile has been missed."""
    device_id = make(a, "dev", AccessToken("tok"))
    session = b.session(device_id)
    cluster.hub.cut("b")
    revoke(a, device_id)
    cluster.settle()
    assert session.endings == []
    cluster.hub.heal("b")
    cluster.settle()
    assert session.endings == [Ending.CREDENTIALS_CHANGED]


def test_a_change_that_was_heard_and_read_takes_effect_once(cluster: Cluster, a: Node, b: Node) -> None:
    """A session that was opened in between stays."""
    device_id = make(a, "dev", AccessToken("tok"))
    cluster.poll()
    before = b.api.changes.applied
    revoke(a, device_id)
    cluster.settle()
    session = b.session(device_id)
    for _ in range(3):
        cluster.poll()
    assert (session.endings, b.api.changes.applied) == ([], before + 1)


def test_a_nodes_own_changes_are_not_applied_again(cluster: Cluster, a: Node) -> None:
    """The node has done with its own what there was to do."""
    device_id = make(a, "dev", AccessToken("tok"))
    before = a.api.changes.applied
    revoke(a, device_id)
    cluster.settle()
    session = a.session(device_id)
    cluster.poll()
    assert (session.endings, a.api.changes.applied) == ([], before)


def test_own_changes_that_nobody_heard_of_are_applied_like_those_of_others(
    cluster: Cluster, a: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit whose answer was lost has changed the database all the same."""
    device_id = make(a, "dev", AccessToken("tok"))
    session = a.session(device_id)
    assert [a.token_is_good("tok") for _ in range(2)] == [True, True]
    cluster.poll()
    monkeypatch.setattr(a.store.store, "_on_changes", [])
    a.store.run(lambda tx: tx.put_credentials(device_id, AccessToken("new"), now_ms=1))
    cluster.poll()
    assert session.endings == [Ending.CREDENTIALS_CHANGED]
    assert not a.token_is_good("tok")


def told(cluster: Cluster, to: str, *rows: tuple[int, int, int | None, Any]) -> None:
    cluster.nodes[0].fabric.tell(to, module.KIND, [list(row) for row in rows])
    cluster.clock.advance(0)


def insert(node: Node, number: int, device_id: int, kind: int = ChangeKind.CREDENTIALS) -> None:
    """A row as another program on the database has written it."""

    def work(tx: Any) -> None:
        tx.connection.cursor().execute(
            "INSERT INTO change (number, at_ms, node, kind, device_id)"
            f" VALUES ({number}, 1, 'z', {int(kind)}, {device_id})"
        )
        tx.writes += 1

    node.store.run(work)


def test_a_number_that_becomes_visible_behind_a_higher_one_is_applied(cluster: Cluster, a: Node, b: Node) -> None:
    """Transactions are numbered in another order than they are committed."""
    one, other = make(a, "one"), make(a, "other")
    first, second = b.session(one), b.session(other)
    base = a.store.read(lambda tx: tx.newest_change()) + 10
    insert(a, base + 2, other)
    cluster.poll()
    assert (first.endings, second.endings) == ([], [Ending.CREDENTIALS_CHANGED])
    insert(a, base + 1, one)
    cluster.poll()
    assert first.endings == [Ending.CREDENTIALS_CHANGED]
    first.open()
    cluster.poll()
    assert len(first.endings) == 1


def test_what_stands_before_thousands_of_others_is_looked_for(cluster: Cluster, a: Node, b: Node) -> None:
    """A large transaction takes many numbers, and may end behind another one."""
    one, two = make(a, "one"), make(a, "two")
    first = b.session(one)
    insert(a, a.store.read(lambda tx: tx.newest_change()) + 1, two)
    cluster.poll()
    base = a.store.read(lambda tx: tx.newest_change())
    insert(a, base + 20_001, two)
    cluster.poll()
    insert(a, base + 1, one)
    cluster.poll()
    assert first.endings == [Ending.CREDENTIALS_CHANGED]


def test_missing_numbers_that_lie_apart_are_all_looked_for(
    cluster: Cluster, a: Node, b: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of them with each look."""
    monkeypatch.setattr(module, "GAP_SPANS", 2)
    one, two = make(a, "one"), make(a, "two")
    first = b.session(one)
    base = a.store.read(lambda tx: tx.newest_change()) + 10
    for number in range(2, 12, 2):
        insert(a, base + number, two)
    cluster.poll()
    insert(a, base + 5, one)
    for _ in range(3):
        cluster.poll()
    assert first.endings == [Ending.CREDENTIALS_CHANGED]


def test_more_missing_numbers_than_can_be_remembered_are_as_if_nothing_was_heard(
    cluster: Cluster, a: Node, b: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When whoever may still have them is over, all is read anew."""
    monkeypatch.setattr(module, "MAX_GAPS", 3)
    one, two = make(a, "one"), make(a, "two")
    base = a.store.read(lambda tx: tx.newest_change()) + 10
    insert(a, base, two)
    cluster.poll()
    for number in (3, 6):
        insert(a, base + number, two)
    cluster.poll()
    forgotten: list[int] = []
    b.api.changes._forget = forgotten.append
    insert(a, base + 5, one)
    cluster.poll()
    assert forgotten == []
    cluster.pass_time(module.OPEN_MS / 1000 + 1)
    cluster.poll()
    cluster.poll()
    assert len(forgotten) == 1


def test_what_is_told_while_the_database_cannot_be_looked_at_does_not_fill_the_memory(
    cluster: Cluster, b: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is applied once more, later."""
    monkeypatch.setattr(module, "MAX_EARLY", 5)
    for number in range(100, 120):
        cluster.nodes[0].fabric.tell("b", module.KIND, [[number, int(ChangeKind.LOGIN), 1, None]])
    cluster.settle()
    assert len(b.api.changes._early) <= 5


def test_a_number_that_never_comes_is_given_up(cluster: Cluster, a: Node, b: Node) -> None:
    """Its transaction was rolled back."""
    one = make(a, "one")
    base = a.store.read(lambda tx: tx.newest_change()) + 10
    insert(a, base + 2, one)
    cluster.poll()
    assert base + 1 in b.api.changes._gaps
    cluster.pass_time(module.GAP_MS / 1000 + 1)
    cluster.poll()
    assert not b.api.changes._gaps


def test_what_is_told_and_cannot_be_read_harms_nothing(cluster: Cluster, a: Node, b: Node) -> None:
    """It stands in the database all the same."""
    session = b.session(make(a, "one"))
    a.fabric.tell("b", module.KIND, {"no": "rows"})
    a.fabric.tell("b", module.KIND, [["x"]])
    cluster.settle()
    assert session.endings == []
    revoke(a, 1)
    cluster.settle()
    assert session.endings == [Ending.CREDENTIALS_CHANGED]


def test_a_kind_of_a_newer_program_makes_logins_be_read_anew(cluster: Cluster, a: Node, b: Node) -> None:
    """Whatever it says, nothing that is remembered is believed any more."""
    make(a, "dev", AccessToken("tok"))
    assert b.token_is_good("tok")
    assert b.token_is_good("tok")
    assert b.api.known_token("tok") is not None
    told(cluster, "b", (10_000, 99, 1, None))
    assert b.api.known_token("tok") is None


def test_a_deleted_device_is_gone_everywhere(cluster: Cluster, a: Node, b: Node) -> None:
    """Its session ends, its token opens nothing, and nothing is remembered of it."""
    device_id = make(a, "dev", AccessToken("tok"))
    session = b.session(device_id)
    assert b.token_is_good("tok")
    a.store.run(lambda tx: tx.delete_device(device_id))
    cluster.settle()
    assert session.endings == [Ending.DEVICE_DELETED]
    assert not b.token_is_good("tok")


def test_a_renamed_device_comes_back_under_its_new_name(cluster: Cluster, a: Node, b: Node) -> None:
    """Sessions hold a copy of the name; another label ends nothing."""
    device_id = make(a, "dev", AccessToken("tok"))
    session = b.session(device_id)
    assert b.token_is_good("tok")
    stored = a.store.read(lambda tx: tx.device_by_id(device_id))
    a.store.run(lambda tx: tx.update_device(replace(stored, label="l")))
    cluster.settle()
    assert session.endings == []
    a.store.run(lambda tx: tx.update_device(replace(stored, name="new", version=stored.version + 1)))
    cluster.settle()
    assert session.endings == [Ending.DEVICE_CHANGED]
    identity = b.under.log_in(username="tok")
    assert identity.device_name == "new"


def test_a_first_login_that_a_change_overtakes_is_looked_up_again(
    cluster: Cluster, a: Node, b: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look-up and the commit that confirms it."""
    device_id = make(a, "dev", AccessToken("tok"))
    stored = a.store.read(lambda tx: tx.device_by_id(device_id))
    held: list[Any] = []
    identities: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(b.store.store, "submit", lambda *call: held.append(call))
        b.api.authenticate_token("tok", identities.append)
        cluster.reactor.run_until(lambda: held)
    a.store.run(lambda tx: tx.update_device(replace(stored, name="new")))
    cluster.clock.advance(0)
    b.store.store.submit(*held[0])
    cluster.reactor.run_until(lambda: identities)
    assert identities[0].device_name == "new"


def test_a_changed_profile_is_read_anew_everywhere(cluster: Cluster, a: Node, b: Node) -> None:
    """Identities have copies of its options; and servers that trust its CAs hear of it."""
    make(a, "dev", AccessToken("tok"))
    assert b.token_is_good("tok")
    assert b.token_is_good("tok")
    heard: list[bool] = []
    b.api.certificates.on_anchors_changed(lambda: heard.append(True))
    profile = a.store.read(lambda tx: tx.profile_by_name(TENANT, "sensor"))
    a.store.run(lambda tx: tx.update_profile(profile))
    cluster.settle()
    assert (b.api.known_token("tok"), heard) == (None, [True])


def test_credentials_made_elsewhere_are_not_remembered_as_absent(cluster: Cluster, a: Node, b: Node) -> None:
    """A device that logs in with a token and a client id leaves behind that no credentials have both."""
    make(a, "by token", AccessToken("tok"))
    presented = PresentedCredentials(client_id="c", username="tok", password="p", has_password=True)

    def log_in() -> Any:
        return b.under.outcome(lambda done: b.api.authenticate(presented, done))

    assert [log_in().device_name for _ in range(2)] == ["by token"] * 2
    make(a, "by password", MqttBasic("c", "tok", "p"))
    cluster.settle()
    assert log_in().device_name == "by password"


def test_a_new_token_is_never_refused_from_memory(cluster: Cluster, a: Node, b: Node) -> None:
    """New devices with tokens are told to nobody, so that provisioning costs the others nothing."""
    make(a, "by password", MqttBasic("c", "tok", "p"))
    right = PresentedCredentials(client_id="c", username="tok", password="p", has_password=True)
    for _ in range(2):
        b.under.outcome(lambda done: b.api.authenticate(right, done))
    assert not b.token_is_good("tok")
    profile_id = a.store.read(lambda tx: tx.profile_by_name(TENANT, "sensor")).id

    def new(tx: Any) -> None:
        made = NewDevice(uuid=uuid4(), tenant_id=TENANT, profile_id=profile_id, name="by token", created_ms=1)
        tx.put_credentials(tx.insert_device(made), AccessToken("tok"), now_ms=1, is_new_device=True)

    last = a.store.read(lambda tx: tx.newest_change())
    a.store.run(new)
    assert a.store.read(lambda tx: tx.newest_change()) == last
    assert b.token_is_good("tok")


# -- attributes -----------------------------------------------------------------------------------


def test_shared_attributes_reach_a_device_elsewhere(cluster: Cluster, a: Node, b: Node) -> None:
    """Written and deleted ones; a device that is nowhere costs nothing."""
    device_id = make(a, "dev")
    session = b.session(device_id)
    put(a, device_id, x=1, y="two")
    cluster.settle()
    assert session.values == [{"x": 1, "y": "two"}]
    a.under.outcome(lambda done: a.api.attributes.delete(device_id, Scope.SHARED, ["y"], done))
    cluster.settle()
    assert session.changes[-1].deleted == ("y",)


def test_shared_attributes_reach_a_device_also_when_the_message_was_lost(cluster: Cluster, a: Node, b: Node) -> None:
    """Once."""
    device_id = make(a, "dev")
    session = b.session(device_id)
    cluster.hub.cut("b")
    put(a, device_id, x=1)
    cluster.settle()
    assert session.values == []
    for _ in range(2):
        cluster.poll()
    assert session.values == [{"x": 1}]


def test_a_change_that_arrives_late_does_not_bring_back_the_older_value(cluster: Cluster, a: Node, b: Node) -> None:
    """What is passed on is what stands in the database by then."""
    device_id = make(a, "dev")
    session = b.session(device_id)
    cluster.hub.cut("b")
    put(a, device_id, x="older")
    put(b, device_id, x="newer")
    cluster.poll()
    assert session.values[-1] == {"x": "newer"}
    assert {"x": "older"} not in session.values


def test_a_value_that_is_overtaken_while_it_is_read_is_read_again(cluster: Cluster, a: Node, b: Node) -> None:
    """Two nodes that write at the same time leave the device with what the database has."""
    device_id = make(a, "dev")
    session = b.session(device_id)
    rereading = b.api.here._rereading
    put(a, device_id, x="from a")
    put(b, device_id, x="from b")  # its own news go out while that of a is still to be heard
    newest = b.store.read(lambda tx: tx.newest_change())
    cluster.settle()
    assert session.values[-1] == {"x": "from b"}
    rereading.shared(device_id, ["x"], newest + 5)
    cluster.settle()
    session.changes.clear()
    rereading.shared_here(device_id, ["x"], newest + 1)  # its news may have gone out behind the newer ones
    cluster.settle()
    assert session.values == [{"x": "from b"}]


def test_an_inactivity_timeout_counts_on_every_node(cluster: Cluster, a: Node, b: Node) -> None:
    """Set and deleted."""
    device_id = make(a, "dev")
    set_it = {"inactivityTimeout": 5_000}
    a.under.outcome(lambda done: a.api.attributes.put(device_id, Scope.SERVER, set_it, done))
    cluster.settle()
    assert b.api.presence._timeouts == {device_id: 5_000}
    a.under.outcome(lambda done: a.api.attributes.delete(device_id, Scope.SERVER, list(set_it), done))
    cluster.settle()
    assert b.api.presence._timeouts == {}


# -- people ---------------------------------------------------------------------------------------


def test_a_login_that_has_ended_is_refused_elsewhere_at_once(cluster: Cluster, a: Node, b: Node) -> None:
    """Not with the next look at the table."""
    operator = replace(ADMINISTRATOR, session=uuid4())
    token = a.admin._tokens.issue(operator, int(time.time()))["token"]
    assert b.admin.operator(token).session == operator.session
    ran(cluster, a.admin.logout(operator))
    cluster.settle()
    with pytest.raises(NotAuthenticated):
        b.admin.operator(token)


# -- away for long --------------------------------------------------------------------------------


def test_a_node_that_was_away_for_longer_than_rows_are_kept_believes_nothing(
    cluster: Cluster, a: Node, b: Node
) -> None:
    """Sessions whose credentials no longer hold end, devices hear of shared attributes, and the others stay."""
    devices = {name: make(a, name, AccessToken(f"token-{name}")) for name in ("stays", "revoked", "deleted", "news")}
    for name in [*devices, *devices]:  # the first login confirms it
        assert b.token_is_good(f"token-{name}")
    cluster.pass_time(120)
    cluster.poll()
    sessions: dict[str, Session] = {name: b.session(device_id) for name, device_id in devices.items()}
    cluster.hub.cut("b")
    cluster.pass_time(module.KEPT_MS / 1000)
    revoke(a, devices["revoked"])
    a.store.run(lambda tx: tx.delete_device(devices["deleted"]))
    put(a, devices["news"], x=1)
    cluster.settle()
    a.store.run(lambda tx: tx.trim_changes(2**62))
    b.api.changes.poll()
    cluster.settle()
    assert {name: one.endings for name, one in sessions.items()} == {
        "stays": [], "revoked": [Ending.CREDENTIALS_CHANGED], "deleted": [Ending.DEVICE_DELETED], "news": [],
    }  # fmt: skip
    assert sessions["news"].values == [{"x": 1}]
    assert b.api.known_token("token-revoked") is None


def test_old_rows_are_removed(cluster: Cluster, a: Node) -> None:
    """An hour after they were written, by the clock of whoever removes them."""
    device_id = make(a, "dev")
    put(a, device_id, x=1)
    cluster.settle()
    a.under.now_s = 4_000_000_000.0
    a.api.changes.maintain()
    cluster.settle()
    assert a.store.read(lambda tx: tx.first_change()) is None


def test_many_changes_go_in_parts(cluster: Cluster, a: Node, b: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message has a size; all of them arrive."""
    monkeypatch.setattr(module, "BYTES_TOLD", 100)
    told_parts: list[int] = []
    heard = b.fabric.by_kind[module.KIND]
    b.fabric.by_kind[module.KIND] = lambda sender, body: (told_parts.append(len(body)), heard(sender, body))[0]
    devices = [make(a, f"d{number}") for number in range(5)]
    sessions = [b.session(device_id) for device_id in devices]
    key = "k" * 60
    a.under.outcome(lambda done: a.api.attributes.put_all(devices, Scope.SHARED, {key: 1}, done))
    cluster.settle()
    assert all(one.values == [{key: 1}] for one in sessions)
    assert told_parts == [1] * 5


def test_a_node_that_starts_applies_nothing_of_before(cluster: Cluster, a: Node) -> None:
    """It remembers nothing yet; what comes from then on concerns it."""
    device_id = make(a, "dev", AccessToken("tok"))
    revoke(a, device_id, "second")
    cluster.settle()
    c = cluster.join("c")
    cluster.settle()
    session = c.session(device_id)
    cluster.poll()
    assert (session.endings, c.api.changes.applied) == ([], 0)
    revoke(a, device_id, "third")
    cluster.settle()
    assert session.endings == [Ending.CREDENTIALS_CHANGED]


def test_a_change_has_the_shape_of_its_row() -> None:
    """Kinds are numbers that stay."""
    assert [int(kind) for kind in ChangeKind] == list(range(1, 11))
    assert Change(1, "n", 1) == (1, "n", 1, None, None)
