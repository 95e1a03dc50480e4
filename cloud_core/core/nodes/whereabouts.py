"""Where a device is connected, and how all nodes fare: asked of all when somebody looks.

Alone nothing is asked. A node that does not answer within LIMIT_S is left out, and said to be.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple, TypeVar

import msgspec

from cloud_core.core.asking import answered
from cloud_core.core.downlinks import Downlinks, Interest, Link, Whereabouts
from cloud_core.core.nodes.commands import Way
from cloud_core.core.nodes.messages import Message, body_of
from cloud_core.core.nodes.questions import Answers, Questions
from cloud_core.core.system_view import Connection, System, SystemView
from cloud_core.fabric.interface import Body, Fabric

LIMIT_S = 0.3
MAX_LINKS = 1_000  # of a device that are shown, on each node
_NOBODY = Answers({}, frozenset())
T = TypeVar("T")
Number = TypeVar("Number", int, float)


class Links(NamedTuple):
    """What is connected of a device. `silent`: how many nodes did not say in time."""

    links: list[Link]
    silent: int = 0


class Reach(NamedTuple):
    """Whether a device takes commands now, as far as known. `silent`: as in `Links`."""

    is_reachable: bool
    silent: int = 0


class _ToldLink(Message):
    transport: str
    peer: str
    interest: int


class _ToldSystem(Message):
    """`connections`: how many are open, by their title."""

    connections: dict[str, int]
    reasons: tuple[str, ...] = ()
    queued: int | None = None
    queue_limit: int | None = None
    is_congested: bool = False
    memory_bytes: int | None = None
    cpu_share: float | None = None


class WhereaboutsApi:
    """Everything runs in the reactor thread."""

    def __init__(self, *, fabric: Fabric, questions: Questions, downlinks: Downlinks) -> None:
        self._fabric = fabric
        self._questions = questions
        self._downlinks = downlinks
        questions.answer("links", self._links_here)

    async def links(self, device_id: int) -> Links:
        """This node's first; of each node oldest first."""
        found = self._downlinks.links(device_id)[:MAX_LINKS]
        answers = await self._ask("links", device_id)
        told = [one for links in _understood(answers, list[_ToldLink]) for one in links[:MAX_LINKS]]
        found += [Link(Whereabouts(one.transport, one.peer), _interest(one.interest)) for one in told]
        return Links(found, len(answers.silent))

    async def reach(self, device_id: int) -> Reach:
        """Nobody is asked about a device that is here."""
        if self._downlinks.for_commands(device_id) is not None:
            return Reach(True)
        answers = await self._ask("way", device_id)
        return Reach(any(one != Way.NONE for one in _understood(answers, int)), len(answers.silent))

    async def system(self, view: SystemView) -> System:
        """This node's, with what the others add to it."""
        here = view.now()
        if not self._fabric.others:
            return here
        answers = await self._ask("system", None)
        told = list(_understood(answers, _ToldSystem))
        return _joined(here, told, silent=len(answers.silent))

    def serve(self, view: SystemView) -> None:
        """Others may ask how this node fares."""
        self._questions.answer("system", lambda _: body_of(_told(view.now())))

    async def _ask(self, about: str, body: Body) -> Answers:
        if not self._fabric.others:
            return _NOBODY
        answers: Answers = await answered(lambda done: self._questions.ask(about, body, LIMIT_S, done))
        return answers

    def _links_here(self, body: Body) -> Body:
        if not isinstance(body, int):
            raise TypeError("a device's number is expected")
        links = self._downlinks.links(body)[:MAX_LINKS]
        return [body_of(_ToldLink(*one.whereabouts, one.interest.value)) for one in links]


def _understood(answers: Answers, shape: type[T]) -> Iterable[T]:
    """What was answered in a way that is known here; another version's is as if it had said nothing of use."""
    for _, body in sorted(answers.by_node.items()):
        try:
            yield msgspec.convert(body, shape)
        except msgspec.ValidationError:
            continue


def _interest(value: int) -> Interest:
    """Without what a later version may add."""
    return Interest(value & (Interest.ATTRIBUTES | Interest.COMMANDS).value)


def _told(system: System) -> _ToldSystem:
    return _ToldSystem(
        {one.title: one.total for one in system.connections}, system.reasons, system.queued, system.queue_limit,
        system.is_congested, system.memory_bytes, system.cpu_share,
    )  # fmt: skip


def _joined(here: System, told: list[_ToldSystem], *, silent: int) -> System:
    return replace(
        here,
        reasons=tuple(dict.fromkeys([*here.reasons, *(reason for one in told for reason in one.reasons)])),
        connections=[
            Connection(one.title, one.total + sum(other.connections.get(one.title, 0) for other in told))
            for one in here.connections
        ],
        queued=_sum(here.queued, (one.queued for one in told)),
        queue_limit=_sum(here.queue_limit, (one.queue_limit for one in told)),
        is_congested=here.is_congested or any(one.is_congested for one in told),
        memory_bytes=_sum(here.memory_bytes, (one.memory_bytes for one in told)),
        cpu_share=_sum(here.cpu_share, (one.cpu_share for one in told)),
        node_count=1 + len(told),
        silent_count=silent,
    )


def _sum(here: Number | None, told: Iterable[Number | None]) -> Number | None:
    """None where nobody knows."""
    total = here
    for one in told:
        if one is not None:
            total = one if total is None else total + one
    return total
