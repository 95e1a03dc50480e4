"""Files of devices as records: delimiters, encodings, quotes, bounds; CSV, NDJSON and JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_core.core.bulk import reading
from cloud_core.core.bulk.columns import Columns, columns_of_mapping
from cloud_core.core.bulk.reading import JSON, NDJSON, Format, guarded, records
from cloud_core.core.bulk.rows import RowFault, cast_value, wish_of
from cloud_core.model import Scope
from shared.credentials import AccessToken, MqttBasic, X509Certificate
from shared.errors import InvalidArgument
from shared.messages import JsonValue

CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), max_size=12)


def read(content: bytes | str, **wanted: Any) -> list[dict[str, Any]]:
    data = content.encode() if isinstance(content, str) else content
    return [record.cells for record in records(io.BytesIO(data), Format(**wanted))]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\r\n", "\n"]),
)
def test_a_csv_file_is_read_as_it_was_written(
    rows: list[tuple[str, str]], delimiter: str, encoding: str, line_end: str
) -> None:
    """Whatever the delimiter, encoding and line ends are, and whatever the cells hold."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end)
    writer.writerow(["name", "label"])
    writer.writerows(rows)
    wanted = [
        {column: cell for column, cell in (("name", name), ("label", label)) if cell.strip()}
        for name, label in rows
        if name.strip() or label.strip()
    ]
    assert read(text.getvalue().encode(encoding)) == wanted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"name": CELLS.filter(bool), "server:x": st.integers(-(2**63), 2**63 - 1)})),
    st.sampled_from([None, 1]),
    st.integers(1, 40),
)
def test_json_arrays_and_lines_are_read_as_they_were_written(
    rows: list[dict[str, Any]], indent: int | None, chunk: int
) -> None:
    """However the elements of an array lie across the pieces that are read at a time."""
    before, reading._CHUNK_BYTES = reading._CHUNK_BYTES, chunk
    try:
        assert read(json.dumps(rows, indent=indent, ensure_ascii=False), kind=JSON, encoding="utf-8") == rows
    finally:
        reading._CHUNK_BYTES = before
    assert read("".join(f"{json.dumps(row)}\n" for row in rows), kind=NDJSON) == rows


def test_latin_1_is_recognised_where_it_is_no_utf_8() -> None:
    assert read("name;label\nA;Prüfstand\n".encode("latin-1")) == [{"name": "A", "label": "Prüfstand"}]
    assert read("name,label\nA,Prüfstand\n".encode("utf-16-le")) == [{"name": "A", "label": "Prüfstand"}]


def test_the_signs_of_a_windows_spreadsheet_are_read_as_they_are_meant() -> None:
    """Without a hint, too: the euro sign, dashes and quotes are where Latin-1 has control characters."""
    assert read("name;label\nA;5 € – „neu“ ü\n".encode("cp1252")) == [{"name": "A", "label": "5 € – „neu“ ü"}]
    assert read(b"name;label\nA;\x81\xfc\n") == [{"name": "A", "label": "\x81ü"}]  # nothing of Windows' then


