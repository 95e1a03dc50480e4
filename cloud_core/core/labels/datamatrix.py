"""Data Matrix ECC 200: a text as a square of modules.

ASCII goes by itself, two digits to a codeword; anything else as UTF-8 in base 256 behind its ECI, as scanners expect.
Source: ISO/IEC 16022 (encodation, error correction, placement).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

Matrix = tuple[tuple[bool, ...], ...]
"""Rows of modules from the top, dark ones True, without the quiet zone."""

QUIET_MODULES = 2
_POLYNOMIAL = 0x12D
_PAD, _LATCH_BASE_256, _ECI, _UTF8 = 129, 231, 241, 27


class _Symbol(NamedTuple):
    """One size. `regions` to a side, each of `region` modules between its finder patterns."""

    regions: int
    region: int
    data: int  # codewords
    correction: int
    blocks: int


_SYMBOLS = tuple(
    _Symbol(*numbers)
    for numbers in (
        (1, 8, 3, 5, 1), (1, 10, 5, 7, 1), (1, 12, 8, 10, 1), (1, 14, 12, 12, 1), (1, 16, 18, 14, 1),
        (1, 18, 22, 18, 1),
        (1, 20, 30, 20, 1), (1, 22, 36, 24, 1), (1, 24, 44, 28, 1), (2, 14, 62, 36, 1), (2, 16, 86, 42, 1),
        (2, 18, 114, 48, 1), (2, 20, 144, 56, 1), (2, 22, 174, 68, 1), (2, 24, 204, 84, 2), (4, 14, 280, 112, 2),
        (4, 16, 368, 144, 4), (4, 18, 456, 192, 4), (4, 20, 576, 224, 4), (4, 22, 696, 272, 4), (4, 24, 816, 336, 6),
        (6, 18, 1050, 408, 6), (6, 20, 1304, 496, 8),
    )
)  # fmt: skip


class TooLong(ValueError):
    """More than the largest code holds."""


def encoded(text: str) -> Matrix:
    """The smallest code that holds the text. Raises: TooLong."""
    words = _ascii(text) if text.isascii() else _base_256(text.encode())
    symbol = next((one for one in _SYMBOLS if one.data >= len(words)), None)
    if symbol is None:
        raise TooLong
    words = _padded(words, symbol.data)
    return _drawn(symbol, words + _corrections(symbol, words))


def _ascii(text: str) -> list[int]:
    words, at = [], 0
    while at < len(text):
        pair = text[at : at + 2]
        if len(pair) == 2 and pair.isdigit():
            words.append(130 + int(pair))
            at += 2
        else:
            words.append(ord(text[at]) + 1)
            at += 1
    return words


def _base_256(data: bytes) -> list[int]:
    words = [_ECI, _UTF8, _LATCH_BASE_256]
    length = [len(data)] if len(data) < 250 else [len(data) // 250 + 249, len(data) % 250]
    for value in (*length, *data):
        place = len(words) + 1
        words.append((value + 149 * place % 255 + 1) % 256)
    return words


def _padded(words: list[int], count: int) -> list[int]:
    padded = [*words, _PAD][:count]
    while len(padded) < count:
        value = _PAD + 149 * (len(padded) + 1) % 253 + 1
        padded.append(value if value <= 254 else value - 254)
    return padded


# -- error correction -----------------------------------------------------------------------------


@cache
def _tables() -> tuple[tuple[int, ...], dict[int, int]]:
    """Powers of 2 in the field, twice over, and their logarithms."""
    powers, value = [], 1
    for _ in range(255):
        powers.append(value)
        value <<= 1
        if value > 255:
            value ^= _POLYNOMIAL
    return (*powers, *powers), {power: exponent for exponent, power in enumerate(powers)}


@cache
def _generator(degree: int) -> tuple[int, ...]:
    """Logarithms of the coefficients behind the leading one."""
    powers, logs = _tables()
    poly = [1]
    for exponent in range(1, degree + 1):
        shifted = [*poly, 0]
        for at, factor in enumerate(poly):
            shifted[at + 1] ^= powers[logs[factor] + exponent] if factor else 0
        poly = shifted
    return tuple(logs[one] for one in poly[1:])


def _corrections(symbol: _Symbol, words: list[int]) -> list[int]:
    powers, logs = _tables()
    each = symbol.correction // symbol.blocks
    factors = _generator(each)
    found = [0] * symbol.correction
    for block in range(symbol.blocks):
        rest = [0] * each
        for word in words[block :: symbol.blocks]:
            lead = word ^ rest[0]
            rest = [*rest[1:], 0]
            if lead:
                rest = [one ^ powers[logs[lead] + factor] for one, factor in zip(rest, factors, strict=True)]
        found[block :: symbol.blocks] = rest
    return found


# -- placement ------------------------------------------------------------------------------------

_CORNERS = (
    ((-1, 0), (-1, 1), (-1, 2), (0, -2), (0, -1), (1, -1), (2, -1), (3, -1)),
    ((-3, 0), (-2, 0), (-1, 0), (0, -4), (0, -3), (0, -2), (0, -1), (1, -1)),
    ((-3, 0), (-2, 0), (-1, 0), (0, -2), (0, -1), (1, -1), (2, -1), (3, -1)),
    ((-1, 0), (-1, -1), (0, -3), (0, -2), (0, -1), (1, -3), (1, -2), (1, -1)),
)
_SHAPE = ((-2, -2), (-2, -1), (-1, -2), (-1, -1), (-1, 0), (0, -2), (0, -1), (0, 0))


@cache
def _places(size: int) -> dict[tuple[int, int], tuple[int, int]]:
    """Where each bit stands in a square of `size` data modules: {(row, column): (codeword, bit from the highest)}.

    Modules that are not in it are a fixed pattern.
    """
    places: dict[tuple[int, int], tuple[int, int]] = {}
    word = 0

    def put(modules: list[tuple[int, int]]) -> None:
        nonlocal word
        for bit, module in enumerate(modules):
            places[module] = word, bit
        word += 1

    def shape(row: int, column: int) -> None:
        if 0 <= row < size and 0 <= column < size and (row, column) not in places:
            put([_wrapped(row + down, column + right, size) for down, right in _SHAPE])

    row, column = 4, 0
    while row < size or column < size:
        corner = _corner(row, column, size)
        if corner is not None:
            put([(down % size, right % size) for down, right in _CORNERS[corner]])
        while True:
            shape(row, column)
            row, column = row - 2, column + 2
            if row < 0 or column >= size:
                break
        row, column = row + 1, column + 3
        while True:
            shape(row, column)
            row, column = row + 2, column - 2
            if row >= size or column < 0:
                break
        row, column = row + 3, column + 1
    return places


def _corner(row: int, column: int, size: int) -> int | None:
    if (row, column) == (size, 0):
        return 0
    if (row, column) == (size - 2, 0) and size % 4:
        return 1
    if (row, column) == (size - 2, 0) and size % 8 == 4:
        return 2
    if (row, column) == (size + 4, 2) and size % 8 == 0:
        return 3
    return None


def _wrapped(row: int, column: int, size: int) -> tuple[int, int]:
    turn = 4 - (size + 4) % 8
    if row < 0:
        row, column = row + size, column + turn
    if column < 0:
        row, column = row + turn, column + size
    return row, column


_DARK, _LIGHT = -1, -2


@cache
def _pattern(symbol: _Symbol) -> tuple[tuple[int, ...], ...]:
    """Of each module the bit that stands there, counted over all codewords, or _DARK or _LIGHT where none does."""
    places = _places(symbol.regions * symbol.region)
    whole = symbol.region + 2

    def module(row: int, column: int) -> int:
        """Finder patterns: solid at the left and below, every second one above and at the right of each region."""
        down, right = row % whole, column % whole
        if right == 0 or down == whole - 1:
            return _DARK
        if down == 0:
            return _DARK if right % 2 == 0 else _LIGHT
        if right == whole - 1:
            return _DARK if down % 2 else _LIGHT
        at = row // whole * symbol.region + down - 1, column // whole * symbol.region + right - 1
        place = places.get(at)
        if place is None:  # the corner that no codeword reaches
            return _DARK if sum(at) % 2 == 0 else _LIGHT
        return 8 * place[0] + place[1]

    modules = range(symbol.regions * whole)
    return tuple(tuple(module(row, column) for column in modules) for row in modules)


def _drawn(symbol: _Symbol, words: list[int]) -> Matrix:
    bits = [bool(word >> bit & 1) for word in words for bit in range(7, -1, -1)]
    bits += [False, True]  # found by _LIGHT and _DARK
    return tuple(tuple([bits[at] for at in row]) for row in _pattern(symbol))
