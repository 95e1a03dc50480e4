"""What NATS adds: servers that go and come, logins, strangers, limits."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.logger import capturedLogs

from cloud_core.fabric import membership, nats
from cloud_core.fabric.messages import VERSION, opened
from cloud_core.fabric.nats import NatsFabric
from tests.support.asyncio_tests import asyncio_test, eventually, waited_for
from tests.support.clusters import BEAT_S, GONE_AFTER_S, Hearing, NatsCluster, acquainted
from tests.support.nats_servers import NatsServer, RawClient, free_port
from tests.support.pki import SERVER, Pki

NewServer = Callable[..., NatsServer]
LONG_S = 60.0
SLOW = {"beat_s": 0.3, "gone_after_s": 5.0}  # no other program of this machine shall look like standing still


@pytest.fixture
def cluster(nats_server: NatsServer) -> Iterator[NatsCluster]:
    made = NatsCluster(nats_server.port)
    yield made
    waited_for(made.close())


@pytest.fixture
def cluster_on() -> Iterator[Callable[[NatsServer], NatsCluster]]:
    """Clusters on servers of the test."""
    made: list[NatsCluster] = []

    def make(server: NatsServer) -> NatsCluster:
        made.append(NatsCluster(server.port))
        return made[-1]

    yield make
    for one in made:
        waited_for(one.close())


def said(events: list[Any]) -> str:
    """All that was logged, with everything that belongs to it."""
    return " ".join(f"{event.get('log_format')} {event!r}" for event in events)


# -- who lives ----------------------------------------------------------------------------------------------------


@asyncio_test
async def test_a_goodbye_is_heard_at_once(cluster: NatsCluster) -> None:
    """Long before silence would tell, and behind all that was told before it."""
    one = await cluster.join("one", gone_after_s=LONG_S)
    two = await cluster.join("two", gone_after_s=LONG_S)
    first = Hearing(one)
    await acquainted(one, two)
    two.tell_all("news", "last")
    await cluster.leave(two)
    await eventually(lambda: first.left == ["two"])
    assert first.bodies == ["last"] and two.is_away and not two.others


@asyncio_test
async def test_nodes_know_each_other_before_the_next_beat(cluster: NatsCluster) -> None:
    """One that joins introduces itself and is answered."""
    one = await cluster.join("one", beat_s=LONG_S, gone_after_s=2 * LONG_S)
    two = await cluster.join("two", beat_s=LONG_S, gone_after_s=2 * LONG_S)
    await acquainted(one, two)


@asyncio_test
async def test_a_node_that_dies_in_silence_is_gone(cluster: NatsCluster) -> None:
    """Its connection stays open and says nothing: after the span the others have lost it, and it the fabric."""
    one, two = await cluster.join("one"), await cluster.join("two")
    first, second = Hearing(one), Hearing(two)
    await acquainted(one, two)
    cluster.proxy(two).is_frozen = True
    await eventually(lambda: first.left == ["two"] and two.is_away)
    assert second.left == ["one"]
    cluster.proxy(two).is_frozen = False
    await acquainted(one, two)
    assert second.backs == 1


@asyncio_test
async def test_standing_still_takes_nobody_for_dead(cluster: NatsCluster) -> None:
    """A process that could not listen counts silence anew, and looks at what it may have missed."""
    one, two = await cluster.join("one"), await cluster.join("two")
    first = Hearing(one)
    await acquainted(one, two)
    time.sleep(GONE_AFTER_S + 2 * BEAT_S)
    await eventually(lambda: first.backs == 1)
    assert first.left == [] and one.others == {"two"}


# -- the server goes and comes ------------------------------------------------------------------------------------


@asyncio_test
async def test_what_comes_behind_a_time_of_standing_still_may_be_late(
    cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as what had been held up may come in; others that are known did not fall silent meanwhile."""
    monkeypatch.setattr(nats, "LATE_S", 0.5)
    one, other = await cluster.join("one", **SLOW), await cluster.join("other", **SLOW)
    await acquainted(one, other)
    await asyncio.sleep(2 * SLOW["beat_s"])
    assert not one.is_late
    time.sleep(3 * SLOW["beat_s"])
    await eventually(lambda: one.is_late)
    await eventually(lambda: not one.is_late)