def test_an_encoding_that_is_given_is_kept_to() -> None:
    """A file that is not of it is refused, with the fix."""
    with pytest.raises(InvalidArgument, match="encoding"):
        read(b"name\n\xff\xfe\xff\n", encoding="utf-8")
    with pytest.raises(InvalidArgument, match="Unknown encoding"):
        read("name\nA\n", encoding="ebcdic")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("nmae,type\nA,b\n", "did you mean 'name'"),
        ("type,label\na,b\n", "no column 'name'"),
        ("name,Name\na,b\n", "Two columns"),
        ("name,sever:x\na,b\n", "did you mean 'server:x'"),
        ("name,colour\na,b\n", "'server:colour' for a server attribute"),
        ('name\n"a\n', "check the quotes"),
        ('name\n"a"b\n', "check the quotes"),
        (f"name\n{'a' * (reading.MAX_LINE_CHARS + 1)}\n", "longer than"),
        (f'name\n"{"a" * 100_000}\n{"a" * 100_000}"\n', "check the quotes"),
        (",".join(f"server:{n}" for n in range(201)) + "\n1\n", "at most 200"),
        ("name\n" + '"a\n",' * 60_000, "longer than"),
        ('"name\n",' * 60_000, "longer than"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_fix(content: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        read(content)


@pytest.mark.parametrize(
    "content", ["", "{}", "[", '[{"name": "a"}', '[{"name": "a"} {"name": "b"}]', "[]x", '[{"a" 1}]', "[" * 100_000]
)
def test_what_is_no_json_array_is_refused(content: str) -> None:
    with pytest.raises(InvalidArgument, match="JSON array"):
        read(content, kind=JSON)


def test_a_row_that_is_no_object_is_a_row_with_a_fault() -> None:
    """The others are read on."""
    found = list(records(io.BytesIO(b'{"name": "a"}\n[1]\n{"nam\n\n{"name": "b"}\n'), Format(kind=NDJSON)))
    assert [(one.number, bool(one.fault)) for one in found] == [(1, False), (2, True), (3, True), (5, False)]


def test_records_of_json_have_no_more_columns_than_a_csv_file() -> None:
    """Counted over all rows: each is a column of the error file."""
    content = "".join(f'{{"name": "d{n}", "server:k{n}": 1}}\n' for n in range(300))
    for kind, text in ((NDJSON, content), (JSON, f"[{content.strip().replace(chr(10), ',')}]")):
        with pytest.raises(InvalidArgument, match="more than 200 different columns"):
            read(text, kind=kind)


def test_blank_lines_and_long_records_after_each_other_are_no_long_record() -> None:
    long = '"' + "a\n" * 50_000 + '"'
    assert len(read(f"name,label\n{'x,' + long + chr(10) * 3}" + f"y,{long}\nz,{long}\n")) == 3


def test_too_many_cells_are_a_fault_of_the_row() -> None:
    first, second = records(io.BytesIO(b"name,label\na,b,c\nd,e,,\n"), Format())
    assert ("3 cells" in first.fault, second.fault, second.number) == (True, "", 3)


def test_names_of_columns_may_be_mapped_and_are_taken_in_any_usual_form() -> None:
    assert read("Serial No,Is Gateway,X-509\nA,yes,c\n", mapped={"Serial No": "name"}) == [
        {"name": "A", "gateway": "yes", "x509": "c"}
    ]
    with pytest.raises(InvalidArgument, match="does not have"):
        read("name\nA\n", mapped={"Serial": "name"})


def test_the_reason_in_an_error_file_is_passed_over() -> None:
    """So that the file can be corrected and loaded again."""
    assert read("name,error\nA,The name was taken\n") == [{"name": "A"}]


def test_a_cell_of_an_error_file_that_was_kept_from_a_spreadsheet_is_what_it_was() -> None:
    """Only there: elsewhere an apostrophe is an apostrophe."""
    cells = ["=1+1", "'=1+1", "-5", "'-5", "+49 30", "@a", "\t=x", "plain", "o'neil", "-", "'"]
    assert [guarded(one) for one in cells] == [
        "'=1+1", "''=1+1", "-5", "''-5", "'+49 30", "'@a", "'\t=x", "plain", "o'neil", "'-", "'",
    ]  # fmt: skip
    for one in cells:
        assert read(f'name,label,error\nA,"{guarded(one)}",why\n') == [{"name": "A", "label": one}]
    assert read("name,label\nA,'=1\n") == [{"name": "A", "label": "'=1"}]


def test_thingsboards_mapping_says_what_columns_are() -> None:
    columns = columns_of_mapping(
        [{"type": "NAME"}, {"type": "MQTT_USER_NAME"}, {"type": "SERVER_ATTRIBUTE", "key": "DATA"}]
    )
    assert columns == Columns(("name", "mqtt_username", "server:DATA"))
    for wrong, message in (
        ([{"type": "NAMES"}], "did you mean NAME"),
        ([{"type": "NAME"}] * 201, "at most 200"),
        ([{"type": "NAME"}, {"type": "TIMESERIES"}], "needs a key"),
        ({"type": "NAME"}, "must be a list"),
        ([{"type": "NAME"}, {"type": "LWM2M_CLIENT_ENDPOINT"}], "Unknown column type"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            columns_of_mapping(wrong)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42), ("-1.5", -1.5), ("1e3", 1000.0), ("TRUE", True), ("false", False), ("1.0.3", "1.0.3"),
        ('{"a": [1, 2]}', JsonValue('{"a":[1,2]}')), ("{broken", "{broken"), ("9" * 30, "9" * 30), ("1e999", "1e999"),
        ("٣", "٣"),
    ],
)  # fmt: skip
def test_cells_of_attributes_are_cast(text: str, value: object) -> None:
    """Boolean, long, double and JSON, else the text (D3)."""
    assert cast_value(text) == value
    assert type(cast_value(text)) is type(value)


def test_a_row_is_read_as_a_wish() -> None:
    cells = {"name": " A ", "server:x": "1", "shared:y": "on", "timeseries:t": "2.5", "gateway": "1"}
    wish = wish_of(2, cells, casts=True)
    assert (wish.name, wish.is_gateway, wish.label) == ("A", True, None)
    assert wish.attributes == {Scope.SERVER: {"x": 1}, Scope.SHARED: {"y": "on"}}
    assert wish.time_series == {"t": 2.5}
    assert wish_of(2, {"name": "A", "server:x": "1"}, casts=False).attributes == {Scope.SERVER: {"x": "1"}}


def test_a_certificate_goes_before_mqtt_credentials_before_a_token() -> None:
    every = {"name": "A", "access_token": "t", "mqtt_username": "u", "x509": "-----BEGIN CERTIFICATE-----\nabc\n"}
    assert wish_of(1, every, casts=True).credentials == X509Certificate("abc")
    del every["x509"]
    assert wish_of(1, every, casts=True).credentials == MqttBasic("", "u", "")
    del every["mqtt_username"]
    assert wish_of(1, every, casts=True).credentials == AccessToken("t")


@pytest.mark.parametrize(
    ("cells", "code"),
    [
        ({"label": "x"}, "NAME_MISSING"),
        ({"name": "x" * 256}, "MALFORMED"),
        ({"name": "<script>"}, "MALFORMED"),
        ({"name": "x", "gateway": "perhaps"}, "MALFORMED"),
        ({"name": "x", "description": "d" * 5000}, "MALFORMED"),
        ({"name": "x", "server:a": "\0"}, "MALFORMED"),
        ({"name": ["{}"]}, "MALFORMED"),
        ({"name": "x", "mqtt_password": "p"}, "CREDENTIALS_INVALID"),
        ({"name": "x", "server:active": "true"}, "READ_ONLY"),
    ],
)
def test_what_a_row_alone_shows_to_be_wrong(cells: dict[str, Any], code: str) -> None:
    with pytest.raises(RowFault) as raised:
        wish_of(1, cells, casts=True)
    assert raised.value.code == code
