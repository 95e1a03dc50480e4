"""Connections that many devices share in turn."""

from __future__ import annotations

from collections.abc import Callable

from cloud_core.simulator.network import Room


class Guest:
    """Counts its turns; gives its connection up when it is asked to."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.turns = 0

    def room_granted(self) -> None:
        self.turns += 1

    def yield_room(self) -> None:
        self._room.release()


def made(size: int) -> tuple[Room, list[Callable[[], None]]]:
    due: list[Callable[[], None]] = []
    return Room(size, due.append), due


def run(due: list[Callable[[], None]]) -> None:
    while due:
        due.pop(0)()


def test_who_comes_first_is_served_first() -> None:
    """As connections end, those that wait get them, one each, in their order."""
    room, due = made(2)
    guests = [Guest(room) for _ in range(5)]
    assert [room.take(one) for one in guests] == [True, True, False, False, False]
    run(due)
    room.release()
    run(due)
    assert [one.turns for one in guests] == [0, 0, 1, 0, 0]
    room.release()
    room.release()
    run(due)
    assert [one.turns for one in guests] == [0, 0, 1, 1, 1] and room.used == 2 and room.was_short


def test_nobody_overtakes_those_who_wait() -> None:
    """Who comes when a connection has just ended queues behind the others."""
    room, due = made(1)
    first, second, third = (Guest(room) for _ in range(3))
    assert room.take(first) and not room.take(second)
    room.release()
    assert not room.take(third)
    run(due)
    assert (second.turns, third.turns, room.used) == (1, 0, 1)


def test_those_who_have_never_reported_go_first() -> None:
    """However many come back for another report."""
    room, due = made(1)
    inside, back, outside = (Guest(room) for _ in range(3))
    assert room.take(inside) and not room.take(back) and not room.take(outside, is_outside=True)
    room.release()
    run(due)
    assert (back.turns, outside.turns) == (0, 1)


def test_who_rests_makes_room() -> None:
    """A device that has nothing to say gives its connection to one that waits; one that is busy keeps it."""
    room, due = made(2)
    resting, busy, waiting, late = (Guest(room) for _ in range(4))
    assert room.take(resting) and room.take(busy)
    room.rest(resting)
    room.rest(busy)
    room.busy(busy)
    assert not room.take(waiting) and not room.take(late)
    run(due)
    assert (waiting.turns, late.turns, room.used) == (1, 0, 2)
