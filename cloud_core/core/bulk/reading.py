"""Records out of a file: CSV of any delimiter, NDJSON, a JSON array; in any usual encoding, a piece at a time."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, TextIO

import msgspec

from cloud_core.core.bulk.columns import ERROR, MAX_COLUMNS, Columns, column_of, columns_of_header
from shared.errors import InvalidArgument

CSV, NDJSON, JSON = "csv", "ndjson", "json"
MAX_LINE_CHARS = 262_144  # also of all lines of a record together
MAX_CELL_CHARS = 131_072
MAX_ROWS = 500_000
DELIMITERS = ",;\t|"
_CHUNK_BYTES = 65_536
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_ENCODINGS = {
    "utf-8": "utf-8-sig", "utf8": "utf-8-sig", "utf-16": "utf-16", "utf16": "utf-16", "utf-16-le": "utf-16-le",
    "utf-16le": "utf-16-le", "utf-16-be": "utf-16-be", "utf-16be": "utf-16-be", "latin-1": "latin-1",
    "latin1": "latin-1", "iso-8859-1": "latin-1", "iso8859-1": "latin-1", "windows-1252": "cp1252",
    "cp1252": "cp1252", "us-ascii": "utf-8-sig", "ascii": "utf-8-sig",
}  # fmt: skip

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?")


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it came: its number (from 1, the header counts) and {column: cell}, without empty cells.

    A cell is text; of JSON any scalar, or a list of one: the JSON text of an object or array. `fault` says what keeps
    the row from being read.
    """

    number: int
    cells: dict[str, Any] = field(repr=False)
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a file is to be read; an empty `delimiter` or `encoding` is found out."""

    kind: str = CSV
    delimiter: str = ""
    encoding: str = ""
    has_header: bool = True
    columns: Columns | None = None  # of a mapping; without one, the header says
    mapped: dict[str, str] = field(default_factory=dict)  # {name in the file: column}


def with_delimiter(file: BinaryIO, wanted: Format) -> Format:
    """The same, with the delimiter that the file has. Raises: InvalidArgument."""
    if wanted.kind != CSV or wanted.delimiter:
        return wanted
    if wanted.columns is not None:
        return replace(wanted, delimiter=",")
    text = _text(file, wanted.encoding)
    try:
        return replace(wanted, delimiter=delimiter_of(_first_of(_Lines(text))))
    except UnicodeError:
        return wanted  # reading it says so
    finally:
        text.detach()


def records(file: BinaryIO, wanted: Format) -> Iterator[Record]:
    """The records of a file that can be read twice. Lazily: what is wrong far down is raised there.

    Raises: InvalidArgument for a file that cannot be read as what it is said to be, and for unknown columns.
    """
    text = _text(file, wanted.encoding)
    made = {CSV: _of_csv, NDJSON: _of_ndjson, JSON: _of_json}[wanted.kind]
    try:
        for count, record in enumerate(made(text, wanted), 1):
            if count > MAX_ROWS:
                raise InvalidArgument(f"The file has more than {MAX_ROWS} rows; split it")
            yield record
    except UnicodeError as error:
        raise InvalidArgument(
            f"The file is not valid {wanted.encoding or 'text'}: {error.reason if hasattr(error, 'reason') else error};"
            " name its encoding (utf-8, utf-16, latin-1)"
        ) from error
    finally:
        text.detach()


# -- encodings ------------------------------------------------------------------------------------


def _text(file: BinaryIO, encoding: str) -> io.TextIOWrapper:
    codec = _codec(file, encoding)
    file.seek(0)
    return io.TextIOWrapper(file, encoding=codec, newline="")


def _codec(file: BinaryIO, encoding: str) -> str:
    if encoding:
        known = _ENCODINGS.get(encoding.lower().replace("_", "-"))
        if known is None:
            raise InvalidArgument(f"Unknown encoding '{encoding[:40]}'; use utf-8, utf-16, latin-1 or windows-1252")
        return known
    file.seek(0)
    head = file.read(_CHUNK_BYTES)
    for bom, codec in _BOMS:
        if head.startswith(bom):
            return codec
    if head[1::2].count(0) * 3 > len(head):
        return "utf-16-le"
    if head[::2].count(0) * 3 > len(head):
        return "utf-16-be"
    # What spreadsheets on Windows write has signs where Latin-1 has control characters.
    return next((codec for codec in ("utf-8", "cp1252") if _is_valid(file, codec)), "latin-1")


def _is_valid(file: BinaryIO, codec: str) -> bool:
    decoder = codecs.getincrementaldecoder(codec)()
    file.seek(0)
    head = file.read(_CHUNK_BYTES)
    try:
        while head:
            decoder.decode(head)
            head = file.read(_CHUNK_BYTES)
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


# -- CSV ------------------------------------------------------------------------------------------


class _Lines:
    """Lines of a bounded length; a record of several, which open quotes make of them, is bounded likewise."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._number = self._record_chars = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE_CHARS + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._record_chars += len(line)
        if self._record_chars > MAX_LINE_CHARS:
            many = "Line" if self._record_chars == len(line) else "The row that ends at line"
            raise InvalidArgument(f"{many} {self._number} is longer than {MAX_LINE_CHARS} characters; check the quotes")
        return line

    def begin_record(self) -> None:
        """What comes next belongs to another record."""
        self._record_chars = 0


