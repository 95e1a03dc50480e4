"""The configuration's text without its secrets, and back."""

from __future__ import annotations

import tomllib

import pytest

from edge_gateway.console.masking import CannotMask, masked, restored

TEXT = '''# plant of the north
# token = "earlier-token"
[core]
url = "mqtts://core.example.com"
token = "s3cret-token"  # from the portal
password = \'lit"eral\'
provision = { key = "prov-key-1", secret = "prov-secret-1", name = "gw-{serial}" }

[[plant]]
name = "north"
password = "north-pass"
url = "http://user:url-pass@10.0.0.5/x"

[[plant]]
name = "south"
password = "${SOUTH_PASSWORD}"
[[plant]]
name = "east"
password = """
long-secret"""
key = "not-secret"
'''


def test_no_secret_is_shown_and_everything_else_is() -> None:
    """Literal secrets, also in comments and URLs, are hidden; references and the rest stay as they are written."""
    shown = masked(TEXT)
    for secret in ("s3cret-token", 'lit"eral', "prov-key-1", "prov-secret-1", "north-pass", "url-pass", "long-secret"):
        assert secret not in shown
    assert "earlier-token" not in shown
    assert 'password = "${SOUTH_PASSWORD}"' in shown
    assert 'key = "not-secret"' in shown and "# from the portal" in shown and 'name = "gw-{serial}"' in shown
    tomllib.loads(shown)


def test_what_comes_back_unchanged_means_the_same() -> None:
    """Secrets return to their places."""
    assert tomllib.loads(restored(masked(TEXT), TEXT)) == tomllib.loads(TEXT)


def test_secrets_follow_their_tables_by_name() -> None:
    """Tables may be moved, added and removed; each keeps its own secret."""
    shown = masked(TEXT)
    head, north, south, east = shown.split("[[plant]]")
    moved = "[[plant]]".join([head, east, '\nname = "new"\npassword = "fresh"\n', north])
    plants = {one["name"]: one for one in tomllib.loads(restored(moved, TEXT))["plant"]}
    assert plants["north"]["password"] == "north-pass"
    assert plants["north"]["url"] == "http://user:url-pass@10.0.0.5/x"
    assert plants["east"]["password"] == "long-secret"
    assert plants["new"]["password"] == "fresh"
    assert south


def test_a_mask_without_a_secret_behind_it_stays() -> None:
    """It must not become somebody else's secret."""
    text = '[[plant]]\nname = "west"\npassword = "••••"\n'
    assert restored(text, TEXT) == text


def test_text_that_is_no_toml_comes_back_as_it_is() -> None:
    """The check says what is wrong with it."""
    text = 'token = "••••"\nbroken'
    assert restored(text, TEXT) == text


@pytest.mark.parametrize(
    "text",
    [
        'token = "abcdef',
        'password = "abcdef"\nnote = "the password is abcdef"\n',
        'tokens = ["abc\\u0064ef"]\n',
    ],
)
def test_what_cannot_be_hidden_for_certain_is_not_shown(text: str) -> None:
    """Rather no text than one with a secret in it."""
    with pytest.raises(CannotMask):
        masked(text)


def test_secrets_in_arrays_are_hidden() -> None:
    """Each element."""
    assert masked('tokens = ["abcdef", "ghijkl"]\n') == 'tokens = ["••••", "••••"]\n'
