"""A page anywhere in an order that has no index, and how many rows match, in one pass over the table: SQLite alone.

Rows at even distances tell roughly between which keys the page lies. One pass then counts all that match and those
that come before that span, and brings the keys of the span, which are sorted by the caller. Where the rows at even
distances told wrong, the answer says so by what it holds, and the caller asks otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, sqrt
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, func, literal_column, or_, true

SAMPLED = 2_000  # rows: some 2 ms
ENOUGH = 40  # of them have to match, else so few match at all that they are sorted
SIGMAS = 3.0  # how wide a span is: one in some hundreds does not have the page

Key = tuple[Any, int]  # what is sorted by, and the number of the row, which decides between equal ones


class Span(NamedTuple):
    """From `low` on, and before `high`; None where there is no such end."""

    low: Key | None
    high: Key | None


def spread(first: int, last: int) -> list[int]:
    """Numbers of rows at even distances."""
    step = max(1, (last - first + 1) // SAMPLED)
    return list(range(first, last + 1, step))


def among(number: Any, numbers: Sequence[int]) -> ColumnElement[bool]:
    """As one piece of text: a thousand literals of their own take SQLAlchemy longer than the look-up takes SQLite."""
    listed = ",".join(str(int(one)) for one in numbers)
    return literal_column(f"{number.table.name}.{number.name} IN ({listed})")


def span_of(ordered: Sequence[Key], each: float, first: int, size: int, *, is_total_known: bool) -> Span:
    """Where rows `first` to `first + size` of the order lie.

    `ordered`: those that match of the rows that were looked at, in the order of the page; each stands for `each` rows
    that match, for exactly so many where their total is known.
    """

    def place(row: int, sigmas: float) -> float:
        """Which of them lies surely enough to that side of the row. How far they stray: as a binomial count does."""
        expected = row / each
        strays = expected * (1 - expected / len(ordered)) if is_total_known else expected
        return expected + sigmas * sqrt(max(1.0, strays))

    low = min(floor(place(first, -SIGMAS)) - 1, len(ordered) - 1)
    high = ceil(place(first + size, SIGMAS)) + 1
    return Span(ordered[low] if low >= 0 else None, ordered[high] if high < len(ordered) else None)


def pass_over(wanted: Select[Any], key: Any, number: Any, span: Span, *, is_descending: bool) -> Select[Any]:
    """One row: how many match; how many of these before the span; JSON of the pairs of key and number within it."""

    def is_before(end: Key) -> ColumnElement[bool]:
        if key is number:
            return number > end[1] if is_descending else number < end[1]  # type: ignore[no-any-return]
        is_passed = key > end[0] if is_descending else key < end[0]
        return or_(is_passed, and_(key == end[0], number < end[1]))

    before = func.coalesce(func.sum(case((is_before(span.low), 1), else_=0)), 0) if span.low else literal_column("0")
    inside: list[ColumnElement[bool]] = [~is_before(span.low)] if span.low else []
    inside += [is_before(span.high)] if span.high else []
    pairs = func.json_group_array(func.json_array(key, number)).filter(and_(true(), *inside))
    return wanted.with_only_columns(func.count(), before, pairs).order_by(None)