def _first_of(lines: _Lines) -> str:
    """The first that is not blank; empty where there is none."""
    for line in lines:
        if line.strip():
            return line
        lines.begin_record()
    return ""


def guarded(cell: str) -> str:
    """A cell of an error file, which no spreadsheet takes for a formula; read back, it is what it was."""
    return f"'{cell}" if _FORMULA.match(cell) and not _PLAIN_NUMBER.fullmatch(cell) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and guarded(cell[1:]) == cell else cell


def delimiter_of(line: str) -> str:
    """What divides the cells of a header: the candidate that is there most often outside of quotes."""
    bare = "".join(line.split('"')[::2])
    best = max(DELIMITERS, key=bare.count)
    return best if best in bare else ","


def _of_csv(text: TextIO, wanted: Format) -> Iterator[Record]:
    delimiter = wanted.delimiter
    if len(delimiter) > 1 or delimiter in ('"', "\r", "\n", "\0"):
        raise InvalidArgument("The delimiter must be a single character, such as , ; | or a tab")
    lines = _Lines(text)
    first = _first_of(lines)
    columns = wanted.columns
    if not first:
        raise InvalidArgument("The file is empty")
    reader = csv.reader(
        _with(first, lines), delimiter=delimiter or (delimiter_of(first) if columns is None else ","), strict=True
    )
    number = 0
    try:
        for cells in reader:
            lines.begin_record()
            if not any(cell.strip() for cell in cells):
                continue
            number += 1
            if number == 1 and wanted.has_header:
                columns = columns or columns_of_header(cells, wanted.mapped)
                continue
            if columns is None:
                raise InvalidArgument("A file without a header needs a mapping that says what its columns are")
            yield _record(number, columns.names, cells)
    except csv.Error as error:
        raise InvalidArgument(
            f"Near line {reader.line_num}: {error}; check the quotes there (a quote within a cell is written twice)"
        ) from error


def _with(first: str, rest: _Lines) -> Iterator[str]:
    yield first
    yield from rest


def _record(number: int, names: tuple[str, ...], cells: list[str]) -> Record:
    if ERROR in names:
        cells = [_unguarded(cell) for cell in cells]
    given = {name: cell for name, cell in zip(names, cells, strict=False) if cell.strip() and name != ERROR}
    if len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
        fault = f"The row has {len(cells)} cells, the header {len(names)}; put cells with the delimiter in quotes"
        return Record(number, given, fault)
    return Record(number, given)


