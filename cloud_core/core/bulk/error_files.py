"""The bad rows of an import as a file that can be corrected and loaded again, in the format that the file came in.

CSV has no types: its texts are cast when they are loaded. JSON has them, so what came as JSON goes out as NDJSON, where
"007" stays a text and 7 a number.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec

from cloud_core.core.bulk.columns import ERROR
from cloud_core.core.bulk.reading import guarded
from cloud_core.core.bulk.rows import text_of
from cloud_core.storage.interface.batches import Batch, BatchRow

CSV_FILE, NDJSON_FILE = "errors.csv", "errors.ndjson"


def file_name_of(batch: Batch) -> str:
    """What the file of its bad rows is called."""
    return CSV_FILE if batch.options["casts"] else NDJSON_FILE


def csv_head(columns: Sequence[str], delimiter: str) -> bytes:
    return codecs.BOM_UTF8 + _csv_of([*columns, ERROR], delimiter)  # else spreadsheets guess the encoding


def csv_row(row: BatchRow, columns: Sequence[str], delimiter: str) -> bytes:
    """With the reason in the last column."""
    cells = (text_of(row.cells.get(column, "")) for column in columns)
    return _csv_of([*map(guarded, cells), guarded(row.detail)], delimiter)


def ndjson_row(row: BatchRow) -> bytes:
    """With the reason as its last member."""
    members = {column: _json_of(cell) for column, cell in row.cells.items()}
    return msgspec.json.encode({**members, ERROR: row.detail}) + b"\n"


def _json_of(cell: Any) -> Any:  # Any: a JSON scalar, or [JSON text], as `Record` holds it
    return msgspec.Raw(str(cell[0]).encode()) if isinstance(cell, list) else cell


def _csv_of(cells: list[str], delimiter: str) -> bytes:
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter).writerow(cells)
    return line.getvalue().encode()
