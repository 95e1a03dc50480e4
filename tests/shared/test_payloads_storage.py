"""The stored and shown forms of values."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messages import JsonValue, Value
from shared.payloads import (
    decode_document,
    decode_value,
    encode_document,
    encode_value,
    value_to_json,
    value_to_text,
)

values: st.SearchStrategy[Value] = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.text(st.characters(exclude_categories=["Cs"])).map(JsonValue)
)


@given(values)
def test_a_stored_value_comes_back_with_its_type(value: Value) -> None:
    read = decode_value(encode_value(value))
    assert read == value
    assert type(read) is type(value)


@given(st.dictionaries(st.integers(0, 2**63 - 1), values, max_size=10))
def test_a_stored_document_comes_back_with_its_types(document: dict[int, Value]) -> None:
    read = decode_document(encode_document(document))
    assert repr(read) == repr(document)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (True, b"\xc3"),
        (7, b"\x07"),
        (1.0, b"\xcb\x3f\xf0" + b"\0" * 6),
        ("a", b"\xa1a"),
        (JsonValue("{}"), b"\xd5\x01{}"),  # fixext 2 of type 1
    ],
)
def test_the_stored_bytes_are_messagepack(value: Value, stored: bytes) -> None:
    assert encode_value(value) == stored
    assert encode_document({5: value}) == b"\x81\x05" + stored


@pytest.mark.parametrize("data", [b"", b"\xd5\x02{}", b"\xc1"])
def test_damaged_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # of msgspec or of ours
        decode_value(data)


@pytest.mark.parametrize(
    ("value", "as_json", "as_text"),
    [
        (3.0, b"3.0", "3.0"),
        (4, b"4", "4"),
        (True, b"true", "true"),
        (False, b"false", "false"),
        ("x", b'"x"', "x"),
        (JsonValue('{"a":[1]}'), b'{"a":[1]}', '{"a":[1]}'),
    ],
)
def test_a_value_is_shown_as_json_and_as_thingsboards_text(value: Value, as_json: bytes, as_text: str) -> None:
    assert msgspec.json.encode(value_to_json(value)) == as_json
    assert value_to_text(value) == as_text