@asyncio_test
async def test_a_node_that_is_new_is_not_late(cluster: NatsCluster) -> None:
    """However long there was nobody to hear."""
    one = await cluster.join("one", **SLOW)
    await asyncio.sleep(4 * SLOW["beat_s"])
    other = await cluster.join("other", **SLOW)
    await acquainted(one, other)
    assert not one.is_late and not other.is_late


@asyncio_test
async def test_a_server_that_starts_again_is_found_again(new_nats_server: NewServer, cluster_on: Any) -> None:
    """Killed: all are away at once, without others. There again: all are back and know each other."""
    server = new_nats_server().start()
    cluster = cluster_on(server)
    one = await cluster.open("one", server.url, gone_after_s=LONG_S)
    two = await cluster.open("two", server.url, gone_after_s=LONG_S)
    hearings = [Hearing(one), Hearing(two)]
    await acquainted(one, two)
    server.kill()
    await eventually(lambda: one.is_away and two.is_away, within_s=1.0)
    assert not one.others and hearings[0].left == ["two"]
    server.start()
    await acquainted(one, two)
    assert [hearing.backs for hearing in hearings] == [1, 1]
    one.tell("two", "news", 1)
    await eventually(lambda: hearings[1].bodies == [1])


@asyncio_test
async def test_a_program_starts_without_its_fabric(new_nats_server: NewServer, cluster_on: Any) -> None:
    """Away and soon; once the server is there it connects, and whoever missed something is called."""
    server = new_nats_server()
    cluster = cluster_on(server)
    began_s = time.monotonic()
    with capturedLogs() as captured:
        one = await cluster.open("one", server.url)
    assert one.is_away and time.monotonic() - began_s < 1.0
    assert f"No fabric at nats://127.0.0.1:{server.port}" in captured[0]["log_format"].format(**captured[0])
    first = Hearing(one)
    one.tell_all("news", 1)
    server.start()
    await eventually(lambda: first.backs == 1)
    assert not one.is_away


