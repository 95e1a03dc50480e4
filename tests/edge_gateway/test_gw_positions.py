"""Where things stand in a TOML text."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.config.positions import Position, Positions

NASTY = r'''# a comment with [brackets] and "quotes"
top = 1
"quoted key" = { a.b = 1, 'c' = ["x # no comment", "y ] no end"] }
[core] # behind
url = "a\"b#c" # = x
  provision.key = "k"
multi = """
[not.a.table]
key = "no" """
literal = @@@
x = 1
[[no]]
@@@
[[mqtt]]
name = "one"
  [[mqtt.map]]
  topic = "t"
  [[mqtt.map]]
  telemetry = [
    "$.a -> a", # first
    # only a comment
    { key = "b", at = "$['],}']" },
    [1, [2, 3]],
  ]
  rpc.set = { x = 1, y = { z = 2 } }
[mqtt.extra]
k = 1979-05-27 07:32:00
[[mqtt]]
"n\u0061me" = "two"
list = [ 'a', """b
c""", 5 ]
empty = []
after = 1
'''.replace("@@@", "'" * 3)


def every_path(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [one for key, child in children for one in ((*path, key), *every_path(child, (*path, key)))]


def test_every_key_and_element_of_a_nasty_file_has_its_place() -> None:
    """Comments, quotes, multi-line texts and arrays, inline tables, dotted and quoted keys."""
    lines = Positions(NASTY).lines()
    assert set(lines) == set(every_path(tomllib.loads(NASTY)))


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        (("top",), 2, 1),
        (("quoted key", "a", "b"), 3, 18),
        (("quoted key", "c", 1), 3, 52),
        (("core",), 4, 1),
        (("core", "provision", "key"), 6, 3),
        (("literal",), 0, 0),
        (("core", "literal"), 10, 1),
        (("mqtt", 0), 14, 1),
        (("mqtt", 0, "map", 1), 18, 3),
        (("mqtt", 0, "map", 1, "telemetry", 0), 20, 5),
        (("mqtt", 0, "map", 1, "telemetry", 1, "at"), 22, 18),
        (("mqtt", 0, "map", 1, "telemetry", 2, 1, 1), 23, 13),
        (("mqtt", 0, "map", 1, "rpc", "set", "y", "z"), 25, 28),
        (("mqtt", 0, "extra", "k"), 27, 1),
        (("mqtt", 1, "name"), 29, 1),
        (("mqtt", 1, "list", 2), 31, 7),
        (("mqtt", 1, "after"), 33, 1),
        (("mqtt", 1, "name", "nothing", "below"), 29, 1),
        (("nowhere",), 0, 0),
    ],
)
def test_places(path: tuple[str | int, ...], line: int, column: int) -> None:
    """Lines and columns count from 1; what is not there is where the nearest thing around it is."""
    assert Positions(NASTY).of(path) == Position(line, column)


def test_windows_line_ends_count_once() -> None:
    """A file from Windows has the same lines."""
    assert Positions('a = 1\r\nb = """\r\nx"""\r\nc = 2\r\n').of(("c",)) == Position(4, 1)


VALUES = st.recursive(
    st.sampled_from(["1", "-1.5e3", "true", '"a#]}"', "'x\\'", '"""a\n"b"\n"""', "'''\n''x\n'''", "1979-05-27"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "[ # c ]\n" + ",\n ".join(parts) + "\n]"),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.sampled_from(["[t{}]", "[[q]] # {}", "[x.'y.z{}']"]), VALUES, VALUES), max_size=5))
def test_every_path_of_any_file_is_found(tables: list[tuple[str, str, str]]) -> None:
    """What `tomllib` reads has a place, all of it and nothing else."""
    text = "".join(f"{head.format(n)}\na={one} # x\nb . c = {{ d = 1, e = [{two}] }}\n" for n, (head, one, two) in
                   enumerate(tables))  # fmt: skip
    assert set(Positions(text).lines()) == set(every_path(tomllib.loads(text)))
