"""Sheets of labels: where on the paper each label is. Millimetres from the left and from the top."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from shared.errors import InvalidArgument

INCH = 25.4
SMALLEST_MM, LARGEST_MM = 10.0, 300.0  # of a label on a roll
_ROLL = re.compile(r"roll-([0-9]{1,3}(?:\.[0-9])?)x([0-9]{1,3}(?:\.[0-9])?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Labels of `label_width` by `label_height` in `columns` and `rows`, the first one at (`left`, `top`)."""

    name: str
    width: float
    height: float
    columns: int
    rows: int
    label_width: float
    label_height: float
    left: float
    top: float
    column_step: float  # from the left edge of a label to that of the next one
    row_step: float
    margin_x: float = 2.0  # within a label: what a printer may miss, or print beside it
    margin_y: float = 2.0

    @property
    def per_page(self) -> int:
        return self.columns * self.rows

    def place(self, index: int) -> tuple[float, float]:
        """Left and top of the label at a position of the page, counted from 0 along the rows."""
        row, column = divmod(index, self.columns)
        return self.left + column * self.column_step, self.top + row * self.row_step

    def places(self, count: int, start: int) -> Iterator[tuple[int, float, float]]:
        """(page from 0, left, top) of `count` labels, of which the first has position `start`, counted from 1.

        Raises: InvalidArgument where the sheet has no such position.
        """
        if not 1 <= start <= self.per_page:
            raise InvalidArgument(f"The position to start at must be 1 to {self.per_page} on the sheet {self.name}")
        for index in range(start - 1, start - 1 + count):
            page, at = divmod(index, self.per_page)
            yield (page, *self.place(at))

    def pages(self, count: int, start: int) -> int:
        return -(-(start - 1 + count) // self.per_page)


SHEETS = {
    one.name: one
    for one in (
        Sheet(  # fills the paper; printers leave some 4 mm at its edges blank
            name="a4-24", width=210, height=297, columns=3, rows=8, label_width=70, label_height=37, left=0, top=0.5,
            column_step=70, row_step=37, margin_x=5, margin_y=4,
        ),
        Sheet(
            name="a4-21", width=210, height=297, columns=3, rows=7, label_width=63.5, label_height=38.1, left=7.25,
            top=15.15, column_step=66, row_step=38.1,
        ),
        Sheet(
            name="letter-30", width=8.5 * INCH, height=11 * INCH, columns=3, rows=10, label_width=2.625 * INCH,
            label_height=INCH, left=0.1875 * INCH, top=0.5 * INCH, column_step=2.75 * INCH, row_step=INCH,
        ),
    )
}  # fmt: skip
DEFAULT_SHEET = "a4-24"


def sheet_of(name: str) -> Sheet:
    """By its name, or a roll of single labels by their size: `roll-50x25`. Raises: InvalidArgument."""
    roll = _ROLL.fullmatch(name)
    if roll is None:
        known = SHEETS.get(name)
        if known is None:
            raise InvalidArgument(
                f"Unknown sheet '{name[:40]}'; use {', '.join(SHEETS)}, or roll-WIDTHxHEIGHT in mm, such as roll-50x25"
            )
        return known
    width, height = float(roll[1]), float(roll[2])
    if not (SMALLEST_MM <= width <= LARGEST_MM and SMALLEST_MM <= height <= LARGEST_MM):
        raise InvalidArgument(f"Labels of a roll may have {SMALLEST_MM:.0f} to {LARGEST_MM:.0f} mm to a side")
    return Sheet(
        name=name, width=width, height=height, columns=1, rows=1, label_width=width, label_height=height, left=0,
        top=0, column_step=width, row_step=height, margin_x=1.5, margin_y=1.5,
    )  # fmt: skip
