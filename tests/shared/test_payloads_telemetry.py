"""Telemetry and attribute bodies: every row of wire-contract.md section 7.1, and the limits."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import MalformedRequest, RequestTooLarge
from shared.messages import JsonValue, Sample, Value
from shared.payloads import MAX_BODY_BYTES, parse_attributes, parse_telemetry
from shared.values import is_storable_key, looks_like_markup, typed_number

NOW_MS = 1_700_000_000_000


def telemetry(body: str | bytes) -> list[Sample]:
    return parse_telemetry(body.encode() if isinstance(body, str) else body, received_ms=NOW_MS)


# --- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "samples"),
    [
        ('{"temperature":42.2,"humidity":70}', [(NOW_MS, {"temperature": 42.2, "humidity": 70})]),
        ('{"ts":1527863043000,"values":{"t":42.2}}', [(1527863043000, {"t": 42.2})]),
        (
            '[{"ts":1527863043000,"values":{"t":42.2}},{"ts":1527863044000,"values":{"t":42.3}}]',
            [(1527863043000, {"t": 42.2}), (1527863044000, {"t": 42.3})],
        ),
        ('[{"key1":"value1"},{"key2":true}]', [(NOW_MS, {"key1": "value1"}), (NOW_MS, {"key2": True})]),
        ('[{"a":1},{"ts":5,"values":{"b":2}}]', [(NOW_MS, {"a": 1}), (5, {"b": 2})]),
        # only both members together make a pack
        ('{"ts":1,"temp":2}', [(NOW_MS, {"ts": 1, "temp": 2})]),
        ('{"values":{"a":1}}', [(NOW_MS, {"values": JsonValue('{"a":1}')})]),
        ('{"ts":1,"values":{"a":1},"metadata":{},"other":2}', [(1, {"a": 1})]),
        # nothing to store
        ("{}", []),
        ("[]", []),
        ("[{},{}]", []),
        ('{"ts":1,"values":{}}', []),
        ('{"a":null}', []),
        # lenient
        ("{temperature:25}", [(NOW_MS, {"temperature": 25})]),
        ("{ts:1;values={t=>'7'}} # end", [(1, {"t": 7})]),
        ('{"a":1,"a":2}', [(NOW_MS, {"a": 2})]),
    ],
)
def test_all_shapes_become_samples_in_the_order_given(body: str, samples: list[Sample]) -> None:
    assert telemetry(body) == samples


@pytest.mark.parametrize(
    ("written", "ts_ms"),
    [
        ("1527863043", 1527863043),  # seconds are stored as 1970
        ('"1527863043000"', 1527863043000),
        ("1527863043000.9", 1527863043000),
        ("1.527863043E12", 1527863043000),
        ("-1", -1),
        ("9223372036854775807", 2**63 - 1),
        ('"-9223372036854775808"', -(2**63)),
    ],
)
def test_a_timestamp_is_any_number_of_milliseconds(written: str, ts_ms: int) -> None:
    assert telemetry(f'{{"ts":{written},"values":{{"a":1}}}}') == [(ts_ms, {"a": 1})]
    assert telemetry(f"{{ts:{written},values:{{a:1}}}}") == [(ts_ms, {"a": 1})]


@pytest.mark.parametrize(
    "written",
    [
        "9223372036854775808",
        "-9223372036854775809",
        "1e30",
        '"1e3"',
        '"now"',
        '""',
        "null",
        "true",
        "{}",
        "[1]",
    ],
)
def test_any_other_timestamp_is_refused(written: str) -> None:
    with pytest.raises(MalformedRequest, match=r"^\$\.ts must be a number of milliseconds"):
        telemetry(f'{{"ts":{written},"values":{{"a":1}}}}')
    with pytest.raises(MalformedRequest, match=r"^\$\[1\]\.ts"):
        telemetry(f'[{{}},{{"ts":{written},"values":{{}}}}]')


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("", r"^\$ must be an object or a list"),
        ("null", r"^\$ must be"),
        ("5", r"^\$ must be"),
        ('"text"', r"^\$ must be"),
        ("[1]", r"^\$\[0\] must be an object"),
        ('[{"a":1},[{"b":1}]]', r"^\$\[1\] must be"),
        ('[{"a":1},null]', r"^\$\[1\] must be"),
        ("[{a:1},]", r"^\$\[1\] must be"),
        ('{"ts":1,"values":[]}', r"^\$\.values must be an object"),
        ('{"ts":1,"values":null}', r"^\$\.values must be"),
        ('{"a":1} x', "^The body is not JSON: more text after the value at character 9"),
        ('{"a":1,}', "expected a member name"),
    ],
)
def test_a_body_of_another_shape_is_refused_with_the_place(body: str, detail: str) -> None:
    with pytest.raises(MalformedRequest, match=detail):
        telemetry(body)


# --- typing --------------------------------------------------------------------------------------

TYPING: list[tuple[str, Value]] = [
    ("true", True),
    ("false", False),
    ("0", 0),
    ("-0", 0),
    ("42", 42),
    ("9223372036854775807", 2**63 - 1),
    ("-9223372036854775808", -(2**63)),
    ("1E+1", 10),
    ("1e1", 10),
    ("1.0E1", 10),
    ("12.5e1", 125),
    ("100e-2", 1),
    ("0e-20", 0),
    ("1.0", 1.0),
    ("42.0", 42.0),
    ("0.1", 0.1),
    ("-0.5", -0.5),
    ("101E-1", 10.1),
    ("1.5e-15", 1.5e-15),
    ("0.1234567890123456", 0.1234567890123456),
    # beyond 64 bits, or more than 16 decimal places
    ("9223372036854775808", "9223372036854775808"),
    ("-9223372036854775809", "-9223372036854775809"),
    ("1" * 30, "1" * 30),
    ("1" * 5000, "1" * 5000),
    ("1e30", "1" + "0" * 30),
    ("-1.5E20", "-150000000000000000000"),
    ("0.12345678901234567", "0.12345678901234567"),
    ("0.10000000000000000", "0.10000000000000000"),
    ("1.5e-20", "0.000000000000000000015"),
    ("-1e-17", "-0.00000000000000001"),
    ("1" * 400 + ".5", "1" * 400 + ".5"),  # no double holds it
    # what would be written out too long keeps its text
    ("1e999999999", "1e999999999"),
    ("1e-999999999", "1e-999999999"),
    ("1e99999999999999999999", "1e99999999999999999999"),
    # strings that look like numbers, and strings that do not
    ('"42"', 42),
    ('"-1.5"', -1.5),
    ('"007"', 7),
    ('".5"', 0.5),
    ('"-.5"', -0.5),
    ('"42.0"', 42.0),
    ('"00.10"', 0.1),
    ('"9223372036854775808"', "9223372036854775808"),
    ('"0.12345678901234567"', "0.12345678901234567"),
    ('"1e5"', "1e5"),
    ('"+1"', "+1"),
    ('" 1"', " 1"),
    ('"1 "', "1 "),
    ('"1."', "1."),
    ('"."', "."),
    ('"-"', "-"),
    ('"1.2.3"', "1.2.3"),
    ('"0x1F"', "0x1F"),
    ('"1_0"', "1_0"),
    ('"1\\n"', "1\n"),
    ('"\u0663"', "\u0663"),
    ('"NaN"', "NaN"),
    ('"true"', "true"),
    ('""', ""),
    ('"node7"', "node7"),
    ('"2024-01-01"', "2024-01-01"),
    # JSON values
    ("{}", JsonValue("{}")),
    ("[ ]", JsonValue("[]")),
    ('{ "a" : [ 1, 2.5, "7", null, true ] }', JsonValue('{"a":[1,2.5,"7",null,true]}')),
    ('{"a":1,"a":2}', JsonValue('{"a":2}')),
    ('{"a":"\\u00e4 \\/ \\" x"}', JsonValue('{"a":"\u00e4 / \\" x"}')),
    (
        "[123456789012345678901234567890,0.12345678901234567890,1E+1,1.0]",
        JsonValue("[123456789012345678901234567890,0.12345678901234567890,1E+1,1.0]"),
    ),
]


@pytest.mark.parametrize(("written", "value"), TYPING)
def test_a_value_is_typed_by_its_written_form(written: str, value: Value) -> None:
    strict = telemetry(f'{{"k":{written}}}')
    lenient = telemetry(f"{{k={written}}}")
    assert strict == lenient == [(NOW_MS, {"k": value})]
    assert type(strict[0][1]["k"]) is type(lenient[0][1]["k"]) is type(value)
    assert parse_attributes(f'{{"k":{written}}}'.encode()) == {"k": value}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("007", 7),
        ("+1", "+1"),
        ("TRUE", True),
        ("word", "word"),
        ("[NaN,,1E1]", JsonValue('["NaN",null,1E1]')),
        ("{a=b}", JsonValue('{"a":"b"}')),
    ],
)
def test_unquoted_words_are_typed_as_strings(written: str, value: Value) -> None:
    assert telemetry(f"{{k:{written}}}") == [(NOW_MS, {"k": value})]


def test_null_is_skipped_and_the_rest_kept() -> None:
    assert telemetry('{"a":null,"b":1}') == [(NOW_MS, {"b": 1})]
    assert parse_attributes(b'{"a":null,"b":"x"}') == {"b": "x"}


@given(st.integers())
def test_every_integer_is_a_long_or_its_digits(number: int) -> None:
    expected: Value = number if -(2**63) <= number < 2**63 else str(number)
    assert telemetry(f'{{"k":{number}}}') == [(NOW_MS, {"k": expected})]
    assert telemetry(f'{{"k":"{number}"}}') == [(NOW_MS, {"k": expected})]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_keeps_its_value(number: float) -> None:
    value = telemetry(json.dumps({"k": number}))[0][1]["k"]
    assert not isinstance(value, (bool, JsonValue))
    assert float(value) == number


@given(st.from_regex(r"-?[0-9]{0,25}(\.[0-9]{0,25})?([eE][+-]?[0-9]{1,12})?", fullmatch=True))
def test_typing_a_number_never_fails_nor_gives_infinity(text: str) -> None:
    value = typed_number(text)
    assert not isinstance(value, float) or math.isfinite(value)
    assert not isinstance(value, int) or -(2**63) <= value < 2**63
    assert not isinstance(value, str) or len(value) <= max(len(text), 1100)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
)
bodies = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner)),
    max_size=6,
)


@given(bodies)
def test_strict_and_lenient_reading_give_the_same_values(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assert telemetry(text) == telemetry("/* lenient */" + text)
    assert repr(telemetry(text)) == repr(telemetry("/* lenient */" + text))


@given(st.binary(max_size=60) | st.text('{}[]:,"ab1.eE-tsvalues', max_size=40).map(str.encode))
def test_any_bytes_give_samples_or_a_refusal(body: bytes) -> None:
    try:
        samples = telemetry(body)
    except MalformedRequest:
        return
    for ts_ms, values in samples:
        assert -(2**63) <= ts_ms < 2**63
        assert values
        assert all(is_storable_key(key) and value is not None for key, value in values.items())


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["", " ", "\t\n", "x" * 256, "<b>", "a<script>alert(1)</script>", "</p>", "<!-- -->", "<?x", "a\0b"],
)
def test_a_bad_name_is_dropped_and_reported_and_the_rest_kept(key: str) -> None:
    dropped: list[str] = []
    body = json.dumps({"before": 1, key: 2, "after": "3"}).encode()
    assert parse_telemetry(body, received_ms=NOW_MS, on_bad_key=dropped.append) == [(NOW_MS, {"before": 1, "after": 3})]
    assert parse_attributes(body, on_bad_key=dropped.append) == {"before": 1, "after": 3}
    assert dropped == [key, key]
    assert telemetry(body) == [(NOW_MS, {"before": 1, "after": 3})]


@pytest.mark.parametrize("key", ["a", " a ", "x" * 255, "a < b", "a<1", "a>b", "ключ", "a/b.c:d"])
def test_a_usual_name_is_kept(key: str) -> None:
    assert parse_attributes(json.dumps({key: 1}).encode()) == {key: 1}


def test_names_stay_checked_when_the_memory_of_good_ones_overflows() -> None:
    for number in range(5000):
        assert is_storable_key(f"key{number}")
    assert is_storable_key("key0")
    assert not is_storable_key("<b>")


@pytest.mark.parametrize(
    ("text", "verdict"), [("<b>", True), ("a</x", True), ("<!x", True), ("1 < 2", False), ("", False)]
)
def test_markup_is_what_a_browser_takes_for_a_tag(text: str, verdict: bool) -> None:
    assert looks_like_markup(text) is verdict


# --- attributes and limits -----------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"[]", b'[{"a":1}]', b"null", b"1", b"word"])
def test_attributes_must_be_an_object(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"^\$ must be an object"):
        parse_attributes(body)


def test_attributes_named_ts_and_values_are_attributes() -> None:
    assert parse_attributes(b'{"ts":1,"values":{"a":1}}') == {"ts": 1, "values": JsonValue('{"a":1}')}


def test_a_body_above_the_limit_is_too_large() -> None:
    body = b'{"a":1' + b" " * (MAX_BODY_BYTES - 7) + b"}"
    assert telemetry(body) == [(NOW_MS, {"a": 1})]
    assert parse_attributes(body) == {"a": 1}
    with pytest.raises(RequestTooLarge, match="65537 bytes; at most 65536"):
        telemetry(body + b" ")
    with pytest.raises(RequestTooLarge):
        parse_attributes(body + b" ")


def test_the_number_of_values_is_bounded() -> None:
    body = b"[{a:1,b:2},{c:3}]"
    assert len(parse_telemetry(body, received_ms=NOW_MS, max_values=3)) == 2
    with pytest.raises(RequestTooLarge, match="3 values; at most 2"):
        parse_telemetry(body, received_ms=NOW_MS, max_values=2)
    with pytest.raises(RequestTooLarge):
        parse_attributes(b"{a:1,b:2,c:3}", max_values=2)


@pytest.mark.parametrize("form", ['{"k":%s}', "{k:%s}", '[{"ts":1,"values":{"k":%s}}]', "[{ts:1,values:{k:%s}}]"])
def test_nesting_inside_a_value_is_bounded_alike_in_every_form(form: str) -> None:
    deepest = "[" * 32 + "]" * 32
    assert telemetry(form % deepest)[0][1] == {"k": JsonValue(deepest)}
    with pytest.raises(MalformedRequest, match=r"nested deeper than 3[25] levels"):
        telemetry(form % f"[{deepest}]")


@pytest.mark.parametrize("body", ["[" * 60_000, '{"a":' * 10_000, '{"k":' + "[" * 30_000 + "]" * 30_000 + "}"])
def test_absurd_nesting_is_refused(body: str) -> None:
    with pytest.raises(MalformedRequest, match="nested deeper"):
        telemetry(body)
