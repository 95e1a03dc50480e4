"""Work that nodes share: commands that wait, presence, imports, and what one does for all."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from cloud_core.core import packages as package_module
from cloud_core.core.bulk import imports as imports_module
from cloud_core.core.bulk.imports import ImportOptions
from cloud_core.core.bulk.reading import Format
from cloud_core.core.bulk.worker import LEASE_S
from cloud_core.core.people import users
from cloud_core.core.rpc import decisions
from cloud_core.core.rpc.commands import ServerRpc
from cloud_core.core.rpc.options import SubmitStrategy
from cloud_core.model import DevicePresence, Package, PersistentCommand, RpcStatus, Scope, User
from cloud_core.storage.interface.batches import Batch, BatchState
from shared.credentials import AccessToken
from shared.errors import InvalidArgument, NotFound
from shared.messages import PackageKind
from tests.support.nodes import Cluster, Node, rpc_options
from tests.support.rest import ADMINISTRATOR
from tests.support.stores import TENANT, open_store

ACK_TIMEOUT_S = 10.0


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        new_database: Callable[[], str] = request.getfixturevalue("postgresql")
        return new_database()
    return f"sqlite:///{tmp_path / 'muster.db'}"


@pytest.fixture
def cluster(request: pytest.FixtureRequest, url: str) -> Iterator[Cluster]:
    strategy = getattr(request, "param", SubmitStrategy.BURST)
    made = Cluster(url, **rpc_options(submit_strategy=strategy, ack_timeout_s=ACK_TIMEOUT_S), inactivity_s=600.0)
    yield made
    made.close()


@pytest.fixture
def a(cluster: Cluster) -> Node:
    return cluster.nodes[0]


@pytest.fixture
def b(cluster: Cluster) -> Node:
    return cluster.nodes[1]


@pytest.fixture
def device_id(cluster: Cluster) -> int:
    store = cluster.nodes[0].store
    return store.add_device("dev", store.add_profile(), AccessToken("tok"))


def queue(cluster: Cluster, node: Node, device_id: int, method: str, *, is_oneway: bool = True) -> UUID:
    command = ServerRpc(
        method=method, params=None, is_oneway=is_oneway, is_persistent=True, retries=3,
        expires_ms=int(cluster.now_s * 1000) + 3_600_000,
    )  # fmt: skip
    uuid: UUID = node.under.outcome(lambda done: node.api.rpc.send(TENANT, device_id, command, done))
    cluster.settle()
    return uuid


def status(node: Node, uuid: UUID) -> RpcStatus:
    stored: RpcStatus = node.store.read(lambda tx: tx.command(TENANT, uuid)).status
    return stored


# -- commands -------------------------------------------------------------------------------------


def test_a_command_that_waits_reaches_a_device_elsewhere(cluster: Cluster, a: Node, b: Node, device_id: int) -> None:
    """Without the fabric with the next look at the table."""
    session = b.session(device_id)
    uuid = queue(cluster, a, device_id, "one")
    assert session.methods == ["one"]
    session.deliveries[0].delivered()
    cluster.settle()
    assert status(a, uuid) is RpcStatus.SUCCESSFUL
    cluster.hub.cut("b")
    queue(cluster, a, device_id, "two")
    assert session.methods == ["one"]
    cluster.poll()
    assert session.methods == ["one", "two"]


def test_two_nodes_never_send_one_command_at_the_same_time(cluster: Cluster, a: Node, b: Node, device_id: int) -> None:
    """The other one may when nothing was heard of it for as long as an acknowledgement may take."""
    sessions = [node.session(device_id) for node in (a, b)]
    uuid = queue(cluster, a, device_id, "one")
    assert sorted(method for one in sessions for method in one.methods) == ["one"]
    first = next(one for one in sessions if one.methods)
    second = next(one for one in sessions if not one.methods)
    cluster.pass_time(ACK_TIMEOUT_S / 2)
    cluster.poll()
    assert second.methods == []
    first.deliveries[0].delivered()
    cluster.settle()
    cluster.pass_time(ACK_TIMEOUT_S * 2)
    assert (status(a, uuid), second.methods) == (RpcStatus.SUCCESSFUL, [])


@pytest.mark.parametrize("late", ["returned", "unacknowledged"])
def test_what_became_of_an_attempt_here_says_nothing_of_a_later_one_elsewhere(
    cluster: Cluster, a: Node, b: Node, device_id: int, late: str
) -> None:
    """A node that did not hear that it has recorded its own says so again."""
    first = a.session(device_id)
    uuid = queue(cluster, a, device_id, "one", is_oneway=False)
    number = a.store.read(lambda tx: tx.command(TENANT, uuid)).id
    first.close()
    a.store.run(lambda tx: decisions.advance(tx, (number,), decisions.RpcEvent.RETURNED))
    second = b.session(device_id)
    cluster.settle()
    cluster.poll()
    assert second.methods == ["one"]
    if late == "returned":
        a.store.run(lambda tx: decisions.advance(tx, (number,), decisions.RpcEvent.RETURNED))
    else:
        a.store.run(lambda tx: decisions.unacknowledged(tx, number))
    second.deliveries[0].delivered()
    cluster.settle()
    cluster.poll()
    assert (status(a, uuid), second.methods) == (RpcStatus.DELIVERED, ["one"])


def test_what_a_dead_node_has_sent_is_sent_again_when_its_time_is_over(
    cluster: Cluster, a: Node, b: Node, device_id: int
) -> None:
    """Nobody can say whether the device has it."""
    a.session(device_id)
    queue(cluster, a, device_id, "one")
    cluster.die(a)
    session = b.session(device_id)
    cluster.settle()
    assert session.methods == []
    cluster.pass_time(ACK_TIMEOUT_S + 0.1)
    assert session.methods == ["one"]


def test_a_command_that_comes_back_goes_where_the_device_is_now(
    cluster: Cluster, a: Node, b: Node, device_id: int
) -> None:
    """At once: the node that lost the connection lets go of it."""
    former = a.session(device_id)
    queue(cluster, a, device_id, "one")
    session = b.session(device_id)
    cluster.settle()
    assert session.methods == []
    former.close()
    former.deliveries[0].failed()
    cluster.settle()
    assert session.methods == ["one"]


@pytest.mark.parametrize("cluster", [SubmitStrategy.SEQUENTIAL_ON_RESPONSE_FROM_DEVICE], indirect=True)
def test_an_answer_that_comes_in_elsewhere_lets_the_next_command_go(
    cluster: Cluster, a: Node, b: Node, device_id: int
) -> None:
    """Devices may answer over HTTP, at any node."""
    session = a.session(device_id)
    for method in ("one", "two"):
        queue(cluster, a, device_id, method, is_oneway=False)
    assert session.methods == ["one"]
    session.deliveries[0].delivered()
    cluster.settle()
    b.under.outcome(lambda done: b.api.rpc.reply_of(device_id, session.commands[0].number, "yes", done))
    cluster.settle()
    assert session.methods == ["one", "two"]


def test_who_was_away_reads_anew_what_waits(cluster: Cluster, a: Node, b: Node, device_id: int) -> None:
    """Also what it could not hear of any more."""
    session = b.session(device_id)
    cluster.hub.cut("b")
    queue(cluster, a, device_id, "one")
    a.store.run(lambda tx: tx.trim_changes(2**62))
    cluster.hub.heal("b")
    cluster.settle()
    assert session.methods == ["one"]


# -- presence -------------------------------------------------------------------------------------


def flush(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.api.presence.flush()
    cluster.settle()


def check(cluster: Cluster, *nodes: Node) -> None:
    for node in nodes or cluster.nodes:
        node.api.presence.check()
    cluster.settle()
    flush(cluster)


def shown(node: Node, device_id: int) -> DevicePresence:
    found: DevicePresence = node.store.read(lambda tx: tx.presence(device_id))
    return found


def test_a_node_that_hears_nothing_leaves_the_devices_of_others_active(
    cluster: Cluster, a: Node, b: Node, device_id: int
) -> None:
    """Also where it has heard of the device itself, once, and where it starts."""
    a.api.presence.seen(device_id)
    flush(cluster)
    for _ in range(3):
        cluster.pass_time(300)
        b.api.presence.seen(device_id)
        flush(cluster)
    c = cluster.join("c")
    cluster.settle()
    check(cluster, a, c)
    assert shown(a, device_id).is_active
    assert shown(a, device_id).inactivity_alarm_ms == 0
    cluster.pass_time(601)
    check(cluster)
    assert not shown(a, device_id).is_active
    assert shown(a, device_id).inactivity_alarm_ms == int(cluster.now_s * 1000)


def test_devices_of_a_dead_node_become_inactive_and_nobody_invents_when_they_left(
    cluster: Cluster, a: Node, b: Node, device_id: int
) -> None:
    """Nobody has seen them leave."""
    a.api.presence.connected(device_id)
    flush(cluster)
    cluster.die(a)
    cluster.pass_time(300)
    check(cluster)
    assert shown(b, device_id).is_active
    cluster.pass_time(400)
    check(cluster)
    assert not shown(b, device_id).is_active
    assert shown(b, device_id).last_disconnect_ms == 0


def test_devices_of_a_dead_node_count_by_their_own_timeouts(cluster: Cluster, a: Node, b: Node, device_id: int) -> None:
    """Shorter or longer than that of the installation."""
    store = a.store
    other = store.add_device("other", store.read(lambda tx: tx.profile_by_name(TENANT, "sensor")).id)
    for one, timeout_ms in ((device_id, 100_000), (other, 1_000_000)):
        values = {"inactivityTimeout": timeout_ms}
        a.under.outcome(lambda done, one=one, v=values: a.api.attributes.put(one, Scope.SERVER, v, done))
        a.api.presence.seen(one)
    flush(cluster)
    cluster.die(a)
    active = []
    for seconds in (60, 60, 600, 400):
        cluster.pass_time(seconds)
        check(cluster)
        active.append([shown(b, one).is_active for one in (device_id, other)])
    assert active == [[True, True], [False, True], [False, True], [False, False]]


def test_a_device_that_moves_keeps_the_later_times(cluster: Cluster, a: Node, b: Node, device_id: int) -> None:
    """Whichever node writes last."""
    a.api.presence.connected(device_id)
    flush(cluster)
    a.api.presence.seen(device_id)
    late_ms = int(cluster.now_s * 1000)
    cluster.pass_time(60)
    b.api.presence.connected(device_id)
    b.api.presence.flush()
    cluster.settle()
    a.store.run(
        lambda tx: tx.put_presence([DevicePresence(device_id=device_id, is_active=True, last_activity_ms=late_ms)])
    )
    assert shown(a, device_id).last_activity_ms == int(cluster.now_s * 1000)


def test_a_disconnect_says_nothing_of_activity_elsewhere(cluster: Cluster, a: Node, b: Node, device_id: int) -> None:
    """The node that it left may long have held it for silent."""
    a.api.presence.connected(device_id)
    flush(cluster)
    cluster.pass_time(700)
    check(cluster, a)
    b.api.presence.seen(device_id)
    flush(cluster)
    a.api.presence.disconnected(device_id)
    flush(cluster)
    assert shown(a, device_id).is_active
    assert shown(a, device_id).last_disconnect_ms == int(cluster.now_s * 1000)


# -- imports --------------------------------------------------------------------------------------

ROWS = 170
CONTENT = "name,type\n" + "".join(f"d{number},sensor\n" for number in range(ROWS))


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports_module, "deferToThread", lambda work, *args: succeed(work(*args)))


def begun(cluster: Cluster, coroutine: Any) -> list[Any]:
    """Its outcome, when there is one."""
    answers: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(answers.append)
    return answers


def outcome(cluster: Cluster, answers: list[Any]) -> Any:
    cluster.reactor.run_until(lambda: answers)
    if isinstance(answers[0], Failure):
        answers[0].raiseException()
    return answers[0]


def send(cluster: Cluster, node: Node, *, is_waited_for: bool = False) -> list[Any]:
    data, options = io.BytesIO(CONTENT.encode()), ImportOptions(format=Format(kind="csv"))
    imports = node.admin.imports
    receive = imports.receive_and_wait if is_waited_for else imports.receive
    return begun(cluster, receive(ADMINISTRATOR, data, options))


def stored(node: Node, batch: Batch) -> Batch:
    found: Batch = node.store.read(lambda tx: tx.batch(TENANT, batch.uuid))
    return found


def count(node: Node) -> int:
    return int(node.store.read(lambda tx: tx.device_count(TENANT)))


@pytest.mark.usefixtures("without_threads")
def test_an_import_is_applied_once_by_two_nodes(cluster: Cluster, a: Node, b: Node) -> None:
    """One has it; the other looks at its end."""
    batch = outcome(cluster, send(cluster, a))
    for _ in range(200):
        for node in (a, b):
            node.admin.imports.worker.wake()
        for node in (a, b):
            node.store.run(lambda tx: None)
        if stored(a, batch).state is BatchState.APPLIED:
            break
    assert stored(a, batch).state is BatchState.APPLIED
    assert (count(a), stored(a, batch).counts["CREATED"]) == (ROWS, ROWS)
    assert a.store.run(lambda tx: tx.take_lease(f"import {batch.id}", now_ms=0, for_ms=1))


@pytest.mark.usefixtures("without_threads")
def test_an_import_of_a_dead_node_is_taken_up_when_its_lease_is_over(cluster: Cluster, a: Node, b: Node) -> None:
    """By another one, where it stopped."""
    batch = outcome(cluster, send(cluster, a))
    while not count(a):
        a.store.run(lambda tx: None)
    a.admin.imports.worker._is_stopped = True  # it does nothing more, and says nothing
    a.store.run(lambda tx: None)
    done = count(a)
    assert 0 < done < ROWS
    cluster.die(a)
    b.admin.imports.worker.wake()
    cluster.settle()
    assert count(b) == done
    cluster.pass_time(LEASE_S + 0.1)
    while stored(b, batch).state is not BatchState.APPLIED:
        b.store.run(lambda tx: None)
    assert (count(b), stored(b, batch).counts["CREATED"]) == (ROWS, ROWS)


@pytest.mark.usefixtures("without_threads")
def test_whoever_waits_for_an_import_hears_of_an_end_elsewhere(cluster: Cluster, a: Node, b: Node) -> None:
    """The node that has received it need not be the one that applies it."""
    a.admin.imports.worker._is_running = True  # so that the other one has it
    answers = send(cluster, a, is_waited_for=True)
    while b.store.read(lambda tx: tx.batches_under_way()) == []:
        a.store.run(lambda tx: None)
    b.admin.imports.worker.wake()
    while count(b) < ROWS:
        b.store.run(lambda tx: None)
        a.admin.imports.worker._is_running = False
        a.admin.imports.worker.wake()
    cluster.settle()
    for _ in range(3):
        cluster.pass_time(3)
    ended = outcome(cluster, answers)
    assert (ended.state, count(a)) == (BatchState.APPLIED, ROWS)


# -- one for all ----------------------------------------------------------------------------------


def test_maintenance_is_done_by_one_node_until_it_is_gone(cluster: Cluster, a: Node, b: Node) -> None:
    """One that stops gives it back; another one takes it when a dead one's time is over."""
    done: list[str] = []

    def all_try() -> None:
        for node in cluster.nodes:  # one behind the other
            node.api.leases.having("maintenance", 90, lambda node=node: done.append(node.name))  # type: ignore[misc]
            cluster.settle()

    all_try()
    cluster.pass_time(60)
    all_try()
    assert done == ["a", "a"]
    a.api.leases.release()
    cluster.settle()
    cluster.nodes.reverse()
    all_try()
    assert done[2:] == ["b"]
    cluster.die(b)
    cluster.pass_time(60)
    all_try()
    assert len(done) == 3
    cluster.pass_time(31)
    all_try()
    assert done[3:] == ["a"]


