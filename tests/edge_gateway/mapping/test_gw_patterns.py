"""Patterns of topics and paths, and templates."""

from __future__ import annotations

import time

import pytest

from edge_gateway.mapping.interface import MappingError
from edge_gateway.mapping.patterns import compile_pattern
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.mapping.templates import compile_body, compile_template


@pytest.mark.parametrize(
    ("pattern", "text", "captures"),
    [
        ("site/{line}/{unit}/data", "site/a/7/data", {"line": "a", "unit": "7"}),
        ("site/{line}/{unit}/data", "site/a/7/date", None),
        ("site/{line}/data", "site//data", None),
        ("site/{line}", "site/a/b", None),
        ("+/x/*", "anything/x/y", {}),
        ("a/#", "a/b/c", {}),
        ("a/#", "a", {}),
        ("a/{rest#}", "a/b/c", {"rest": "b/c"}),
        ("a/{rest#}", "a", None),
        ("u-{n}.x/data", "u-12.x/data", {"n": "12"}),
        ("{line}-{unit}/d", "a-b-c/d", {"line": "a", "unit": "b-c"}),
        ("/in/{device}", "/in/Büro 1", {"device": "Büro 1"}),
        ("/in/{device}", "in/x", None),
        ("a.c", "abc", None),
    ],
)
def test_matching(pattern: str, text: str, captures: dict[str, str] | None) -> None:
    """A capture is one segment or a part of one, and never empty."""
    assert compile_pattern(pattern).match(text) == captures


def test_the_filter_is_what_a_broker_understands() -> None:
    """Captures and wildcards are `+`, the rest is `#`."""
    pattern = compile_pattern("site/{line}/u-{n}/*/{rest#}")
    assert (pattern.filter, pattern.captures) == ("site/+/+/+/#", {"line", "n", "rest"})


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("", "the pattern is empty"),
        ("a/#/b", "must be the last segment"),
        ("a/{x}{y}", "two captures touch"),
        ("{x}/{x}", "stands twice"),
        ("a/{x y}", "is no capture"),
        ("a/b+", "is no segment"),
        ("a/{x", "is no segment"),
        ("a/{}", "is no capture"),
    ],
)
def test_mistakes_in_patterns_say_the_fix(pattern: str, told: str) -> None:
    """A pattern that cannot work is told when it is loaded."""
    with pytest.raises(MappingProblems, match=told):
        compile_pattern(pattern)


def test_a_hostile_topic_does_not_take_long() -> None:
    """A topic of 64 KiB is matched in the time of its length."""
    pattern = compile_pattern("{a}-{b}-{c}x/d")
    start = time.perf_counter()
    assert pattern.match("-" * 65_535) is None
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{line}-{n}", "a-7"),
        ("{ line }", "a"),
        ("{$.x}/{$.f}/{$.t}", "1/0.5/true"),
        ("{$['a}b']}", "braces"),
        ('{"a":1}', '{"a":1}'),
        ("plain", "plain"),
    ],
)
def test_templates(text: str, rendered: str) -> None:
    """Names and paths are put in; other braces stand for themselves."""
    document = {"x": 1, "f": 0.5, "t": True, "a}b": "braces"}
    assert compile_template(text).render({"line": "a", "n": 7}, document) == rendered


def test_templates_tell_their_names() -> None:
    """Without the paths."""
    assert compile_template("{a}/{b}/{$.c}").names == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "told"),
    [("{nobody}", "{nobody} finds nothing"), ("{$.q}", "{$.q} finds nothing"), ("{$.o}", 'is {"a":1}; a text or'),
     ("{$.null}", "finds nothing"), ("{$.slash}", "has a '/' in it")],
)  # fmt: skip
def test_what_a_template_cannot_fill(text: str, told: str) -> None:
    """The placeholder is named."""
    with pytest.raises(MappingError) as caught:
        compile_template(text, forbidden="/+#").render({}, {"o": {"a": 1}, "null": None, "slash": "a/b"})
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["{line", "{line-unit}", "{$.a", "{$.a[}", "{$.}"])
def test_mistakes_in_templates(text: str) -> None:
    """A placeholder that does not end, and a path that is none."""
    with pytest.raises(MappingProblems):
        compile_template(text)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("$.params", '{"speed":3,"say":"a\\"b"}'),
        ("$.params.say", 'a"b'),
        ("$.params.speed", "3"),
        ("", '{"params":{"speed":3,"say":"a\\"b"},"none":null}'),
        ('{"v": {$.params.speed}, "s": {$.params.say}, "m": "{method}"}', '{"v": 3, "s": "a\\"b", "m": "se\\"t"}'),
        ('{"s": "say {$.params.say}"}', '{"s": "say a\\"b"}'),
        ("[{$.none}]", "[null]"),
        ("{method} {$.params.speed}", 'se"t 3'),
    ],
)
def test_bodies(text: str, body: str) -> None:
    """In JSON every value is put in as JSON, so that no text can break out of its quotes."""
    document = {"params": {"speed": 3, "say": 'a"b'}, "none": None}
    assert compile_body(text).render({"method": 'se"t'}, document) == body
