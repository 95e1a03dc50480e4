"""Replies of devices to commands: what is JSON, and what is only text."""

from __future__ import annotations

from typing import Any

import pytest

from shared.device_json import MAX_BODY_BYTES, NotJson, parse_reply
from shared.errors import RequestTooLarge


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", None),
        (b" \n", None),
        (b"null", None),
        (b'{"a":1}', {"a": 1}),
        (b"{a:1}", {"a": 1}),
        (b'"ok"', "ok"),
        (b" 'ok'", "ok"),
        (b"7", 7),
        (b"true", True),
    ],
)
def test_json_is_taken_as_such(body: bytes, value: Any) -> None:
    """Leniently too; an empty reply is none."""
    parsed = parse_reply(body)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize("body", [b"ok", b"not json", b'{"a":', b"\xff"])
def test_text_that_is_no_json_is_told_apart(body: bytes) -> None:
    """A bare word is a string to a lenient reader, but nobody meant JSON by it."""
    parsed = parse_reply(body)
    assert isinstance(parsed, NotJson) and parsed == body.decode("utf-8", "replace")


def test_a_reply_is_bounded() -> None:
    with pytest.raises(RequestTooLarge):
        parse_reply(b"1" * (MAX_BODY_BYTES + 1))
