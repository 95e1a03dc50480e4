"""Mistakes in a mapping's settings: gathered, then raised together."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from edge_gateway.model import Problem


class MappingProblems(Exception):
    """The settings cannot be compiled; `problems` names every mistake, `str()` joins their texts."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(problem.text for problem in problems))

    @classmethod
    def of(cls, text: str) -> MappingProblems:
        """One mistake in the text itself, wherever it stands."""
        return cls([Problem((), text)])


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The end of a sentence about an unknown `word`: the nearest known one, or all of them."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    if close:
        return f"; did you mean '{by_lower[close[0]]}'?"
    return f"; known are {', '.join(known)}" if known else ""
