"""The lenient reader: every acceptance and refusal of wire-contract.md section 7.0."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.lenient_json import LenientJsonError, NumberText, number_of, parse

ACCEPTED = [
    # strict JSON
    ('{"a":1}', {"a": 1}),
    (' [ 1 , -2.5 , "x" , true , false , null ] ', [1, -2.5, "x", True, False, None]),
    ('"text"', "text"),
    ("{}", {}),
    ("[]", []),
    (r'"\"\\\/\b\f\n\r\t\u00e4"', '"\\/\b\f\n\r\t\u00e4'),
    (r'"\ud83d\ude00"', "\U0001f600"),
    # unquoted and single-quoted names and strings
    ("{temperature:25}", {"temperature": 25}),
    ("{'a':'b c'}", {"a": "b c"}),
    ("{a:b}", {"a": "b"}),
    ("{true:1}", {"true": 1}),
    ("""{"it's":'say "x"'}""", {"it's": 'say "x"'}),
    (r"'it\'s'", "it's"),
    ("{a:NaN,b:-Infinity}", {"a": "NaN", "b": "-Infinity"}),
    ("{a:x-y_z.1+2}", {"a": "x-y_z.1+2"}),
    ('{a:b"c}', {"a": 'b"c'}),
    # not the numbers of JSON: words
    ("[007,+1,1.,.5,0x1F,1e,--1,-]", ["007", "+1", "1.", ".5", "0x1F", "1e", "--1", "-"]),
    # = and => for :, ; for ,
    ("{a=1;b=>2,c:3}", {"a": 1, "b": 2, "c": 3}),
    ("[1;2]", [1, 2]),
    # comments
    ("// one\n{a:1} // two", {"a": 1}),
    ("# one\r{a:1}# two", {"a": 1}),
    ("/* one\n */{/**/a/* two */:/***/1/* ** */}", {"a": 1}),
    ("{a:1#c\n}", {"a": 1}),
    # literals in any case
    ("[TRUE,False,nUlL,truey]", [True, False, None, "truey"]),
    # missing array elements
    ("[,]", [None, None]),
    ("[1,,2,]", [1, None, 2, None]),
    ("[;1]", [None, 1]),
    # control characters in strings, an escaped line break
    ('"a\n\tb\x00"', "a\n\tb\x00"),
    ('"a\\\nb"', "a\nb"),
    # the line that stops scripts, and a byte order mark
    (")]}'\n{a:1}", {"a": 1}),
    (" )]}'\n[]", []),
    ("\ufeff{a:1}", {"a": 1}),
    # the last of several wins
    ("{a:1,a:2,'a':3}", {"a": 3}),
    # nothing
    ("", None),
    (" \n// only a comment", None),
]


@pytest.mark.parametrize(("text", "value"), ACCEPTED)
def test_gsons_lenient_forms_are_read(text: str, value: object) -> None:
    parsed = parse(text)
    assert parsed == value
    assert repr(parsed) == repr(value)  # 1 is not True and not 1.0


REFUSED = [
    ("{a:1} x", "more text after the value"),
    ("1 2", "more text after the value"),
    ("hello world", "more text after the value"),
    ("{a:b c}", "expected ',' or '}'"),
    ("{a b:1}", "expected ':'"),
    ("{a:1,}", "expected a member name"),
    ("{,}", "expected a member name"),
    ("{:1}", "expected a member name"),
    ("{a:}", "expected a value"),
    ("{a:,b:1}", "expected a value"),
    ("{a}", "expected ':'"),
    ("{a:1", "expected ',' or '}'"),
    ("{", "expected a member name"),
    ("[1", "expected ',' or ']'"),
    ("[", "expected a value"),
    ("[1 2]", "expected ',' or ']'"),
    ("[1}", "expected ',' or ']'"),
    ('"abc', "unterminated string"),
    ("'abc\\", "invalid escape"),
    (r'"\x41"', "invalid escape"),
    (r'"\u12G4"', "invalid \\u escape"),
    (r'"\u12', "invalid \\u escape"),
    ("/* a", "unterminated comment"),
    ("{a:1}/*", "unterminated comment"),
    ("{a:/}", "expected a value"),
    (r"{a:\b}", "expected a value"),
    ("\f1", "expected a value"),
    (")]}' {}", "more text after the value"),
]


@pytest.mark.parametrize(("text", "fault"), REFUSED)
def test_what_gson_refuses_is_refused_with_the_fault(text: str, fault: str) -> None:
    with pytest.raises(LenientJsonError) as caught:
        parse(text)
    assert str(caught.value).startswith(fault + " at character ")
    assert 0 <= caught.value.position <= len(text)


@pytest.mark.parametrize("end", "/\\;#={}[]:, \t\f\r\n")
def test_an_unquoted_word_ends_at_each_stop_character(end: str) -> None:
    if end == "#":
        assert parse("ab#cd") == "ab"
        return
    with pytest.raises(LenientJsonError) as caught:
        parse(f"ab{end}cd")
    assert caught.value.position in (2, 3)  # white space is skipped before the fault


def test_the_position_of_a_fault_counts_characters_from_one_in_the_message() -> None:
    with pytest.raises(LenientJsonError, match=r"character 8$") as caught:
        parse('{"ä":1 2}')
    assert caught.value.position == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("25", 25),
        ("-0", 0),
        ("1.0", 1.0),
        ("0.1234567890123456", 0.1234567890123456),
        ("0.12345678901234567", NumberText("0.12345678901234567")),
        ("1E+1", NumberText("1E+1")),
        ("123456789012345678", 123456789012345678),
        ("1234567890123456789", NumberText("1234567890123456789")),
    ],
)
def test_only_plain_short_numbers_become_values(text: str, value: object) -> None:
    parsed = parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_the_caller_may_keep_every_number_as_text() -> None:
    assert parse("[1,1.50]", number=NumberText) == [NumberText("1"), NumberText("1.50")]


@pytest.mark.parametrize(
    ("text", "value"),
    [(r'"\ud800"', "\ufffd"), (r'"a\udc00b"', "a\ufffdb"), (r"'\ud83d\ud83d'", "\ufffd\ufffd")],
)
def test_single_surrogates_become_the_replacement_character(text: str, value: str) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a:", "}")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    parse(opening * 5 + "1" + closing * 5, max_depth=5)
    with pytest.raises(LenientJsonError, match="nested deeper than 5 levels"):
        parse(opening * 6 + "1" + closing * 6, max_depth=5)
    with pytest.raises(LenientJsonError, match="nested deeper"):
        parse(opening * 100_000)


def values(value: Any) -> Any:
    """Decoded JSON with numbers by value alone: 1E+1, 10.0 and 10 alike."""
    if isinstance(value, NumberText):
        return float(value.text)
    if isinstance(value, dict):
        return {name: values(member) for name, member in value.items()}
    if isinstance(value, list):
        return [values(element) for element in value]
    return float(value) if type(value) is int else value


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(documents, st.sampled_from([None, 0, 3]), st.booleans())
def test_valid_json_reads_as_a_strict_reader_reads_it(document: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    assert values(parse(text, max_depth=100)) == values(msgspec.json.decode(text))


fragments = st.sampled_from([*"{}[]:,;='\"\\/#* \n\r\tautefE+-.019", "=>", "//", "/*", "*/", "null", "\\u00", "1e5"])


@given(st.text(max_size=40) | st.lists(fragments, max_size=30).map("".join))
def test_any_text_gives_a_value_or_the_one_error(text: str) -> None:
    try:
        msgspec.json.encode(parse(text, number=lambda number: msgspec.Raw(number.encode())))
    except LenientJsonError as error:
        assert 0 <= error.position <= len(text)


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_value_or_its_text(number: float) -> None:
    text = json.dumps(number)
    read = number_of(text)
    assert read == NumberText(text) if isinstance(read, NumberText) else read == number
