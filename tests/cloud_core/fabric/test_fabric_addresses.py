"""Where a fabric is, and what its text may show."""

from __future__ import annotations

import pytest

from cloud_core.fabric.addresses import Address, BadAddress, addresses_of


def test_addresses_are_taken_apart() -> None:
    """User and password, a token alone, neither; ports by default; several; escapes are resolved."""
    found = addresses_of("nats://u:p%40%2Cx@a:1, tls://tok%3Aen@b,nats://[::1]:5")
    assert found == [
        Address("a", 1, False, user="u", password="p@,x"),
        Address("b", 4222, True, token="tok:en"),
        Address("::1", 5, False),
    ]
    assert [str(one) for one in found] == ["nats://a:1", "tls://b:4222", "nats://[::1]:5"]


@pytest.mark.parametrize(
    "text", ["http://u:secret@a", "u:secret@a", "nats://u:secret@:1", "nats://u:secret@a:port", "nats://u:secret@a/x",
             "nats://u:secret@[a"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_its_secrets(text: str) -> None:
    """The sentence says how one is written; neither it nor its cause shows what was given."""
    with pytest.raises(BadAddress) as caught:
        addresses_of(text)
    assert "nats://user:password@host:4222" in str(caught.value)
    assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_secrets_are_in_no_text_of_an_address() -> None:
    """Neither in `str` nor in `repr`."""
    one, other = addresses_of("nats://user:secret@a,nats://secret@b")
    assert "secret" not in f"{one} {one!r} {other} {other!r}" and "user" not in f"{one} {one!r}"
