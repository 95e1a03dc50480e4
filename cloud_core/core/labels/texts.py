"""Texts that fit: shrunk first, then broken into lines, in the end cut with an ellipsis. Sizes and widths in points."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Container
from typing import NamedTuple

LINE = 1.18  # height of a line as a multiple of the size
ELLIPSIS = "…"
UNSHOWN = "\ufffd"  # stands for what the font does not have
_STEP = 0.5
_BREAKS = frozenset(" -_./:,;")

Width = Callable[[str], float]
"""Of a text at size 1."""


class Fitted(NamedTuple):
    lines: tuple[str, ...]
    size: float

    @property
    def height(self) -> float:
        return len(self.lines) * self.size * LINE


def shown(text: str, glyphs: Container[int]) -> str:
    """The text with what has no glyph replaced visibly."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(one if ord(one) in glyphs and one.isprintable() else UNSHOWN for one in composed)


def fitted(
    text: str, width_of: Width, *, width: float, height: float, largest: float, smallest: float, max_lines: int
) -> Fitted:
    """The text at the largest size at which it fits; at the smallest as much of it as fits.

    No lines where there is no room for one.
    """
    size = largest
    while True:
        room = min(max_lines, int(height / (size * LINE)))
        lines = wrapped(text, width_of, width / size)
        if 0 < len(lines) <= room:
            return Fitted(tuple(lines), size)
        if size - _STEP < smallest:
            break
        size -= _STEP
    if room < 1 or not lines:
        return Fitted((), size)
    kept = lines[: room - 1]
    rest = text[sum(map(len, kept)) :]
    return Fitted((*kept, _cut(rest, width_of, width / size)), size)


def wrapped(text: str, width_of: Width, width: float) -> list[str]:
    """Lines no wider than `width`, which together are the text; broken behind a space or sign where there is one.

    No lines where not even one character has room.
    """
    lines: list[str] = []
    while text:
        end = _fitting(text, width_of, width)
        if end == 0:
            return []
        if end < len(text):
            behind = max((at + 1 for at in range(end // 2, end) if text[at] in _BREAKS), default=end)
            end = behind
        lines.append(text[:end])
        text = text[end:]
    return lines


def _fitting(text: str, width_of: Width, width: float) -> int:
    """How many characters from the start have room."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width_of(text[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str, width_of: Width, width: float) -> str:
    return text[: _fitting(text, width_of, width - width_of(ELLIPSIS))] + ELLIPSIS
