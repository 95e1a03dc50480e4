"""TOML that is written says what it was made from."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.console import toml_text

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(TEXTS, VALUES)
def test_a_pair_reads_back_as_it_was(name: str, value: Any) -> None:
    """Whatever signs are in it."""
    assert tomllib.loads(toml_text.pair(name, value)) == {name: value}


def test_tables_keep_their_shape() -> None:
    """Lists of tables become tables, calls dotted keys, long lists several lines."""
    values = {
        "name": "hall", "empty": [], "map": [{"topic": "a/{b}", "rpc": {"set it": {"publish": "x"}}}, {"topic": "c"}],
        "long": ["$.a_path_of_some_length -> a_key_of_some_length: float"] * 3,
    }  # fmt: skip
    text = toml_text.table("mqtt", values)
    assert tomllib.loads(text) == {"mqtt": [values]}
    assert "[[mqtt.map]]" in text and 'rpc."set it" = {' in text and "long = [\n" in text


def test_what_toml_has_no_word_for_is_an_error() -> None:
    """Rather than a file that cannot be read."""
    with pytest.raises(TypeError, match="NoneType"):
        toml_text.inline(None)
