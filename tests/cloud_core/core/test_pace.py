"""How long the pieces of an import are."""

from __future__ import annotations

from cloud_core.core.bulk.pace import MAX_ROWS, MIN_ROWS, WORK_S, Pace


def pace_with(row_s: float, pieces: int = 10) -> Pace:
    """After some pieces whose rows took so long each."""
    pace = Pace()
    for _ in range(pieces):
        pace.took(pace.rows * row_s)
    return pace


def test_a_piece_is_as_long_as_its_work_allows() -> None:
    """Rows that are quick make pieces of more of them, within bounds."""
    assert pace_with(WORK_S / 100).rows == 100
    assert pace_with(WORK_S / 10_000).rows == MAX_ROWS
    assert pace_with(WORK_S / 3).rows == MIN_ROWS
    assert pace_with(0.0).rows == MAX_ROWS


def test_pieces_grow_in_steps_and_shrink_at_once() -> None:
    """One that took long by chance costs no more than the way back."""
    pace = Pace()
    pace.took(0.0)
    assert pace.rows == 2 * MIN_ROWS
    pace.took(1.0)
    assert pace.rows == MIN_ROWS