# -- JSON -----------------------------------------------------------------------------------------


def _of_ndjson(text: TextIO, wanted: Format) -> Iterator[Record]:
    names = _Names(wanted.mapped)
    lines = _Lines(text)
    for number, line in enumerate(lines, 1):
        lines.begin_record()
        if line.strip():
            yield _of_object(number, line, names)


class _Names:
    """Members of objects to columns; each name is looked up once."""

    def __init__(self, mapped: dict[str, str]) -> None:
        self._mapped = mapped
        self._known: dict[str, str] = {}

    def column(self, member: str) -> str:
        known = self._known.get(member)
        if known is None:
            if len(self._known) >= MAX_COLUMNS:
                raise InvalidArgument(
                    f"The rows have more than {MAX_COLUMNS} different columns; put rarer ones into another file"
                )
            known = self._known[member] = column_of(member, self._mapped)
        return known


def _of_object(number: int, text: str, names: _Names) -> Record:
    try:
        members = msgspec.json.decode(text.strip().encode())
    except (msgspec.MsgspecError, RecursionError) as error:
        return Record(number, {}, f"The row is not valid JSON: {error}")
    if not isinstance(members, dict):
        return Record(number, {}, 'Each row must be an object such as {"name": "SN-1", "type": "sensor"}')
    cells: dict[str, Any] = {}
    fault = ""
    for member, value in members.items():
        column = names.column(member)
        if column == ERROR or value is None or value == "":
            continue
        if column in cells:
            fault = f"Two members mean '{column}'; leave one of them out"
        if isinstance(value, dict | list):
            value = [msgspec.json.encode(value).decode()]
        elif isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
            value = str(value)  # as long numbers in telemetry
        cells[column] = value
    return Record(number, cells, fault)


def _of_json(text: TextIO, wanted: Format) -> Iterator[Record]:
    names = _Names(wanted.mapped)
    for number, item in enumerate(_items(text), 1):
        yield _of_object(number, item, names)


def _items(text: TextIO) -> Iterator[str]:
    """The texts of the elements of an array, each bounded; never more than one and a chunk in memory."""
    decoder = json.JSONDecoder()
    buffer, is_begun, is_after_item = "", False, False
    while True:
        chunk = text.read(_CHUNK_BYTES)
        buffer = (buffer + chunk).lstrip()
        at = 0
        while True:
            at = _past_space(buffer, at)
            if at >= len(buffer):
                break
            mark = buffer[at]
            if not is_begun:
                if mark != "[":
                    raise InvalidArgument('The file must be a JSON array such as [{"name": "SN-1"}]')
                is_begun, at = True, at + 1
            elif mark == "]":
                if _past_space(buffer, at + 1) < len(buffer) or text.read(_CHUNK_BYTES).strip():
                    raise InvalidArgument("Something follows the end of the JSON array")
                return
            elif is_after_item:
                if mark != ",":
                    raise InvalidArgument(f"The JSON array has '{mark}' where a comma should be")
                is_after_item, at = False, at + 1
            else:
                end = _end_of_item(decoder, buffer, at)
                if end is None:
                    break
                yield buffer[at:end]
                is_after_item, at = True, end
        buffer = buffer[at:]
        if not chunk:
            raise InvalidArgument("The JSON array is not complete, or an element of it is not valid JSON")
        if len(buffer) > MAX_LINE_CHARS + _CHUNK_BYTES:
            raise InvalidArgument(
                f"An element of the JSON array is not valid, or longer than {MAX_LINE_CHARS} characters"
            )


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _end_of_item(decoder: json.JSONDecoder, text: str, at: int) -> int | None:
    """None where it is not all there yet. What is no object ends where the next comma may be seen."""
    try:
        end = decoder.raw_decode(text, at)[1]
    except RecursionError as error:
        raise InvalidArgument("An element of the JSON array is nested too deeply") from error
    except ValueError:
        return None
    return end if end < len(text) else None
