"""Topic names and filters: validity, matching, and the trie against the plain definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.mqtt.filters import SubscriptionTrie, is_valid_filter, is_valid_topic, matches


@pytest.mark.parametrize("name", ["a", "/", "/a", "a/", "a//b", "$SYS/x", " ", "é/ü"])
def test_any_text_without_wildcards_is_a_topic(name: str) -> None:
    """Slashes, spaces and other scripts are all allowed in a topic name."""
    assert is_valid_topic(name)
    assert is_valid_filter(name)


@pytest.mark.parametrize("name", ["", "a/+", "+", "#", "a/#", "a+b", "a\0b"])
def test_an_empty_name_a_wildcard_or_nul_is_no_topic(name: str) -> None:
    """[MQTT-4.7.3-1] [MQTT-3.3.2-2] [MQTT-4.7.3-2]"""
    assert not is_valid_topic(name)


@pytest.mark.parametrize("text", ["#", "+", "a/#", "a/+", "+/b", "/+", "+/#", "+/+", "$share/g/a/#"])
def test_a_wildcard_that_fills_its_level_is_valid(text: str) -> None:
    """`#` stands last, `+` anywhere."""
    assert is_valid_filter(text)


@pytest.mark.parametrize("text", ["", "a#", "a/#/b", "#/a", "a/b#", "a+", "+a/b", "a/+b", "##", "a\0", "a+/b#"])
def test_a_wildcard_inside_a_level_is_not_valid(text: str) -> None:
    """[MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]"""
    assert not is_valid_filter(text)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/B", False),
        ("a/b", "a/b/", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("a/+", "a/b/c", False),
        ("+", "/a", False),
        ("/+", "/a", True),
        ("+/+", "/a", True),
        ("#", "/", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
        ("$SYS/+", "$SYS/a", True),
        ("a/+/c/#", "a/b/c", True),
    ],
)
def test_a_filter_selects_topics_level_by_level(topic_filter: str, topic: str, expected: bool) -> None:
    """The examples of MQTT section 4.7 and their neighbours."""
    assert matches(topic_filter, topic) is expected


def test_the_trie_replaces_the_value_of_a_known_subscription() -> None:
    """A second SUBSCRIBE to the same filter changes the QoS and adds nothing [MQTT-3.8.4-3]."""
    trie: SubscriptionTrie[str, int] = SubscriptionTrie()
    for topic_filter in ("a/b", "a/+"):
        assert trie.add(topic_filter, "me", 0)
        assert not trie.add(topic_filter, "me", 1)
    assert sorted(trie.matching("a/b")) == [("me", 1), ("me", 1)]


def test_the_trie_forgets_what_was_removed() -> None:
    """After the last subscription nothing is left, not even empty levels."""
    trie: SubscriptionTrie[str, int] = SubscriptionTrie()
    filters = ["a/b", "a/+", "a/#", "a/+/c", "#"]
    for topic_filter in filters:
        trie.add(topic_filter, "me", 0)
    assert trie
    for topic_filter in filters:
        assert not trie.discard(topic_filter, "other")
        assert trie.discard(topic_filter, "me")
        assert not trie.discard(topic_filter, "me")
    assert not trie
    assert list(trie.matching("a/b")) == []


levels = st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=4)
topics = levels.map("/".join).filter(is_valid_topic)
filters = (
    st.tuples(st.lists(st.sampled_from(["a", "b", "", "+", "$x"]), min_size=1, max_size=3), st.booleans())
    .map(lambda parts: "/".join([*parts[0], "#"] if parts[1] else parts[0]))
    .filter(is_valid_filter)
)


@given(st.lists(st.tuples(filters, st.sampled_from("xyz"), st.booleans()), max_size=30), topics)
def test_the_trie_finds_what_the_definition_selects(changes: list[tuple[str, str, bool]], topic: str) -> None:
    """However subscriptions come and go, the trie agrees with matching each filter by itself."""
    trie: SubscriptionTrie[str, str] = SubscriptionTrie()
    plain: set[tuple[str, str]] = set()
    for topic_filter, subscriber, is_added in changes:
        entry = (topic_filter, subscriber)
        if is_added:
            assert trie.add(topic_filter, subscriber, topic_filter) is (entry not in plain)
            plain.add(entry)
        else:
            assert trie.discard(topic_filter, subscriber) is (entry in plain)
            plain.discard(entry)
    found = sorted((value, subscriber) for subscriber, value in trie.matching(topic))
    assert found == sorted(entry for entry in plain if matches(entry[0], topic))
