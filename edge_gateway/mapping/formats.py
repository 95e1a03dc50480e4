"""Formats of payloads: how bytes become documents, and what `at` means in them.

A document is decoded JSON, a text, bytes, or a row of CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edge_gateway.mapping import words
from edge_gateway.mapping.interface import MappingError
from edge_gateway.mapping.paths import MAX_FOUND, Path, compile_path
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.model import Json
from shared import lenient_json
from shared.values import typed_number

_BYTES = re.compile(r"bytes:(\d{1,9})(-(\d{1,9})?)?")
_BITS = re.compile(r"bits:(\d{1,9})\.([0-7])(?:-(\d{1,9})\.([0-7]))?")

_decode_strictly = msgspec.json.Decoder().decode


# --- decoding ------------------------------------------------------------------------------------


def decode_json(payload: bytes) -> Json:
    """Strictly first, then as ThingsBoard's transports read it. Raises: MappingError."""
    try:
        return _decode_strictly(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        pass
    if not payload.strip():
        raise MappingError("the payload is empty; JSON is expected")
    try:
        return lenient_json.parse(payload.decode("utf-8", "replace"), number=typed_number)
    except (lenient_json.LenientJsonError, RecursionError, ValueError) as error:
        raise MappingError(f"the payload is not JSON: {error}") from None


def decode_text(payload: bytes) -> str:
    """Raises: MappingError."""
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MappingError(f"the payload is no text: byte {error.start + 1} is not UTF-8") from None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of CSV; `columns` is the header's name → place."""

    cells: list[str]
    columns: dict[str, int]


def decode_csv(payload: bytes, delimiter: str, has_header: bool) -> list[Row]:
    """Rows that are not blank. Raises: MappingError."""
    text = decode_text(payload)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise MappingError(f"the payload is no CSV: {error}") from None
    columns: dict[str, int] = {}
    if has_header and rows:
        columns = {name.strip(): place for place, name in reversed(list(enumerate(rows.pop(0))))}
    if not rows:
        raise MappingError("the payload has no rows" + (" below its header" if has_header else ""))
    if len(rows) > MAX_FOUND:
        raise MappingError(f"the payload has more than {MAX_FOUND} rows")
    return [Row(row, columns) for row in rows]


# --- picking -------------------------------------------------------------------------------------


class Slice:
    """A `Path` for what has one place in a document: `get(document, missing)`."""

    is_single = True
    is_wildcard = False

    def __init__(self, get: Callable[..., Any], segment: str = "") -> None:
        self.first = get
        self._segment = segment

    def all(self, document: Json) -> list[tuple[str, Json]]:
        nothing = object()
        value = self.first(document, nothing)
        return [] if value is nothing else [(self._segment, value)]


def bytes_at(at: str, type: str = "") -> Path:
    """`bytes:0-3`, `bytes:4-` to the end, `bytes:4` as long as the type needs. Raises: MappingProblems."""
    place = _BYTES.fullmatch(at)
    if place is None:
        raise MappingProblems.of(f"'{at}' is no place in bytes; write bytes:0-3, bytes:4, or bytes:4- to the end")
    size = words.size_bytes(type) if type else None
    start = int(place[1])
    stop = int(place[3]) + 1 if place[3] else None if place[2] else start + (size or 1)
    if stop is not None and stop <= start:
        raise MappingProblems.of(f"'{at}' ends before it begins")
    if size and stop is not None and stop - start != size:
        raise MappingProblems.of(f"{type} takes {size} bytes, but {at} are {stop - start}; write bytes:{start}")

    def get(document: bytes, missing: Json = None) -> Json:
        enough = len(document) >= stop if stop is not None else len(document) > start
        return document[start:stop] if enough else missing

    return Slice(get)


def bits_at(at: str) -> tuple[Path, bool]:
    """`bits:4.0-4.3`: bits of byte 4, 0 the lowest; and whether it is only one. Raises: MappingProblems."""
    place = _BITS.fullmatch(at)
    if place is None:
        raise MappingProblems.of(f"'{at}' is no place of bits; write bits:4.0 or bits:4.0-4.3 (byte 4, bits 0 to 3)")
    byte, low, last_byte, high = (int(part) if part else None for part in place.groups())
    if last_byte is not None and last_byte != byte:
        raise MappingProblems.of(f"'{at}' reaches over bytes; bits are of one byte, for whole bytes write bytes:")
    if byte is None or low is None or (high is not None and high < low):
        raise MappingProblems.of(f"'{at}' ends before it begins; the lowest bit comes first")
    mask = (1 << ((low if high is None else high) - low + 1)) - 1

    def get(document: bytes, missing: Json = None) -> Json:
        return document[byte] >> low & mask if len(document) > byte else missing

    return Slice(get), high is None or high == low


def text_at(at: str) -> Path:
    """`text`, or `regex:…` with a group or without. Raises: MappingProblems."""
    if at == "text":
        return Slice(lambda document, missing=None: document.strip())
    if not at.startswith("regex:"):
        raise MappingProblems.of(f"'{at}' is nothing in a text; write text for the whole, or regex:(\\d+) for a part")
    try:
        expression = re.compile(at.removeprefix("regex:"))
    except (re.error, RecursionError, OverflowError) as error:
        raise MappingProblems.of(f"'{at}' is no regular expression: {error}") from None
    group = 1 if expression.groups else 0

    def get(document: str, missing: Json = None) -> Json:
        found = expression.search(document)
        return missing if found is None or found[group] is None else found[group]

    return Slice(get)


def csv_at(at: str) -> Path:
    """`csv:2` or `csv:name`; an empty cell is none. Raises: MappingProblems."""
    column = at.removeprefix("csv:").strip()
    if not at.startswith("csv:") or not column:
        raise MappingProblems.of(f"'{at}' is no column; write csv:1 for the first or csv:name for one of the header")
    if is_named_column(at):
        place = None
    elif (place := int(column[:9]) - 1) < 0:
        raise MappingProblems.of("columns count from 1: the first is csv:1")

    def get(document: Row, missing: Json = None) -> Json:
        index = document.columns.get(column) if place is None else place
        cell = document.cells[index].strip() if index is not None and index < len(document.cells) else ""
        return cell or missing

    return Slice(get, column)


def is_named_column(at: str) -> bool:
    """Whether `at` needs a header."""
    return at.startswith("csv:") and not at.removeprefix("csv:").strip().isdecimal()


FORMATS: Final = ("json", "bytes", "text", "csv")

_EXAMPLES: Final = {
    "json": "a path such as $.temperature",
    "bytes": "bytes:0-1 or bits:4.0",
    "text": "text or regex:(\\d+)",
    "csv": "csv:1 or csv:name",
}


def format_of(at: str) -> str:
    """The format to which `at` belongs; empty when to none."""
    kind = at.partition(":")[0]
    if at.startswith("$"):
        return "json"
    return {"bytes": "bytes", "bits": "bytes", "text": "text", "regex": "text", "csv": "csv"}.get(kind, "")


def compile_at(at: str, format: str, type: str = "") -> Path:
    """Raises: MappingProblems, also when `at` is of another format."""
    other = format_of(at)
    if other and other != format:
        raise MappingProblems.of(
            f"'{at}' does not go with format = \"{format}\", where {_EXAMPLES[format]} is expected; "
            f'for payloads of the other kind write format = "{other}"'
        )
    if format == "json":
        return compile_path(at)
    if format == "text":
        return text_at(at)
    if format == "csv":
        return csv_at(at)
    return bits_at(at)[0] if at.startswith("bits:") else bytes_at(at, type)
