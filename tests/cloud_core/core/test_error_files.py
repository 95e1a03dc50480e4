"""Files of bad rows: what is loaded again is what was loaded before."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloud_core.core.bulk.error_files import csv_head, csv_row, ndjson_row
from cloud_core.core.bulk.reading import CSV, JSON, NDJSON, Format, Record, records
from cloud_core.core.bulk.rows import wish_of
from cloud_core.storage.interface.batches import BatchRow, RowStatus
from shared.messages import JsonValue

NO_NUL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
SCALARS = st.one_of(
    NO_NUL, st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["007", "7", "true", "1.0", "1e3", "[1]", '{"a": 1}', "null", " 7", "'7", "=1", "-1"]),
)  # fmt: skip
SHORT = st.integers(-(2**63), 2**63 - 1)
NESTED = st.lists(st.one_of(NO_NUL, st.booleans(), st.none(), SHORT), max_size=3) | st.dictionaries(
    NO_NUL, st.one_of(NO_NUL, st.booleans(), SHORT), max_size=3
)
COLUMNS = ("server:a", "shared:b", "timeseries:c", "label", "description")


def loaded(content: bytes, kind: str) -> list[Record]:
    return list(records(io.BytesIO(content), Format(kind=kind)))


def bad(record: Record) -> BatchRow:
    return BatchRow(number=record.number, status=RowStatus.ERROR, name="", cells=record.cells, detail="why")


@given(members=st.dictionaries(st.sampled_from(COLUMNS), SCALARS | NESTED), name=NO_NUL)
def test_values_of_a_json_file_come_back_with_their_types(members: dict[str, Any], name: str) -> None:
    """A text that looks like a number stays a text, a number a number; arrays and objects stay what they are."""
    (sent,) = loaded(json.dumps([{"name": name, **members}]).encode(), JSON)
    (again,) = loaded(ndjson_row(bad(sent)), NDJSON)
    assert again.cells == sent.cells
    assert {column: type(cell) for column, cell in again.cells.items()} == {
        column: type(cell) for column, cell in sent.cells.items()
    }


def test_the_values_of_a_bad_row_are_those_of_the_corrected_one() -> None:
    """What the device gets after the row was loaded again is what was meant the first time."""
    line = '{"name": "<a>", "server:serial": "007", "server:n": 7, "shared:on": "true", "shared:list": [1, "1"]}'
    (sent,) = loaded(line.encode(), NDJSON)
    text = ndjson_row(bad(sent)).decode()
    assert text == (
        '{"name":"<a>","server:serial":"007","server:n":7,"shared:on":"true","shared:list":[1,"1"],"error":"why"}\n'
    )
    (again,) = loaded(text.replace("<a>", "a").encode(), NDJSON)
    wish = wish_of(1, again.cells, casts=False)
    assert {key: value for values in wish.attributes.values() for key, value in values.items()} == {
        "serial": "007", "n": 7, "on": "true", "list": JsonValue('[1,"1"]'),
    }  # fmt: skip


@given(cell=NO_NUL.filter(lambda text: text.strip()))
def test_the_cells_of_a_csv_file_come_back_as_they_were(cell: str) -> None:
    """Character by character, so that they are cast alike."""
    row = BatchRow(number=2, status=RowStatus.ERROR, name="a", cells={"name": "a", "server:x": cell}, detail="=why")
    columns = ["name", "server:x"]
    (again,) = loaded(csv_head(columns, ",") + csv_row(row, columns, ","), CSV)
    assert again.cells == row.cells


def test_a_line_that_was_no_json_comes_back_with_its_reason_alone() -> None:
    (sent,) = loaded(b"{oops\n", NDJSON)
    assert "not valid JSON" in sent.fault
    assert ndjson_row(bad(sent)) == b'{"error":"why"}\n'
