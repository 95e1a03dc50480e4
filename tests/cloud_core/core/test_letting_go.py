"""Whatever is forgotten as a whole does not keep the reactor from everything else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloud_core.core import letting_go
from cloud_core.core.letting_go import let_go


@pytest.mark.parametrize("counts", [(), (0, 0), (3, 4), (5, 5, 5), (25, 1, 7)])
def test_tables_are_emptied_a_piece_with_each_turn(counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Few entries at once, many in as many turns as it takes."""
    monkeypatch.setattr(letting_go, "PIECE", 5)
    tables = [dict.fromkeys(range(count)) for count in counts]
    turns: list[Callable[[], None]] = []
    let_go(lambda _delay_s, turn: turns.append(turn), *tables)
    left = [sum(map(len, tables))]
    while turns:
        turns.pop()()
        left.append(sum(map(len, tables)))
    assert left == [*range(sum(counts) - 5, 0, -5), 0]