def test_the_end_of_certificates_is_warned_of_by_one_node(
    cluster: Cluster, a: Node, b: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each speaks of its own certificate besides."""
    asked: list[tuple[str, bool]] = []
    for node in (a, b):
        node.admin.authorities.server_certificates = lambda: []
        monkeypatch.setattr(
            node.store.store, "survey", lambda _, args, done, name=node.name: asked.append((name, args[3]))
        )
        node.admin.authorities.warn_of_expiry()
        node.store.run(lambda tx: None)
    assert asked == [("a", True), ("b", False)]


def package(node: Node) -> Package:
    profile = node.store.read(lambda tx: tx.profile_by_name(TENANT, "sensor"))
    wanted = Package(
        id=0, uuid=package_module.NIL_PACKAGE, tenant_id=TENANT, profile_id=0, profile_uuid=profile.uuid,
        kind=PackageKind.FIRMWARE, title="t", version="1", created_ms=0,
    )  # fmt: skip
    made: Package = node.under.outcome(lambda done: node.api.packages.save_info(TENANT, wanted, done))
    return made


def test_two_nodes_never_mix_the_blocks_of_two_uploads(cluster: Cluster, a: Node, b: Node, device_id: int) -> None:
    """Who comes second is refused; who was too slow has lost its place."""
    one = package(a)
    now_ms = int(cluster.now_s * 1000)
    a.store.run(package_module._begin_upload, one.uuid, now_ms)
    a.store.run(package_module._put_blocks, one, 0, b"a" * 10, now_ms)
    with pytest.raises(InvalidArgument):
        b.store.run(package_module._begin_upload, one.uuid, now_ms)
    later_ms = now_ms + package_module.UPLOAD_MS
    b.store.run(package_module._begin_upload, one.uuid, later_ms)
    with pytest.raises(NotFound):
        a.store.run(package_module._put_blocks, one, 1, b"a" * 10, later_ms)
    b.store.run(package_module._put_blocks, one, 0, b"b" * 10, later_ms)


def test_a_rollout_is_gone_on_with_by_one_node(cluster: Cluster, a: Node, b: Node, device_id: int) -> None:
    """While another is at it nothing is done twice."""
    a.store.run(lambda tx: tx.take_lease(package_module.ROLL_OUT, now_ms=int(cluster.now_s * 1000), for_ms=1_000))
    assert b.store.run(package_module._roll_out, int(cluster.now_s * 1000)) is None
    assert b.store.run(package_module._roll_out, int(cluster.now_s * 1000) + 1_000) is None
    assert a.store.run(lambda tx: tx.take_lease(package_module.ROLL_OUT, now_ms=0, for_ms=1))  # it was given back


def test_uses_of_secrets_are_added_up_over_nodes(cluster: Cluster, a: Node, b: Node, device_id: int) -> None:
    """What each has counted."""
    profile_id = a.store.read(lambda tx: tx.profile_by_name(TENANT, "sensor")).id
    for node in (a, b, b):
        node.api.adoption.used(profile_id, "secret", 5)
    for node in (a, b):
        node.api.adoption.flush()
    cluster.settle()
    [use] = a.store.read(lambda tx: tx.secret_uses(profile_id)).values()
    assert use.attempts == 3


def test_nodes_that_take_at_the_same_moment_take_each_command_once(url: str) -> None:
    """Whoever decides about a command is the only one at that time."""
    stores = [open_store(url, name) for name in "ab"]
    device_id = stores[0].add_device("dev", stores[0].add_profile())
    taken: list[list[int]] = [[], []]
    barrier = threading.Barrier(2)

    def insert(tx: Any, number: int) -> None:
        command = PersistentCommand(
            id=0, uuid=uuid4(), tenant_id=TENANT, device_id=device_id, created_ms=1, expires_ms=10**13, is_oneway=True,
            method=f"m{number}", params=None,
        )  # fmt: skip
        tx.insert_command(command)

    def take(who: int) -> None:
        for number in range(40):
            if who == 0:
                stores[0].run(insert, number)
            barrier.wait(20)
            args = (device_id, frozenset[int](), 5, SubmitStrategy.BURST, 1_000, 60_000)
            taken[who] += [one.id for one in stores[who].run(decisions.take, *args).commands]
            barrier.wait(20)
            if who == 0:
                stores[0].run(lambda tx: [tx.delete_command(one.id) for one in tx.open_commands(device_id)])

    threads = [threading.Thread(target=take, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for store in stores:
        store.close()
    assert len(taken[0]) + len(taken[1]) == 40
    assert not set(taken[0]) & set(taken[1])


def test_two_nodes_that_each_delete_an_administrator_leave_one(url: str) -> None:
    """The check holds over all nodes."""
    stores = [open_store(url, name) for name in "ab"]
    barrier = threading.Barrier(2)
    refused: list[Any] = []

    def user(name: str) -> User:
        return User(
            id=0, uuid=uuid4(), tenant_id=TENANT, username=name, password_hash="h", authority="TENANT_ADMIN",
            created_ms=1,
        )  # fmt: skip

    pairs = [[user(f"{number}-{who}@x.org") for who in range(2)] for number in range(15)]

    def delete(who: int) -> None:
        for pair in pairs:
            if who == 0:
                stores[0].run(lambda tx, pair=pair: [tx.insert_user(one) for one in pair])
            barrier.wait(20)
            try:
                stores[who].run(users.delete_user, TENANT, pair[who].uuid, 1)
            except InvalidArgument as error:
                refused.append(error)
            barrier.wait(20)
            if who == 0:  # the one that is left makes room for the next pair
                stores[0].run(lambda tx: [tx.delete_user(one.id) for one in tx.all_users(TENANT)])

    threads = [threading.Thread(target=delete, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for store in stores:
        store.close()
    assert len(refused) == len(pairs)
