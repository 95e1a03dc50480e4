"""What a scraper sees where several workers share the ports of a machine: all of them, whichever it has reached.

The worker that is asked asks its siblings, the workers of the same supervisor. One that does not answer within LIMIT_S
is left out; `workers_seen` says how many are there, `workers` how many there should be. Other machines of the cluster
are scraped on their own and answer nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from cloud_core.core.asking import answered
from cloud_core.core.metrics import Metrics
from cloud_core.core.nodes.messages import Message, body_of
from cloud_core.core.nodes.questions import Answers, Questions
from cloud_core.fabric.interface import Body
from cloud_core.measures import Family, gauge, labelled, one

LIMIT_S = 0.3
MAX_FAMILIES, MAX_SAMPLES = 500, 5_000  # of one worker; a tenth of that is usual, and far below what a message carries
LABEL = "worker"


@dataclass(frozen=True, slots=True)
class Place:
    """Which worker this is. `site`: the same for all workers of a supervisor, and for nobody else."""

    site: str
    index: int
    count: int


class _ToldFamily(Message):
    name: str
    kind: str
    text: str
    samples: Annotated[list[tuple[str, dict[str, str], int | float]], msgspec.Meta(max_length=MAX_SAMPLES)]


class _Told(Message):
    index: int
    families: Annotated[list[_ToldFamily], msgspec.Meta(max_length=MAX_FAMILIES)]


ByWorker = dict[int, Iterable[Family]]


class Siblings:
    """Everything runs in the reactor thread."""

    def __init__(self, place: Place, *, metrics: Metrics, questions: Questions) -> None:
        self._place = place
        self._metrics = metrics
        self._questions = questions
        questions.answer("metrics", self._told)
        metrics.of_workers = self.families

    async def families(self) -> list[Family]:
        """Of all workers that answer, each sample under its worker."""
        found: ByWorker = await answered(self._ask)
        by_worker = {str(index): found[index] for index in sorted(found)}
        return [
            gauge("workers", "Workers that share the ports of this machine.", one(self._place.count)),
            gauge("workers_seen", "Workers whose numbers are shown here.", one(len(found))),
            *labelled(LABEL, by_worker),
        ]

    def _ask(self, done: Callable[[ByWorker], None]) -> None:
        """`done` as soon as all workers are there: other machines may take the whole time."""
        found: ByWorker = {self._place.index: self._metrics.families()}
        is_over = False

        def conclude(_: Answers | None = None) -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                done(found)

        def heard(_: str, body: Body) -> None:
            told = self._understood(body)
            if told is not None and not is_over:
                found.setdefault(told.index, [_family(family) for family in told.families])
                if len(found) == self._place.count:
                    conclude()

        self._questions.ask("metrics", self._place.site, LIMIT_S, conclude, on_answer=heard)

    def _told(self, site: Body) -> Body:
        """For a sibling: what this worker counts; None for anybody else."""
        if site != self._place.site:
            return None
        return body_of(_Told(self._place.index, _bounded(self._metrics.families())))

    def _understood(self, body: Body) -> _Told | None:
        """None for another machine's answer, and for one that is not known here."""
        if body is None:
            return None
        try:
            told = msgspec.convert(body, _Told)
        except msgspec.ValidationError:
            return None
        return told if 0 <= told.index < self._place.count else None


def _bounded(families: Iterable[Family]) -> list[_ToldFamily]:
    """As many as a message may hold; labels are closed sets, so all of them in practice."""
    told: list[_ToldFamily] = []
    left = MAX_SAMPLES
    for family in families:
        left -= len(family.samples)
        if left < 0 or len(told) == MAX_FAMILIES:
            break
        samples = [(ending, dict(labels), value) for ending, labels, value in family.samples]
        told.append(_ToldFamily(family.name, family.kind, family.text, samples))
    return told


def _family(told: _ToldFamily) -> Family:
    return Family(told.name, told.kind, told.text, told.samples)
