"""From payloads to readings."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_gateway.mapping.compiling import check_map, compile_map
from edge_gateway.mapping.interface import Line, MappingError, MapSettings
from edge_gateway.model import Reading, ReportOn, ReportRule

NOW_MS = 1_764_000_000_000


def read(
    payload: bytes | str, captures: dict[str, str] | None = None, *, wants_raw: bool = False, **settings: Any
) -> list[Reading]:
    settings.setdefault("device", "d")
    compiled = compile_map(MapSettings(**settings), captures or {})
    body = payload.encode() if isinstance(payload, str) else payload
    return compiled.readings(body, captures or {}, wants_raw=wants_raw)


def telemetry(payload: bytes | str, *lines: str | Line, **settings: Any) -> Any:
    return read(payload, telemetry=list(lines), **settings)[0].telemetry


def test_the_example_of_the_manual() -> None:
    """Captures name the device; paths, types and wildcards give its values."""
    [reading] = read(
        '{"time":1764000000,"temp":21.5,"hum":"40","io":{"a":1,"b":"off"},"fw":"1.2"}',
        {"line": "a", "unit": "7"},
        device="{line}-{unit}",
        type="boiler",
        ts="$.time",
        telemetry=["$.temp -> temperature", "$.hum -> humidity: float", "$.io.* -> io_{key}: bool"],
        attributes=["$.fw -> firmware"],
    )
    values = {"temperature": 21.5, "humidity": 40.0, "io_a": True, "io_b": False}
    assert reading == Reading("a-7", "boiler", NOW_MS, values, {"firmware": "1.2"})


@pytest.mark.parametrize(
    ("payload", "line", "values"),
    [
        ('{"a":{"b":[1,2]}}', "$.a.b[1] -> x", {"x": 2}),
        ('{"a":{"b":[1,2]}}', "$['a']['b'][-1] -> x", {"x": 2}),
        ('{"a":[5,6]}', "$.a.* -> a{key}", {"a0": 5, "a1": 6}),
        ('{"s":[{"n":"t","v":1},{"n":"h","v":2}]}', "$.s[?@.n=='h'].v -> hum", {"hum": 2}),
        ('{"n":"t","v":1}', "$.v -> {$.n}", {"t": 1}),
        ('{"o":{"p":[1]}}', "$.o -> o", {"o": {"p": [1]}}),
        ("7", "$ -> value", {"value": 7}),
        ("{temperature:25}", "$.temperature -> t", {"t": 25}),
        ('{"a":18446744073709551616}', "$.a -> serial", {"serial": "18446744073709551616"}),
        ('{"a":"12.50"}', "$.a -> x: string", {"x": "12.50"}),
        ('{"a":true}', "$.a -> x: string", {"x": "true"}),
        ('{"a":"12"}', "$.a -> x: int", {"x": 12}),
        ('{"a":12.0}', "$.a -> x: int", {"x": 12}),
        ('{"a":"Yes"}', "$.a -> x: bool", {"x": True}),
        ('{"a":"[1,{\\"b\\":2}]"}', "$.a -> x: json", {"x": [1, {"b": 2}]}),
        ('{"a":"23"}', Line(at="$.a", key="x", scale=0.1), {"x": 2.3}),
        ('{"a":1523}', Line(at="$.a", key="x", scale=0.1), {"x": 152.3}),
        ('{"a":20.1}', Line(at="$.a", key="x", offset=-20), {"x": 0.1}),
        ('{"a":20}', Line(at="$.a", key="x", scale=10, offset=1), {"x": 201}),
    ],
)
def test_json(payload: str, line: str | Line, values: dict[str, Any]) -> None:
    """Paths of any kind, lenient JSON, and types that convert where the meaning is clear."""
    result = telemetry(payload, line)
    assert result == values
    assert [type(value) for value in result.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    ("data", "line", "values"),
    [
        ("00e1", Line(at="bytes:0-1", key="t", as_="int16", scale=0.1), {"t": 22.5}),
        ("00e1", "bytes:0 -> t: int16", {"t": 225}),
        ("2000447f", Line(at="bytes:0-3", key="p", as_="float32", words="big-swapped"), {"p": 1020.5}),
        ("00000000a5", "bits:4.0-4.3 -> low", {"low": 5}),
        ("00000000a5", "bits:4.7 -> alarm", {"alarm": True}),
        ("ff48656c6c6f", "bytes:1- -> text: string", {"text": "Hello"}),
    ],
)
def test_bytes(data: str, line: str | Line, values: dict[str, Any]) -> None:
    """Numbers, bits and texts at their places."""
    assert telemetry(bytes.fromhex(data), line, format="bytes") == values


@pytest.mark.parametrize(
    ("payload", "line", "values"),
    [
        (" 21.5\r\n", "text -> t", {"t": 21.5}),
        ("007", "text -> serial", {"serial": "007"}),
        ("T=21.5 H=40", "regex:T=([0-9.]+) -> t: float", {"t": 21.5}),
        ("T=21.5", "regex:[0-9.]+ -> t", {"t": 21.5}),
        ("ON", "text -> on: bool", {"on": True}),
    ],
)
def test_text(payload: str, line: str, values: dict[str, Any]) -> None:
    """The whole or a group; without a type numbers are told by their look."""
    assert telemetry(payload, line, format="text") == values


def test_csv_by_name() -> None:
    """A header gives names to columns; each row is a reading, and an empty cell no value."""
    found = read(
        "id;temp;note\nA;21.5;\n\nB;;ok\n",
        format="csv",
        delimiter=";",
        device="{csv:id}",
        telemetry=["csv:temp -> t", "csv:note -> note"],
    )
    assert [(one.device, one.telemetry) for one in found] == [("A", {"t": 21.5}), ("B", {"note": "ok"})]


def test_csv_by_number() -> None:
    """Columns count from 1, and there is no header then."""
    assert telemetry("A,1\n", "csv:2 -> t", format="csv") == {"t": 1}


def test_bytes_name_a_device_in_hex() -> None:
    """As serial numbers are printed."""
    [reading] = read(b"\x0a\x1b\x01", device="m-{bytes:0-1}", format="bytes", telemetry=["bytes:2 -> n: uint8"])
    assert reading.device == "m-0a1b"


def test_each_element_is_a_reading() -> None:
    """What an element does not say of device and time, the whole message does."""
    found = read(
        '{"site":"S","time":1764000000,"r":[{"id":1,"v":5},{"id":2,"v":6}]}',
        device="{$.site}-{$.id}",
        ts="$.time",
        each="$.r",
        telemetry=["$.v -> v"],
    )
    assert [(one.device, one.ts_ms, one.telemetry) for one in found] == [
        ("S-1", NOW_MS, {"v": 5}),
        ("S-2", NOW_MS, {"v": 6}),
    ]


def test_each_member_names_its_device() -> None:
    """For `{"A": {...}, "B": {...}}`."""
    found = read('{"A":{"v":1},"B":{"v":2}}', device="{each}", each="$.*", telemetry=["$.v -> v"])
    assert [(one.device, one.telemetry) for one in found] == [("A", {"v": 1}), ("B", {"v": 2})]


def test_one_broken_value_does_not_silence_the_others() -> None:
    """The error carries what could be read all the same."""
    with pytest.raises(MappingError) as caught:
        read(
            '[{"id":1,"v":5},{"id":2,"v":"n/a","w":1},{"id":3,"w":"x"}]',
            device="{$.id}",
            each="$",
            telemetry=[Line(at="$.v", key="v", as_="float", required=True), "$.w -> w: int"],
        )
    assert [one.device for one in caught.value.readings] == ["1"]
    assert str(caught.value) == (
        'element 1: v: "n/a" is no number, which float needs ($.v); '
        "element 2: the required key 'v' is missing: $.v finds nothing; "
        'element 2: w: "x" is no number, which float needs ($.w)'
    )


@pytest.mark.parametrize(
    ("payload", "settings", "told"),
    [
        ("", {}, "the payload is empty"),
        ("{", {}, "the payload is not JSON"),
        ('{"y":1}', {}, "nothing of the mapping is in the payload: looked for $.x; there are y"),
        ('{"x":null}', {}, "nothing of the mapping is in the payload"),
        ('{"x":1}', {"device": "{$.id}"}, "device: {$.id} finds nothing; there are x"),
        ('{"x":1,"id":" "}', {"device": "{$.id}"}, "device: the name is empty"),
        ('{"x":1,"id":{}}', {"device": "{$.id}"}, "a text or number is needed"),
        ('{"x":1}', {"each": "$.r"}, "each: finds nothing"),
        ('{"r":[]}', {"each": "$.r"}, "each: the array is empty"),
        ('{"x":1,"t":"noon"}', {"ts": "$.t"}, 'ts: "noon" is no time'),
        ('{"x":1,"t":"2026-05-01T12:00:00"}', {"ts": "$.t"}, "has no time zone"),
        (b"\xff", {"format": "text", "telemetry": ["text -> x"]}, "byte 1 is not UTF-8"),
        (b"\0", {"format": "bytes", "telemetry": ["bytes:4 -> x: uint8"]}, "it has 1 bytes"),
        ("a,b\n", {"format": "csv", "telemetry": ["csv:a -> x"]}, "no rows below its header"),
        ("a,b\n1,2\n", {"format": "csv", "telemetry": ["csv:c -> x"]}, "the columns are"),
    ],
)
def test_what_cannot_be_read_is_told(payload: str | bytes, settings: dict[str, Any], told: str) -> None:
    """What was looked for, and what is there."""
    with pytest.raises(MappingError) as caught:
        read(payload, **{"telemetry": ["$.x -> x"], **settings})
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("time", "format", "ts_ms"),
    [
        ("1764000000", "", NOW_MS),
        ("1764000000000", "", NOW_MS),
        ("1764000000.5", "", NOW_MS + 500),
        ('"1764000000"', "", NOW_MS),
        ("1764000000000000", "", NOW_MS),
        ('"2025-11-24T16:00:00Z"', "", NOW_MS),
        ('"2025-11-24T17:00:00+01:00"', "", NOW_MS),
        ('"2025-11-24T16:00:00"', "iso8601", NOW_MS),
        ('"24.11.2025 16:00"', "%d.%m.%Y %H:%M", NOW_MS),
        ("1764000000", "s", NOW_MS),
        ("1764000000000", "ms", NOW_MS),
        ("0", "", 0),
        ("1864000000", "", 1_864_000_000_000),
        ("null", "", None),
    ],
)
def test_the_sources_time(time: str, format: str, ts_ms: int | None) -> None:
    """Told by its look or by its format; one that cannot be meant is judged at acceptance."""
    [reading] = read(f'{{"x":1,"t":{time}}}', ts="$.t", ts_format=format, telemetry=["$.x -> x"])
    assert reading.ts_ms == ts_ms


def test_report_strategies_go_with_the_keys() -> None:
    """A key's own comes before the map's, also where the key is made of the payload."""
    rule = ReportRule(on=ReportOn.CHANGE)
    [plain] = read('{"a":1,"b":2}', telemetry=["$.a -> a", Line(at="$.b", key="b", report="received")], report="change")
    [wild] = read('{"o":{"a":1}}', telemetry=["$.o.* -> {key}"], report="change")
    assert (plain.reports, wild.reports) == ({"a": rule, "b": ReportRule()}, {"a": rule})


def test_raw_says_what_stood_on_the_wire() -> None:
    """For `try` and `tap`."""
    [reading] = read(bytes.fromhex("447f2000"), format="bytes", telemetry=["bytes:0-3 -> p: float32"], wants_raw=True)
    assert reading.raw == {"p": "bytes:0-3 0x447F 0x2000"}


@pytest.mark.parametrize(
    ("settings", "captures", "path", "told"),
    [
        ({"telemetry": ["$.a"]}, (), ("telemetry", 0), 'names no key; write "path -> key"'),
        ({"telemetry": ["a -> a"]}, (), ("telemetry", 0, "at"), "a path begins with $, such as $.a"),
        ({"telemetry": ["$.a-b -> a"]}, (), ("telemetry", 0, "at"), "is written $['my name']"),
        ({"telemetry": ["$.a -> a: flaot"]}, (), ("telemetry", 0), "did you mean 'float'?"),
        ({"telemetry": [Line(at="$.a", key="a", as_="uint16")]}, (), ("telemetry", 0, "as"), "is a type of bytes"),
        (
            {"telemetry": [Line(at="$.a", key="a", report="chnge")]},
            (),
            ("telemetry", 0, "report"),
            "no report strategy",
        ),
        ({"telemetry": [Line(at="$.a", key="")]}, (), ("telemetry", 0, "key"), "the key is empty"),
        ({"telemetry": ["$.* -> a"]}, (), ("telemetry", 0, "key"), "write the key with {key}"),
        ({"telemetry": ["$.a -> a", "$.b -> a"]}, (), ("telemetry", 1), "is given twice"),
        ({"telemetry": ["bytes:0 -> a: uint8"]}, (), ("telemetry", 0, "at"), 'write format = "bytes"'),
        ({"format": "bytes", "telemetry": ["bytes:0 -> a"]}, (), ("telemetry", 0, "as"), "bytes need a type"),
        ({"format": "bytes", "telemetry": ["bytes:0-3 -> a: uint16"]}, (), ("telemetry", 0, "at"), "uint16 takes 2"),
        ({"format": "bytes", "telemetry": ["bits:0.1-1.2 -> a"]}, (), ("telemetry", 0, "at"), "reaches over bytes"),
        ({"format": "text", "telemetry": ["regex:( -> a"]}, (), ("telemetry", 0, "at"), "no regular expression"),
        ({"format": "csv", "telemetry": ["csv:0 -> a"]}, (), ("telemetry", 0, "at"), "columns count from 1"),
        ({"format": "jsno"}, (), ("format",), "did you mean 'json'?"),
        ({"device": "{lien}"}, ("line",), ("device",), "did you mean 'line'?"),
        ({"device": " "}, (), ("device",), "device is empty"),
        ({"ts_format": "%H:%M"}, (), ("ts_format",), "has no year"),
        ({"ts_format": "iso"}, (), ("ts_format",), "is no ts_format"),
        ({"report": "x"}, (), ("report",), "is no report strategy"),
        ({"format": "text", "each": "$.a"}, (), ("each",), "each goes with JSON only"),
        ({"telemetry": []}, (), (), "the map takes nothing"),
        ({"telemetry": [Line(at="$.a", key="a", as_="bool", scale=2)]}, (), ("telemetry", 0, "as"), "need a number"),
    ],
)
def test_mistakes_are_told_with_their_place(
    settings: dict[str, Any], captures: tuple[str, ...], path: tuple[str | int, ...], told: str
) -> None:
    """Every mistake has the path to it and the fix."""
    problems = check_map(MapSettings(**{"device": "d", "telemetry": ["$.x -> x"], **settings}), captures)
    assert [problem.path for problem in problems if told in problem.text] == [path], problems


def test_all_mistakes_come_together() -> None:
    """One look at the file is enough."""
    problems = check_map(MapSettings(device="{x}", ts="time", telemetry=["$.a", "$.b -> b: flot", "$.c -> c"]))
    assert [problem.path for problem in problems] == [("device",), ("ts",), ("telemetry", 0), ("telemetry", 1)]


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(_is_finite(one) for one in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


LINES: dict[str, list[str | Line]] = {
    "json": ["$.a -> a: float", "$.b.* -> b_{key}", "$..c -> c", "$.d -> d: json", Line(at="$.e", key="e", scale=1e300),
             "$.f -> f: int", "$.g -> {$.h}: bool", "$ -> whole"],
    "bytes": ["bytes:0-3 -> a: float32", "bytes:1 -> b: bcd16", "bits:2.1-2.4 -> c", "bytes:0- -> d: string",
              Line(at="bytes:0", key="e", as_="float64", scale=1e300)],
    "text": ["text -> a", "regex:(\\d+) -> b: int", Line(at="text", key="c", scale=1e300)],
    "csv": ["csv:1 -> a", "csv:n -> b: float", Line(at="csv:2", key="c", scale=1e300)],
}  # fmt: skip
MAPS = {
    format: compile_map(
        MapSettings(device="d", ts={"json": "$.t", "csv": "csv:t", "text": "text", "bytes": "bytes:0-7"}[format],
                    format=format, telemetry=lines)
    )
    for format, lines in LINES.items()
}  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcdefght") | st.text(), inner),
    max_leaves=20,
)


def _assert_readings_or_error(format: str, payload: bytes) -> None:
    try:
        readings = MAPS[format].readings(payload, {})
    except MappingError as error:
        readings = error.readings
        assert str(error)
    for reading in readings:
        assert _is_finite(reading.telemetry)
        msgspec.json.encode(reading.telemetry)


@given(payload=st.binary(max_size=60) | st.text(alphabet='{}[]",:0129eE+-.nulatrfs;\n', max_size=60).map(str.encode))
@example(payload=b"[" * 100_000)
@example(payload=b'{"a":' * 100_000)
@example(payload=b'{"a":' * 400 + b"1" + b"}" * 400)
@example(payload=b'{"a":1e999,"b":{"x":NaN},"e":1e300}')
@example(payload=b'{"a":' + b"9" * 10_000 + b',"f":' + b"9" * 5000 + b',"t":' + b"9" * 400 + b"}")
@example(payload=b'{"t":99999999999999,"a":1}')
@example(payload=b'{"f":"\xc2\xb2"}')
@example(payload="\u0665".encode())
@example(payload=b"9" * 10_000)
@example(payload=b"n,t\n1,9e99\n")
def test_any_bytes_give_readings_or_a_mapping_error(payload: bytes) -> None:
    """Nothing that a device sends raises anything else; what comes out can be stored, and is finite."""
    for format in MAPS:
        _assert_readings_or_error(format, payload)


@given(JSON)
def test_any_document_gives_readings_or_a_mapping_error(document: Any) -> None:
    """JSON of any shape, with integers of any size."""
    _assert_readings_or_error("json", json.dumps(document).encode())


def test_a_search_that_finds_too_much_is_refused() -> None:
    """A small message cannot become a flood of keys."""
    with pytest.raises(MappingError, match="more than 10000 values"):
        read(msgspec.json.encode({"a": list(range(10_001))}), telemetry=["$.a.* -> a{key}"])
