"""What is wrong with slaves, in words for the field."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from edge_gateway.connectors.modbus.bus import ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, Refused
from edge_gateway.connectors.modbus.links import Link

_SHOWN: Final = 3

_FIXES: Final = {
    ILLEGAL_FUNCTION: "it has no such table, check `at`",
    ILLEGAL_ADDRESS: "check `at` and `base`",
    ILLEGAL_VALUE: "check `at`, `as` and its manual; it may not give so many registers at once (`max_block`)",
}


def refusal_text(refused: Refused, place: str, *, is_write: bool = False) -> str:
    """Such as: illegal data address at holding:100; check `at` and `base`."""
    fix = _FIXES.get(refused.code, "see its manual")
    if is_write and refused.code == ILLEGAL_VALUE:
        fix = "it does not take this value; see its manual for the range"
    if is_write and refused.code == ILLEGAL_FUNCTION:
        fix = "it cannot be written this way"
    return f"{refused} at {place}; {fix}"


class Faults:
    """The places that cannot be read. Faults of one place replace each other."""

    def __init__(self) -> None:
        self._texts: dict[tuple[int, str], str] = {}
        self.has_changed = False

    def note(self, unit: int, place: str, text: str) -> None:
        full = f"unit {unit}: {text}"
        if self._texts.get((unit, place)) != full:
            self._texts[unit, place] = full
            self.has_changed = True

    def gone(self, unit: int, place: str) -> None:
        if self._texts.pop((unit, place), None) is not None:
            self.has_changed = True

    def shown(self) -> str:
        """A few of them; empty when there is none."""
        texts = list(self._texts.values())
        more = len(texts) - _SHOWN
        return "; ".join(texts[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def silent_text(silent: Collection[int], all_count: int, link: Link) -> str:
    """Empty when nobody is silent."""
    if not silent:
        return ""
    who = f"unit{'s' if len(silent) > 1 else ''} {ranges(silent)}"
    verb = "do" if len(silent) > 1 else "does"
    fix = "check power, wiring and the unit number"
    if len(silent) == all_count:
        fix += ", and baud, parity and stop bits" if link.is_serial else ", and that this is the right address"
    return f"{who} {verb} not answer at {link}; {fix}"


def ranges(numbers: Collection[int]) -> str:
    """`3, 7-9`."""
    texts: list[str] = []
    run: list[int] = []
    for number in [*sorted(numbers), None]:
        if run and number != run[-1] + 1:
            texts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        if number is not None:
            run.append(number)
    return ", ".join(texts)


def unreachable_text(link: Link, reason: str) -> str:
    """Why there is no connection, and what may help."""
    if link.is_serial:
        fix = (
            "check that the adapter is plugged in, its name (ls /dev/serial/by-id), the right to use it "
            "(group dialout), and that it can do this speed and parity"
        )
    else:
        fix = "check its power and network, the address and the port in `connect`, and that it allows Modbus TCP"
    return f"cannot reach {link}: {reason}; {fix}"
