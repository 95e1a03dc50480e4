"""Numbers and texts in bytes."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.mapping import words
from edge_gateway.mapping.interface import MappingError, NoValue

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize(
    ("data", "type", "order", "value"),
    [
        ("0001", "uint16", "big", 1),
        ("0100", "uint16", "little", 1),
        ("ffff", "int16", "big", -1),
        ("447f2000", "float32", "big", 1020.5),
        ("2000447f", "float32", "big-swapped", 1020.5),
        ("7f440020", "float32", "little-swapped", 1020.5),
        ("00207f44", "float32", "little", 1020.5),
        ("41a8cccd", "float32", "big", 21.1),
        ("3c00", "float16", "big", 1.0),
        ("0001000200030004", "uint64", "big-swapped", 0x0004000300020001),
        ("05", "uint8", "big", 5),
        ("0005", "uint8", "big", 5),
        ("0500", "uint8", "little", 5),
        ("fffe", "int8", "big", -2),
        ("00", "bool", "big", False),
        ("0100", "bool", "big", True),
        ("41424300", "string", "big", "ABC"),
        ("42410043", "string", "little-swapped", "ABC"),
        ("0a1b", "hex", "big", "0a1b"),
        ("1234", "bcd16", "big", 1234),
        ("56781234", "bcd32", "big-swapped", 12345678),
        ("0003", "bits", "big", [True, True, *[False] * 14]),
        ("05", "bits", "big", [True, False, True, *[False] * 5]),
    ],
)
def test_known_values(data: str, type: str, order: str, value: object) -> None:
    """Each type and order reads the bytes that are known to mean a value."""
    if type == "bool" and len(data) == 4:
        order = "little"
    assert words.decode(bytes.fromhex(data), type, order) == value


@given(st.sampled_from(INTEGERS), st.sampled_from(words.ORDERS), st.data())
def test_an_integer_comes_back_as_it_was_written(type: str, order: str, data: st.DataObject) -> None:
    """Writing and reading are each other's way back, in every order."""
    bits = 8 * (words.size_bytes(type) or 0)
    low = 0 if type[0] == "u" else -(2 ** (bits - 1))
    value = data.draw(st.integers(low, low + 2**bits - 1))
    assert words.decode(words.encode(value, type, order), type, order) == value


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.sampled_from(words.ORDERS))
def test_a_float_keeps_its_own_width(value: float, order: str) -> None:
    """The shortest digits are still the same float of 32 bits."""
    read = words.decode(words.encode(value, "float32", order), "float32", order)
    assert struct.pack(">f", read) == struct.pack(">f", value)


@given(st.binary(max_size=20), st.sampled_from(words.TYPES), st.sampled_from(words.ORDERS))
def test_any_bytes_give_a_value_or_a_mapping_error(data: bytes, type: str, order: str) -> None:
    """Nothing on the wire raises anything else, and no NaN comes out."""
    try:
        value = words.decode(data, type, order)
    except MappingError:
        return
    assert not isinstance(value, float) or math.isfinite(value)


def test_nan_means_that_there_is_no_value() -> None:
    """Meters say NaN for "not available"."""
    with pytest.raises(NoValue):
        words.decode(bytes.fromhex("7fc00000"), "float32")


@pytest.mark.parametrize(
    ("value", "type", "told"),
    [
        (70000, "uint16", "70000 is out of range; uint16 goes from 0 to 65535"),
        (-1, "uint8", "-1 is out of range; uint8 goes from 0 to 255"),
        (1.5, "int16", "1.5 is not whole; int16 takes whole numbers from -32768 to 32767"),
        ("warm", "float32", '"warm" is no number; float32 needs one'),
        (1e39, "float32", "1e39 is out of range; float32 goes from -3.4e38 to 3.4e38"),
        (12345, "bcd16", "12345 is out of range; bcd16 goes from 0 to 9999"),
        (None, "uint16", "null is no number; uint16 needs one"),
        ("xy", "hex", '"xy" is no hex; write two digits for each byte, such as "0a1b"'),
        ([1, 2], "bits", "[1,2] is no list of true and false, which bits needs"),
    ],
)
def test_what_cannot_be_written_says_value_type_and_range(value: object, type: str, told: str) -> None:
    """The caller of a command sees what would have fitted."""
    with pytest.raises(MappingError) as caught:
        words.encode(value, type)
    assert str(caught.value) == told


def test_texts_fill_their_registers() -> None:
    """A text is filled up with zeros, and one that is too long is refused."""
    assert words.encode("ABC", "string", "big", 6) == b"ABC\0\0\0"
    assert words.encode("ABC", "string", "little-swapped", 4) == b"BA\0C"
    with pytest.raises(MappingError, match="there is room for 2"):
        words.encode("ABC", "string", "big", 2)
    assert words.encode(True, "bool", "big", 2) == b"\0\1"
    assert words.encode(-2, "int8", "big", 2) == b"\xff\xfe"


def test_a_wrong_length_is_told() -> None:
    """How many bytes are there, and how many should be."""
    with pytest.raises(MappingError, match="uint32 needs 4 bytes, here are 2"):
        words.decode(b"\0\1", "uint32")


def test_an_unknown_type_or_order_is_a_value_error() -> None:
    """The settings are wrong, not the payload."""
    with pytest.raises(ValueError, match="'uint17' is no type"):
        words.decode(b"\0", "uint17")
    with pytest.raises(ValueError, match="'middle' is no order"):
        words.decode(b"\0\0", "uint16", "middle")


@pytest.mark.parametrize("type", ["uint16", "float32", "bool", "bcd16"])
def test_a_number_of_hundreds_of_digits_is_refused_in_words(type: str) -> None:
    """As JSON may have it."""
    with pytest.raises(MappingError):
        words.encode(10**400, type)