@asyncio_test
async def test_a_server_that_says_nothing_does_not_hold_the_start_up(
    cluster_on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the connection and is silent: after the limit of a start the program goes on."""
    monkeypatch.setattr(nats, "START_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        cluster = cluster_on(NatsServer("", Path(), port=silent.getsockname()[1]))
        began_s = time.monotonic()
        one = await cluster.open("one", f"nats://127.0.0.1:{silent.getsockname()[1]}")
        assert one.is_away and time.monotonic() - began_s < 2.0


@asyncio_test
async def test_the_next_of_several_servers_is_taken(new_nats_server: NewServer, cluster_on: Any) -> None:
    """One that is not there is passed over; where the one in use goes, the others are tried."""
    first, second = new_nats_server().start(), new_nats_server().start()
    cluster = cluster_on(first)
    one = await cluster.open("one", f"nats://127.0.0.1:{free_port()},{first.url},{second.url}")
    assert not one.is_away
    hearing = Hearing(one)
    first.kill()
    await eventually(lambda: hearing.backs == 1)
    two = await cluster.open("two", second.url)
    await acquainted(one, two)


# -- logins and TLS -----------------------------------------------------------------------------------------------


@asyncio_test
async def test_a_wrong_password_is_told_without_it(new_nats_server: NewServer, cluster_on: Any) -> None:
    """The log says that the login is refused, and where; neither password nor user stand in it."""
    server = new_nats_server(config='authorization { user: "muster", password: "right" }').start()
    cluster = cluster_on(server)
    with capturedLogs() as captured:
        one = await cluster.open("one", f"nats://somebody:wr0ng@127.0.0.1:{server.port}")
    assert one.is_away
    assert "Authorization Violation" in said(captured) and str(server.port) in said(captured)
    assert "wr0ng" not in said(captured) and "somebody" not in said(captured)


@pytest.mark.parametrize(
    ("config", "login"),
    [('authorization { user: "mus:ter", password: "p@s,/%" }', "mus%3Ater:p%40s%2C%2F%25"),
     ('authorization { token: "t0k@n" }', "t0k%40n")],
)  # fmt: skip
@asyncio_test
async def test_logins_stand_in_the_address(
    new_nats_server: NewServer, cluster_on: Any, config: str, login: str
) -> None:
    """User and password, or a token, escaped as in any URL."""
    server = new_nats_server(config=config).start()
    cluster = cluster_on(server)
    one = await cluster.open("one", f"nats://{login}@127.0.0.1:{server.port}")
    assert not one.is_away


@asyncio_test
async def test_a_login_that_may_not_subscribe_is_of_no_use(new_nats_server: NewServer, cluster_on: Any) -> None:
    """The fabric counts as away instead of being deaf, and the log says why."""
    config = """authorization { users: [
        { user: "u", password: "p", permissions: { subscribe: { deny: "muster.>" } } } ] }"""
    server = new_nats_server(config=config).start()
    cluster = cluster_on(server)
    with capturedLogs() as captured:
        one = await cluster.open("one", f"nats://u:p@127.0.0.1:{server.port}")
        await eventually(lambda: "permissions violation" in said(captured))
        await eventually(lambda: one.is_away)


@asyncio_test
async def test_tls_is_spoken_and_checked(new_nats_server: NewServer, cluster_on: Any, tmp_path: Path) -> None:
    """With a CA that is trusted; where it is not, the fabric is away."""
    root = Pki().root("Fabric")
    leaf = root.leaf("localhost", dns_names=["localhost"], extended_usage=[SERVER])
    certificate, key = leaf.write(tmp_path)
    server = new_nats_server(config=f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}').start()
    cluster = cluster_on(server)
    (tmp_path / "ca.pem").write_text(root.pem)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    url = f"tls://localhost:{server.port}"
    one = await cluster.open("one", url, tls=trusting)
    two = await cluster.open("two", url, tls=trusting)
    second = Hearing(two)
    await acquainted(one, two)
    one.tell("two", "news", b"x" * 500_000)
    await eventually(lambda: second.heard)
    with capturedLogs() as captured:
        three = await cluster.open("three", url)
    assert three.is_away and "certificate verify failed" in said(captured)


@asyncio_test
async def test_the_password_does_not_go_out_in_the_clear(cluster_on: Any) -> None:
    """tls:// and a peer that offers no TLS: it is told nothing, and the log says why."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b'INFO {"server_id":"x","version":"2.9.10","max_payload":1048576}\r\n')
                heard.append(connection.recv(1_000))

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        cluster = cluster_on(NatsServer("", Path(), port=port))
        with capturedLogs() as captured:
            one = await cluster.open("one", f"tls://user:secret@127.0.0.1:{port}")
        thread.join(10)
    assert heard == [b""] and one.is_away
    assert "it speaks no TLS" in said(captured) and "secret" not in said(captured)


# -- strangers ----------------------------------------------------------------------------------------------------


@asyncio_test
async def test_strangers_are_not_heard(cluster: NatsCluster, nats_server: NatsServer) -> None:
    """Garbage, other versions, impossible names, this node's own: counted, and messages behind them arrive."""
    one, two = await cluster.join("one"), await cluster.join("two")
    first = Hearing(one)
    await acquainted(one, two)
    subject = f"muster.{cluster.name}.all"
    pack = msgspec.msgpack.encode
    stranger = RawClient(nats_server.port)
    garbage = [
        b"", b"\xc1", b"hello", b"\x91" * 5_000, pack([VERSION, "x"]), pack([VERSION, "x.y", 0, []]),
        pack([VERSION, "x" * 200, 0, []]), pack([VERSION, "x", -1, []]), pack([VERSION + 1, "x", 0, []]),
        pack([VERSION, "x", 0, [["k" * 65, 1]]]), pack([VERSION, "x", 0, [["news", {"a": 1}]]])[:-1],
        b"\x94" + pack(VERSION) + pack("x") + pack(0) + b"\x91\x92" + pack("news") + b"\x81\xc1\x01",
    ]  # fmt: skip
    for data in garbage:
        stranger.publish(subject, data)
    stranger.publish(subject, pack([VERSION, "one", 0, [["news", "not me"]]]))
    stranger.publish_with_headers(subject, b"NATS/1.0", b"x")
    stranger.publish_with_headers(subject, b"\xff\r\n\r\n", b"x")
    stranger.close()
    two.tell_all("news", "good")
    await eventually(lambda: first.heard)
    assert first.heard == [("two", "news", "good")]
    assert one.counters.malformed == len(garbage) + 2 and one.others == {"two"}
    assert not one.is_away and not two.is_away and first.left == []


@asyncio_test
async def test_more_nodes_than_there_can_be_are_not_heard(
    cluster: NatsCluster, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are cheap for whoever knows the password; the log says so."""
    monkeypatch.setattr(membership, "MAX_NODES", 1)
    one, two = await cluster.join("one"), await cluster.join("two")
    first = Hearing(one)
    await acquainted(one, two)
    stranger = RawClient(nats_server.port)
    with capturedLogs() as captured:
        stranger.publish(f"muster.{cluster.name}.all", msgspec.msgpack.encode([VERSION, "x", 0, [["news", 1]]]))
        stranger.close()
        two.tell_all("news", 2)
        await eventually(lambda: first.heard)
    assert first.bodies == [2] and first.joined == ["two"] and "is not heard" in said(captured)


# -- what is missed, and limits -----------------------------------------------------------------------------------


@asyncio_test
async def test_a_gap_in_the_numbers_is_noticed(cluster: NatsCluster) -> None:
    """What a sender could not tell, its hearers know to have missed: once, with the next that arrives."""
    one, two = await cluster.join("one"), await cluster.join("two")
    second = Hearing(two)
    await acquainted(one, two)
    one.tell("two", "news", object())
    one.tell("two", "news", 1)
    await eventually(lambda: second.backs == 1)
    assert second.bodies == [1]
    one.tell_all("news", object())  # the next beat shows it
    await eventually(lambda: second.backs == 2)
    assert two.counters.missed == 2


@asyncio_test
async def test_whoever_hears_a_node_that_was_cut_off_looks_too(cluster: NatsCluster) -> None:
    """What was on its way may be lost, even where the break was too short for anybody to leave."""
    one, two = await cluster.join("one", gone_after_s=LONG_S), await cluster.join("two")
    first, second = Hearing(one), Hearing(two)
    await acquainted(one, two)
    cluster.cut(two)
    await eventually(lambda: two.is_away)
    cluster.heal(two)
    await acquainted(one, two)
    await eventually(lambda: (first.backs, second.backs) == (1, 1))
    assert first.left == []


@asyncio_test
async def test_gaps_call_rarely(cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first at once, all that follow within the span together."""
    monkeypatch.setattr(nats, "MISSED_EVERY_S", 0.3)
    one, two = await cluster.join("one"), await cluster.join("two")
    second = Hearing(two)
    await acquainted(one, two)
    one.tell("two", "news", object())
    one.tell("two", "news", "first")
    await eventually(lambda: second.backs == 1)
    began_s = time.monotonic()
    for number in range(20):
        one.tell("two", "news", object())
        one.tell("two", "news", number)
        await asyncio.sleep(0)
    await eventually(lambda: second.backs == 2)
    assert time.monotonic() - began_s >= 0.25
    await eventually(lambda: len(second.heard) == 21)
    assert (second.backs, two.counters.missed) == (2, 21)


@asyncio_test
async def test_a_server_that_does_not_read_blocks_nobody(new_nats_server: NewServer, cluster_on: Any) -> None:
    """What is above the limit is dropped and counted; the others notice once it reads again."""
    server = new_nats_server().start()
    cluster = cluster_on(server)
    patient: dict[str, Any] = {"gone_after_s": LONG_S, "beat_s": 0.5, "max_outgoing_bytes": 1_000_000}
    one = await cluster.open("one", server.url, **patient)
    two = await cluster.open("two", server.url, **patient)
    second = Hearing(two)
    await acquainted(one, two)
    server.pause()
    with capturedLogs() as captured:
        began_s = time.monotonic()
        for number in range(200):
            one.tell_all("news", [number, b"x" * 100_000])
            await asyncio.sleep(0)
        assert time.monotonic() - began_s < 1.0
    assert one.counters.full > 50 and one.counters.told + one.counters.full == 200
    assert len([event for event in captured if "takes too little" in event["log_format"]]) == 1
    server.resume()
    await eventually(lambda: len(second.heard) == one.counters.told and second.backs == 1)
    numbers = [body[0] for body in second.bodies]
    assert numbers == sorted(numbers) and not one.is_away


@asyncio_test
async def test_a_server_that_never_reads_again_is_left(new_nats_server: NewServer, cluster_on: Any) -> None:
    """With a full buffer on the way: the node is away after its pings, stops at once, and others would be tried."""
    server = new_nats_server().start()
    cluster = cluster_on(server)
    one = await cluster.open("one", server.url)
    two = await cluster.open("two", server.url)
    await acquainted(one, two)
    server.pause()
    for _ in range(100):
        one.tell_all("news", b"x" * 200_000)
        await asyncio.sleep(0)
    await eventually(lambda: one.is_away)
    assert one.counters.away > 0
    began_s = time.monotonic()
    await cluster.leave(one)
    assert time.monotonic() - began_s < 1.0


@asyncio_test
async def test_a_node_that_is_too_slow_looks_at_what_it_missed(new_nats_server: NewServer, cluster_on: Any) -> None:
    """The server cuts it off; it comes back by itself."""
    server = new_nats_server(config='max_pending: 1048576\nwrite_deadline: "200ms"').start()
    cluster = cluster_on(server)
    one = await cluster.open("one", server.url, gone_after_s=LONG_S, beat_s=1.0)
    two = await cluster.join("two", gone_after_s=LONG_S, beat_s=LONG_S)
    second = Hearing(two)
    await acquainted(one, two)
    cluster.proxy(two).is_deaf = True
    for _ in range(40):
        one.tell("two", "news", b"x" * 500_000)
        await asyncio.sleep(0.01)
    cluster.proxy(two).is_deaf = False
    await eventually(lambda: second.backs == 1)
    await acquainted(one, two)


@asyncio_test
async def test_what_is_told_in_one_turn_travels_together(cluster: NatsCluster, nats_server: NatsServer) -> None:
    """One envelope for each way, in order; large ones are parted."""
    one, two = await cluster.join("one", beat_s=LONG_S, gone_after_s=LONG_S), await cluster.join("two")
    await acquainted(one, two)
    listener = RawClient(nats_server.port)
    listener.subscribe(f"muster.{cluster.name}.>")
    for number in range(50):
        one.tell_all("news", number)
    one.tell("two", "word", 50)
    for _ in range(3):
        one.tell_all("large", b"x" * 200_000)
    await asyncio.sleep(0.05)
    envelopes = []
    while len(envelopes) < 5:
        subject, data = listener.next_message()
        if (envelope := opened(data)).sender == "one":
            envelopes.append((subject.rpartition(f"{cluster.name}.")[2], len(envelope.messages)))
    listener.close()
    assert envelopes == [("all", 50), ("node.two", 1), ("all", 1), ("all", 1), ("all", 1)]


@asyncio_test
async def test_a_server_may_take_less_than_usual(new_nats_server: NewServer, cluster_on: Any) -> None:
    """What is above its limit is not told, what is below is, and never so much together that it would be."""
    server = new_nats_server(config="max_payload: 20000").start()
    cluster = cluster_on(server)
    one, two = await cluster.open("one", server.url), await cluster.open("two", server.url)
    second = Hearing(two)
    await acquainted(one, two)
    one.tell_all("news", b"x" * 20_000)
    for _ in range(10):
        one.tell_all("news", b"x" * 10_000)
    await eventually(lambda: len(second.heard) == 10)
    assert one.counters.untellable == 1 and not one.is_away


@asyncio_test
async def test_what_metrics_show(cluster: NatsCluster) -> None:
    """Whether it is up, how many nodes live, and what became of messages."""
    one, two = await cluster.join("one"), await cluster.join("two")
    second = Hearing(two)
    await acquainted(one, two)
    one.tell_all("news", 1)
    one.tell("two", "news", object())
    await eventually(lambda: second.heard)

    def numbers(fabric: NatsFabric) -> dict[str, float]:
        return {
            " ".join([family.name, *labels.values()]): value
            for family in fabric.families()
            for _, labels, value in family.samples
        }

    assert numbers(one) == {
        "fabric_up": 1, "fabric_nodes": 2, "fabric_messages_told_total": 1, "fabric_messages_heard_total": 0,
        "fabric_messages_dropped_total away": 0, "fabric_messages_dropped_total full": 0,
        "fabric_messages_dropped_total untellable": 1, "fabric_messages_dropped_total malformed": 0,
        "fabric_missed_total": 0,
    }  # fmt: skip
    assert numbers(two)["fabric_messages_heard_total"] == 1
    cluster.cut(two)
    await eventually(lambda: two.is_away)
    assert (numbers(two)["fabric_up"], numbers(two)["fabric_nodes"]) == (0, 1)
