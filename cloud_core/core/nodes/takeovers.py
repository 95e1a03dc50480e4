"""Who came last has the device, on whichever node: what is opened here ends what is too old elsewhere.

What opens is gathered for FLUSH_S and told to all. A node that hears of it closes its own oldest MQTT sessions of the
device, as many as are too many, and its session behind a gateway, as it would for a new connection here. HTTP long
polls and CoAP observations end by themselves; that there is a newer way for commands elsewhere is remembered, and
commands take that (`is_outdated`).

What is newer is decided by age, which needs no clocks that agree: what is told was opened a moment ago. Where both are
of the same moment, by (ms since the epoch, name of the node): then both nodes decide alike, and of two connections
one stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from cloud_core.core.downlinks import Downlinks
from cloud_core.core.gateway_sessions import leave_gateway
from cloud_core.core.nodes.messages import Message, body_of, hear, parts_of
from cloud_core.core.presence import Presence
from cloud_core.fabric.interface import GONE_AFTER_S, Fabric

FLUSH_S = 0.002
PART = 5_000  # devices in one message
PART_OF_ALL = 1_000  # the same where one node tells another of all it has: some 5 ms for each of the two
NEAR_MS = 2_000  # ages that differ by less are of the same moment: more than any message takes
REMEMBERED_MS = 3_600_000  # so long a node that has left may come back
UNSEEN_MS = 60_000  # what a node is told that was never seen before: sessions of the time in which it started
MISSED_MS = 10_000  # so often, and of so long a time, what was missed is asked for
MAX_OUTDATED = 10_000  # then those of devices that have gone are forgotten


class Held(NamedTuple):
    """MQTT sessions of a device on one node: when they were opened, oldest first; and how many may live in all."""

    opened_ms: Sequence[int]
    max_sessions: int


class SessionsHere(Protocol):
    """What is asked of the transport that has sessions."""

    def held(self, device_id: int) -> Held:
        """Without any, `opened_ms` is empty."""

    def give_up(self, device_id: int, count: int) -> None:
        """Closes the oldest, which were taken over."""

    def opened_since(self, ms: int) -> list[int]:
        """Devices that have a session which was opened since."""


class Opened(Message):
    """What is new of a device on the node that tells. `sessions`: when each was opened, none where that is not new.

    `way_ms`: when the newest way for commands was opened, 0 where that is not new. `is_answer`: sessions that had
    been there, told because others' are new.
    """

    device_id: int
    sessions: list[int]
    max_sessions: int
    way_ms: int
    is_answer: bool = False


class Takeover(Message):
    now_ms: int  # by the sender's clock, when it was told
    opened: list[Opened]


class Lately(Message):
    """Somebody has missed messages: what was opened since, in ms before now?"""

    since_ms: int


class _Note:
    """What is to be told of a device."""

    __slots__ = ("is_answer", "way_ms", "with_sessions")

    def __init__(self) -> None:
        self.with_sessions = False
        self.is_answer = False
        self.way_ms = 0


class _Elsewhere(NamedTuple):
    """Sessions that a node has told of."""

    heard_ms: int  # by this node's clock
    ages_ms: list[int]  # when they were heard of
    opened_ms: list[int]  # by the other's clock


class Takeovers:
    """Everything runs in the reactor thread."""

    def __init__(
        self, *, fabric: Fabric, downlinks: Downlinks, presence: Presence, now_ms: Callable[[], int],
        call_later: Callable[..., Any],
    ) -> None:  # fmt: skip
        self._fabric = fabric
        self._downlinks = downlinks
        self._presence = presence
        self._now_ms = now_ms
        self._call_later = call_later
        self._sessions: SessionsHere | None = None
        self._notes: dict[int, _Note] = {}
        self._ways: dict[
            int, int
        ] = {}  # device -> when its newest way was opened here, of the last NEAR_MS; oldest first
        self._outdated: dict[int, str] = {}  # device with a way here -> node that has a newer one
        self._elsewhere: dict[int, dict[str, _Elsewhere]] = {}  # of devices that may have several sessions
        self._left: dict[str, int] = {}  # node -> when
        self._met_ms: int | None = None  # when the first other node was met
        self._trimmed_ms = 0
        self._missed_ms = -MISSED_MS  # when others were asked last for what was missed
        self._is_asking = False
        downlinks.on_reachable(self._reachable)
        hear(fabric, "opened", Takeover, self._heard)
        fabric.on_left(self._node_left)
        fabric.on_joined(self._node_joined)
        fabric.on_back(self._missed)
        hear(fabric, "opened-lately", Lately, self._tell_lately)

    def serve(self, sessions: SessionsHere) -> None:
        """The transport that has sessions says so."""
        self._sessions = sessions

    def is_outdated(self, device_id: int) -> bool:
        """Whether another node has a newer way for commands than there is here."""
        return device_id in self._outdated

    # -- telling ----------------------------------------------------------------------------------

    def session_opened(self, device_id: int) -> None:
        """An MQTT session was opened here, where there are others to tell."""
        self._note(device_id).with_sessions = True

    def _reachable(self, device_id: int) -> None:
        if not self._fabric.others:
            return
        now_ms = self._now_ms()
        self._outdated.pop(device_id, None)
        self._ways.pop(device_id, None)
        self._ways[device_id] = self._note(device_id).way_ms = now_ms
        for known, at_ms in list(self._ways.items()):
            if now_ms - at_ms <= NEAR_MS:
                break
            del self._ways[known]

    def _note(self, device_id: int) -> _Note:
        note = self._notes.get(device_id)
        if note is None:
            if not self._notes:
                self._call_later(FLUSH_S, self._tell)
            note = self._notes[device_id] = _Note()
        return note

    def _tell(self) -> None:
        notes, self._notes = self._notes, {}
        opened = [self._opened(device_id, note) for device_id, note in notes.items()]
        for part in parts_of(opened, PART):
            self._fabric.tell_all("opened", body_of(Takeover(self._now_ms(), list(part))))

    def _opened(self, device_id: int, note: _Note) -> Opened:
        held = self._held(device_id) if note.with_sessions else Held((), 1)
        return Opened(device_id, list(held.opened_ms), held.max_sessions, note.way_ms, note.is_answer)

    def _held(self, device_id: int) -> Held:
        return self._sessions.held(device_id) if self._sessions is not None else Held((), 1)

    # -- hearing ----------------------------------------------------------------------------------

    def _heard(self, sender: str, takeover: Takeover) -> None:
        now_ms = self._now_ms()
        for opened in takeover.opened:
            if opened.sessions:
                self._compare(sender, opened, takeover.now_ms, now_ms)
            if opened.way_ms:
                self._compare_way(sender, opened, now_ms)
            if not opened.is_answer and not self._downlinks.is_open(opened.device_id):
                self._presence.moved(opened.device_id, now_ms - NEAR_MS)
        self._trim(now_ms)

    def _compare(self, sender: str, opened: Opened, their_now_ms: int, now_ms: int) -> None:
        """Closes what is too much here."""
        device_id = opened.device_id
        mine = self._held(device_id)
        if not mine.opened_ms or self._sessions is None:
            return
        ages = [max(0, their_now_ms - one) for one in opened.sessions]
        theirs = {sender: _Elsewhere(now_ms, ages, opened.sessions)}
        most = max(1, opened.max_sessions)
        if most > 1:  # each node knows of its own alone, so all tell all
            known = self._elsewhere.setdefault(device_id, {})
            known |= theirs
            theirs = {node: one for node, one in known.items() if now_ms - one.heard_ms < NEAR_MS}
        surplus = 0
        for at, opened_ms in enumerate(mine.opened_ms):
            newer = len(mine.opened_ms) - at - 1
            for node, one in theirs.items():
                newer += sum(
                    self._is_newer(node, their_ms, age_ms + now_ms - one.heard_ms, opened_ms, now_ms)
                    for their_ms, age_ms in zip(one.opened_ms, one.ages_ms, strict=True)
                )
            surplus += newer >= most
        if surplus:
            self._sessions.give_up(device_id, surplus)
        if not opened.is_answer and surplus < len(mine.opened_ms):  # what stays here may be news there
            note = self._note(device_id)
            note.is_answer = not note.with_sessions
            note.with_sessions = True

    def _is_newer(self, node: str, their_ms: int, their_age_ms: int, my_ms: int, now_ms: int) -> bool:
        """Than mine."""
        my_age_ms = now_ms - my_ms
        if abs(my_age_ms - their_age_ms) > NEAR_MS:
            return their_age_ms < my_age_ms
        return (their_ms, node) > (my_ms, self._fabric.node)

    def _compare_way(self, sender: str, opened: Opened, now_ms: int) -> None:
        device_id = opened.device_id
        known_ms = self._ways.get(device_id)
        is_of_this_moment = known_ms is not None and now_ms - known_ms <= NEAR_MS
        if is_of_this_moment and (known_ms, self._fabric.node) > (opened.way_ms, sender):
            return
        leave_gateway(self._downlinks, device_id)
        if self._downlinks.for_commands(device_id) is not None:
            self._outdated[device_id] = sender

    def _trim(self, now_ms: int) -> None:
        if abs(now_ms - self._trimmed_ms) < NEAR_MS:
            return
        self._trimmed_ms = now_ms
        if len(self._outdated) > MAX_OUTDATED:
            self._outdated = {one: node for one, node in self._outdated.items() if self._downlinks.is_open(one)}
        self._elsewhere = {
            device_id: known
            for device_id, known in self._elsewhere.items()
            if any(now_ms - one.heard_ms < NEAR_MS for one in known.values())
        }

    # -- nodes that come and go -------------------------------------------------------------------

    def _node_left(self, node: str) -> None:
        now_ms = self._now_ms()
        self._left = {one: at_ms for one, at_ms in self._left.items() if now_ms - at_ms < REMEMBERED_MS}
        self._left[node] = now_ms
        self._outdated = {one: other for one, other in self._outdated.items() if other != node}

    def _node_joined(self, node: str) -> None:
        """It is told what it may not have heard: sessions since it was heard last; the first ones are told of all.

        What it was not told of ways for commands is mended by the next that opens.
        """
        now_ms = self._now_ms()
        if self._met_ms is None:
            self._met_ms = now_ms
        is_early = now_ms - self._met_ms < UNSEEN_MS
        since_ms = self._left.pop(node, 0 if is_early else now_ms - UNSEEN_MS)
        self._tell_since(node, since_ms - int(GONE_AFTER_S * 1000))

    def _tell_since(self, node: str, since_ms: int) -> None:
        found = self._sessions.opened_since(since_ms) if self._sessions is not None else []
        self._tell_some(node, parts_of(found, PART_OF_ALL))

    def _tell_some(self, node: str, parts: Iterator[Sequence[int]]) -> None:
        """A part with each turn of the reactor: there may be hundreds of thousands."""
        part = next(parts, None)
        if part is None or node not in self._fabric.others:
            return
        opened = []
        for device_id in part:
            held = self._held(device_id)
            if held.opened_ms:  # else it has gone meanwhile
                opened.append(Opened(device_id, list(held.opened_ms), held.max_sessions, 0))
        self._fabric.tell(node, "opened", body_of(Takeover(self._now_ms(), opened)))
        self._call_later(0, self._tell_some, node, parts)

    def _missed(self) -> None:
        """Messages of others may have been lost. Where they go on being lost, they are asked now and then."""
        if not self._is_asking:
            self._is_asking = True
            wait_ms = self._missed_ms + MISSED_MS - self._now_ms()
            self._call_later(min(max(0, wait_ms), MISSED_MS) / 1000, self._ask_lately)

    def _ask_lately(self) -> None:
        self._is_asking = False
        now_ms = self._now_ms()
        since_ms = max(MISSED_MS, min(now_ms - self._missed_ms, 6 * MISSED_MS))
        self._missed_ms = now_ms
        self._fabric.tell_all("opened-lately", body_of(Lately(since_ms)))

    def _tell_lately(self, sender: str, lately: Lately) -> None:
        self._tell_since(sender, self._now_ms() - min(lately.since_ms, REMEMBERED_MS))
