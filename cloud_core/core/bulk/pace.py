"""How many rows of an import make one piece.

Devices wait behind a piece, so it must be short; but each has a commit of its own, and where the disk is busy with
other things, the waiting for that takes longer than the rows: then pieces of 50 take three times as long as those of
150. So a piece is as long as its work allows, which is little where the processor is busy.
"""

from __future__ import annotations

WORK_S = 0.010  # for which a piece may occupy the writer
MIN_ROWS, MAX_ROWS = 50, 250
_GROWTH = 2  # at most, from one piece to the next


class Pace:
    """Of one run through a batch."""

    def __init__(self) -> None:
        self.rows = MIN_ROWS  # of the next piece

    def took(self, seconds: float) -> None:
        """The last one occupied the writer for so long, its commit not counted."""
        wanted = int(self.rows * WORK_S / max(seconds, 1e-6))
        self.rows = max(MIN_ROWS, min(wanted, _GROWTH * self.rows, MAX_ROWS))
