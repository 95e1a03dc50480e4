"""Questions to all other nodes at once, each answered at once or never."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.logger import Logger

from cloud_core.core.nodes.messages import Message, body_of, hear
from cloud_core.fabric.interface import Body, Fabric

log = Logger()
MAX_OPEN = 20_000  # questions whose answers are awaited; more are as if nobody answered


class Question(Message):
    number: int
    about: str
    body: Any = None


class Reply(Message):
    number: int
    body: Any = None


class Answers(NamedTuple):
    """`by_node`: what came in time. `silent`: who was asked and did not answer; who has left is in neither."""

    by_node: dict[str, Body]
    silent: frozenset[str]


class _Open:
    """A question whose answers are awaited."""

    __slots__ = ("awaited", "by_node", "done", "on_answer", "timer")

    def __init__(
        self, awaited: set[str], done: Callable[[Answers], None], on_answer: Callable[[str, Body], None] | None
    ) -> None:
        self.awaited = awaited
        self.by_node: dict[str, Body] = {}
        self.done = done
        self.on_answer = on_answer
        self.timer: Any = None  # IDelayedCall: what `call_later` gives


class Questions:
    """Everything runs in the reactor thread."""

    def __init__(self, *, fabric: Fabric, call_later: Callable[..., Any]) -> None:
        self._fabric = fabric
        self._call_later = call_later
        self._answering: dict[str, Callable[[Body], Body]] = {}
        self._open: dict[int, _Open] = {}
        self._number = 0
        hear(fabric, "question", Question, self._asked)
        hear(fabric, "reply-to-question", Reply, self._answered)
        fabric.on_left(self._left)

    def answer(self, about: str, answering: Callable[[Body], Body]) -> None:
        """How this node answers; `answering` does not block, and raises ValueError or TypeError for nonsense alone."""
        self._answering[about] = answering

    def ask(
        self, about: str, body: Body, limit_s: float, done: Callable[[Answers], None], *,
        on_answer: Callable[[str, Body], None] | None = None,
    ) -> None:  # fmt: skip
        """`done` once, when all have answered or left, or after the limit; `on_answer` for each as it comes."""
        others = self._fabric.others
        if not others or len(self._open) >= MAX_OPEN:
            done(Answers({}, others))
            return
        self._number += 1
        number = self._number
        self._open[number] = question = _Open(set(others), done, on_answer)
        question.timer = self._call_later(limit_s, self._conclude, number)
        self._fabric.tell_all("question", body_of(Question(number, about, body)))

    def _asked(self, sender: str, question: Question) -> None:
        answering = self._answering.get(question.about)
        if answering is None:
            return  # a later version asks what is not known here
        try:
            answer = answering(question.body)
        except (TypeError, ValueError) as error:
            log.warn(
                "Node {node} asks about '{about}' in a way that is not understood here: {error}",
                node=sender, about=question.about, error=str(error),
            )  # fmt: skip
            return
        self._fabric.tell(sender, "reply-to-question", body_of(Reply(question.number, answer)))

    def _answered(self, sender: str, reply: Reply) -> None:
        question = self._open.get(reply.number)
        if question is None or sender not in question.awaited:
            return  # too late, or twice
        question.awaited.discard(sender)
        question.by_node[sender] = reply.body
        if question.on_answer is not None:
            question.on_answer(sender, reply.body)
        if not question.awaited:
            self._conclude(reply.number)

    def _left(self, node: str) -> None:
        for number, question in list(self._open.items()):
            question.awaited.discard(node)
            if not question.awaited:
                self._conclude(number)

    def _conclude(self, number: int) -> None:
        question = self._open.pop(number, None)
        if question is None:
            return
        if question.timer.active():
            question.timer.cancel()
        question.done(Answers(question.by_node, frozenset(question.awaited)))
