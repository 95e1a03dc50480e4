"""Mistakes in a mapping's settings: gathered, then raised together."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence
from typing import Any

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


def amount_problems(
    path: tuple[str | int, ...], amount: str | float, parse: Callable[[Any], float], least: float | None = None
) -> list[Problem]:
    """Of a duration or size that is written with its unit; `least` is in what `parse` gives."""
    try:
        value = parse(amount)
    except ValueError as error:
        return [Problem(path, str(error))]
    if least is not None and value < least:
        return [Problem(path, f"{path[-1]} is {least:g} s at least")]
    return []


def foreign_problems(settings: object, defaults: object, names: Collection[str], belongs: str) -> list[Problem]:
    """Of settings that are given although they belong to another kind of the same table."""
    return [
        Problem((name,), f"{name} belongs to {belongs}; remove it")
        for name in names
        if getattr(settings, name) != getattr(defaults, name)
    ]
