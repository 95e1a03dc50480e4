"""`NatsFabric`: the nodes of a cluster joined by NATS, in the reactor's own asyncio loop.

Telling appends to a list. One task takes all that was told in a turn of the reactor and publishes it, what goes the
same way in one envelope: a message costs its encoding, and no coroutine. Hearing happens in the task that reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from twisted.logger import Logger

from cloud_core.fabric.addresses import Address
from cloud_core.fabric.callbacks import Callbacks
from cloud_core.fabric.connection import MAX_SILENT_PINGS, ConnectFailed, Connection
from cloud_core.fabric.counters import Counters
from cloud_core.fabric.interface import BEAT_S, GONE_AFTER_S, MAX_BODY_BYTES, Body
from cloud_core.fabric.membership import Membership
from cloud_core.fabric.messages import Envelope, Malformed, Untellable, encoded, opened, sealed
from cloud_core.fabric.rations import Rations
from cloud_core.measures import Family

log = Logger()

# What nodes say of themselves. A hello begins the numbers to each node anew, and is answered by a beat that says the
# number of the next envelope to all: so the first that is missed is noticed, too.
HELLO, BEAT, BYE = ".hello", ".beat", ".bye"
BATCH_BYTES = 262_144  # of bodies in one envelope
ENVELOPE_BYTES = 4_096  # kind, name and frame beside a body
FRAME_BYTES = 8  # of a message in an envelope, beside kind and body
MAX_OUTGOING_BYTES = 8_388_608
MAX_WAYS = 1_024  # sender and direction whose numbers are known
START_S = 3.0  # so long the program waits for it
GOODBYE_S = 1.0
MISSED_EVERY_S = 1.0
LATE_S = 2.0  # behind a silence that was none: so long what had been held up may come in
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


class _Way:
    """All others, or one node: where an envelope goes, and the number of the next."""

    __slots__ = ("next_number", "subject")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.next_number = 0


_Told = tuple[_Way, str, bytes]
"""Where to, kind, encoded body."""


class NatsFabric(Callbacks):
    """A `Fabric`. `start` before anybody tells, `stop` says goodbye; everything in the thread of the loop."""

    def __init__(
        self, addresses: Sequence[Address], *, cluster: str, node: str, beat_s: float = BEAT_S,
        gone_after_s: float = GONE_AFTER_S, max_outgoing_bytes: int = MAX_OUTGOING_BYTES,
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.node = node
        self.is_away = True
        self.counters = Counters()
        self._addresses = list(addresses)
        self._prefix = f"muster.{cluster}"
        self._beat_s, self._gone_after_s, self._tls = beat_s, gone_after_s, tls
        self._ping_s = gone_after_s / (MAX_SILENT_PINGS + 1.5)  # the server is given up before the others give us up
        self._max_outgoing_bytes = max_outgoing_bytes
        self._members = Membership(gone_after_s=gone_after_s)
        self._to_all = _Way(f"{self._prefix}.all")
        self._to_node: dict[str, _Way] = {}
        self._outgoing: list[_Told] = []
        self._outgoing_bytes = 0
        self._told = asyncio.Event()
        self._expected: OrderedDict[tuple[str, str], int] = OrderedDict()  # (sender, subject) -> number of the next
        self._rations = Rations()
        self._connection: Connection | None = None
        self._ended, self._is_tried = asyncio.Event(), asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._ticked_s = self._missed_s = float("-inf")
        self._heard_s = self._late_until_s = float("-inf")
        self._missed_timer: asyncio.TimerHandle | None = None
        self._is_started = self._is_stopping = False

    # -- for the core -----------------------------------------------------------------------------

    @property
    def others(self) -> frozenset[str]:
        return self._members.others

    @property
    def is_late(self) -> bool:
        return self._loop.time() < self._late_until_s

    def tell_all(self, kind: str, body: Body) -> None:
        if self._members.others:
            self._tell(self._to_all, kind, body)
        else:
            self._to_all.next_number += 1  # a node that is there and not known to be notices

    def tell(self, node: str, kind: str, body: Body) -> None:
        if node in self._members.others:
            self._tell(self._way_to(node), kind, body)

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when connected, or when no server could be reached: then it is away, and comes by itself."""
        self._loop = asyncio.get_running_loop()
        self._ticked_s = self._loop.time()
        self._tick_timer = self._loop.call_later(self._beat_s, self._tick)
        self._keeping = self._loop.create_task(self._keep_connected())
        with contextlib.suppress(asyncio.TimeoutError):  # it goes on trying
            await asyncio.wait_for(self._is_tried.wait(), START_S)
        self._is_started = True

    async def stop(self) -> None:
        """Sends what was told, says goodbye and closes; after GOODBYE_S without. Calls nobody back."""
        self._is_stopping = True
        for stopped in (self._tick_timer, self._missed_timer, self._sending, self._keeping):
            if stopped is not None:
                stopped.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                self._queue(self._to_all, BYE, _NOTHING)
                await asyncio.wait_for(self._publish(connection), GOODBYE_S)
                await asyncio.wait_for(connection.flush(), GOODBYE_S)
            except Exception as error:  # the others find out by themselves
                log.info("Goodbye could not be said to the other nodes: {error}", error=_said(error))
            await connection.close()
        tasks = [task for task in (self._sending, self._keeping) if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=GOODBYE_S)
        self._members.clear()
        self.is_away = True

    def families(self) -> list[Family]:
        """For `/metrics`."""
        return self.counters.families(is_up=not self.is_away, nodes=1 + len(self.others))

    # -- the connection ---------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        """For ever: the servers in turn, waiting longer after each round that leads nowhere."""
        wait_s, turn = FIRST_WAIT_S, 0
        subjects = (self._to_all.subject, self._subject_of(self.node))
        while True:
            address = self._addresses[turn % len(self._addresses)]
            turn += 1
            connection = Connection(address, on_arrived=self._arrived, on_ended=self._lost)
            self._ended.clear()
            try:
                await connection.open(subjects, name=f"muster {self.node}", ping_s=self._ping_s, tls=self._tls)
            except ConnectFailed as error:
                if self._is_stopping:  # `wait_for` may lose a cancellation that comes together with an end
                    return
                self._not_there(address, str(error))
                if turn % len(self._addresses):
                    continue
            else:
                if self._is_stopping:
                    await connection.close()
                    return
                self._connected(connection)
                began_s = self._loop.time()
                await self._ended.wait()
                if self._loop.time() - began_s > LONGEST_WAIT_S:
                    wait_s = FIRST_WAIT_S
            self._is_tried.set()
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _connected(self, connection: Connection) -> None:
        """Introduces this node."""
        self._connection = connection
        self.is_away = False
        self._is_tried.set()
        self._expected.clear()
        self._heard_s = self._loop.time()
        self._to_node.clear()
        self._rations.forget(str(connection.address))
        self._sending = self._loop.create_task(self._send(connection))
        log.info("The fabric is there: {address}, as node {node}", address=str(connection.address), node=self.node)
        self._queue(self._to_all, HELLO, _NOTHING)
        if self._is_started:
            self.say_back()

    def _not_there(self, address: Address, why: str) -> None:
        if self._rations.may_say(str(address), self._loop.time()):
            log.warn("No fabric at {address}: {why}. Tried until it is there.", address=str(address), why=why)

    def _lost(self, why: str) -> None:
        """At once, out of whatever noticed."""
        self._ended.set()
        connection, self._connection = self._connection, None
        if connection is None or self._is_stopping:
            return
        log.warn("The connection to the fabric at {address} has ended: {why}", address=str(connection.address), why=why)
        self.is_away = True
        if self._sending is not None:
            self._sending.cancel()  # it may wait for a flush that never comes
        self._drop_outgoing()
        for node in self._members.clear():
            self.say_left(node)

    # -- telling ----------------------------------------------------------------------------------

    def _tell(self, way: _Way, kind: str, body: Body) -> None:
        try:
            packed = encoded(body, self._max_body_bytes())
        except Untellable as error:
            way.next_number += 1  # whoever should have heard it knows that there was something
            self.counters.untellable += 1
            if self._rations.may_say(kind, self._loop.time()):
                log.error("A message of {kind} is not told: {error}", kind=kind, error=str(error))
            return
        if self._outgoing_bytes + len(packed) > self._max_outgoing_bytes:
            way.next_number += 1
            self.counters.full += 1
            if self._rations.may_say("full", self._loop.time()):
                log.warn(
                    "The fabric takes too little: messages to other nodes are dropped ({count} until now)",
                    count=self.counters.full,
                )
            return
        self.counters.told += 1
        self._queue(way, kind, packed)

    def _max_body_bytes(self) -> int:
        """What the server takes, where it takes less than usual."""
        taken = self._connection.max_payload if self._connection is not None else MAX_BODY_BYTES
        return min(MAX_BODY_BYTES, max(0, taken - ENVELOPE_BYTES))

    def _queue(self, way: _Way, kind: str, packed: bytes) -> None:
        self._outgoing.append((way, kind, packed))
        self._outgoing_bytes += len(packed)
        if len(self._outgoing) == 1:
            self._told.set()

    async def _send(self, connection: Connection) -> None:
        """Publishes what was told since the last turn. Waits here, and only here, while the server does not read."""
        while self._connection is connection:
            await self._told.wait()
            self._told.clear()
            try:
                await self._publish(connection)
            except Exception as error:
                self.counters.away += 1
                if self._rations.may_say("send", self._loop.time()):
                    log.warn("Messages to other nodes could not be sent: {error}", error=_said(error))

    async def _publish(self, connection: Connection) -> None:
        """All that waits. What it took and could not send is missed by its number."""
        outgoing, self._outgoing = self._outgoing, []
        envelopes = [(told[0][0].subject, self._envelope(told)) for told in self._together(outgoing)]
        try:
            for subject, envelope in envelopes:
                await connection.publish(subject, envelope)
        finally:
            self._outgoing_bytes = sum(len(packed) for _, _, packed in self._outgoing)

    def _together(self, outgoing: list[_Told]) -> Iterator[list[_Told]]:
        """What goes into one envelope each: neighbours that go the same way."""
        max_bytes = min(BATCH_BYTES, self._max_body_bytes())
        begin, size = 0, 0
        for position, (way, kind, packed) in enumerate(outgoing):
            added = len(packed) + len(kind) + FRAME_BYTES
            if begin < position and (way is not outgoing[begin][0] or size + added > max_bytes):
                yield outgoing[begin:position]
                begin, size = position, 0
            size += added
        if outgoing:
            yield outgoing[begin:]

    def _envelope(self, told: list[_Told]) -> bytes:
        way = told[0][0]
        number, way.next_number = way.next_number, way.next_number + 1
        return sealed(self.node, number, [(kind, packed) for _, kind, packed in told])

    def _drop_outgoing(self) -> None:
        for _, kind, _ in self._outgoing:
            self._to_all.next_number += 1  # whoever hears us again notices
            self.counters.away += not kind.startswith(".")
        self._outgoing.clear()
        self._outgoing_bytes = 0

    def _way_to(self, node: str) -> _Way:
        way = self._to_node.get(node)
        if way is None:
            way = self._to_node[node] = _Way(self._subject_of(node))
            if len(self._to_node) > MAX_WAYS:
                del self._to_node[next(iter(self._to_node))]
        return way

    def _subject_of(self, node: str) -> str:
        return f"{self._prefix}.node.{node}"

    # -- hearing ----------------------------------------------------------------------------------

    def _arrived(self, subject: str, data: bytes) -> None:
        try:
            envelope = opened(data)
        except Malformed as error:
            self.counters.malformed += 1
            if self._rations.may_say("malformed", self._loop.time()):
                log.warn(
                    "Somebody who is no node of ours speaks on {subject}: {error}", subject=subject, error=str(error)
                )
            return
        sender = envelope.sender
        if self._connection is None or sender == self.node or self._members.has_said_goodbye(sender):
            return
        self._note_silence(sender)
        has_gap = self._has_gap(envelope, subject)
        if any(kind == BYE for kind, _ in envelope.messages):
            self._take(envelope)
            self._forget(sender)
            if self._members.goodbye(sender):
                self.say_left(sender)
            return
        if self._members.heard(sender, self._loop.time()):
            self.say_joined(sender)
        if sender not in self._members.others:
            if self._rations.may_say("nodes", self._loop.time()):
                log.warn("{sender} is not heard: there are {count} nodes", sender=sender, count=len(self.others))
            return
        self._take(envelope)
        if has_gap:
            self._missed()

    def _take(self, envelope: Envelope) -> None:
        for kind, body in envelope.messages:
            if kind == HELLO:
                to_us = (envelope.sender, self._subject_of(self.node))
                if to_us in self._expected:  # its connection ended, with what was on its way
                    self._missed()
                self._expected[to_us] = 0
                self._queue(self._way_to(envelope.sender), BEAT, encoded(self._to_all.next_number))
            elif kind == BEAT and isinstance(body, int):
                self._expected.setdefault((envelope.sender, self._to_all.subject), body)
            elif not kind.startswith("."):
                self.counters.heard += self.deliver(envelope.sender, kind, body)

    def _note_silence(self, sender: str) -> None:
        """Each node says something every beat: where one that is known comes behind a silence, that was held up."""
        now_s = self._loop.time()
        if now_s - self._heard_s > 2 * self._beat_s and (sender, self._to_all.subject) in self._expected:
            self._late_until_s = now_s + LATE_S
        self._heard_s = now_s

    def _has_gap(self, envelope: Envelope, subject: str) -> bool:
        way = (envelope.sender, subject)
        expected = self._expected.get(way, envelope.number)
        self._expected[way] = envelope.number + 1
        if len(self._expected) > MAX_WAYS:
            self._expected.popitem(last=False)
        return envelope.number != expected

    def _forget(self, node: str) -> None:
        self._to_node.pop(node, None)
        for subject in (self._to_all.subject, self._subject_of(self.node)):
            self._expected.pop((node, subject), None)

    # -- time -------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now_s = self._loop.time()
        self._tick_timer = self._loop.call_later(self._beat_s, self._tick)
        stood_still_s, self._ticked_s = now_s - self._ticked_s - self._beat_s, now_s
        if stood_still_s > self._gone_after_s - self._beat_s:
            self._members.forgive(now_s)  # what they said meanwhile is read behind this
            self._missed()
        else:
            for node in self._members.silent(now_s):
                log.warn("Node {node} is gone: it was silent for {span} s", node=node, span=self._gone_after_s)
                self.say_left(node)
        if self._connection is not None:
            self._queue(self._to_all, BEAT, _NOTHING)

    def _missed(self) -> None:
        """Calls those of `on_back`: now, or where that was just done a little later for all that comes until then."""
        self.counters.missed += 1
        if self._missed_timer is None:
            wait_s = max(0.0, self._missed_s + MISSED_EVERY_S - self._loop.time())
            self._missed_timer = self._loop.call_later(wait_s, self._say_missed)

    def _say_missed(self) -> None:
        self._missed_timer = None
        self._missed_s = self._loop.time()
        if not self.is_away:  # else they are called when it is back
            self.say_back()


_NOTHING = encoded(None)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
