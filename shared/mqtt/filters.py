"""Topic names and topic filters: validity, matching, and who subscribes to what (MQTT section 4.7).

Pure text; what a topic means is not known here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
V = TypeVar("V")

WILDCARDS = ("#", "+")
SHARED_PREFIX = "$share/"


def is_valid_topic(topic: str) -> bool:
    """Whether one can publish to `topic`: not empty [MQTT-4.7.3-1], no wildcard [MQTT-4.7.1-1], no NUL."""
    return bool(topic) and "+" not in topic and "#" not in topic and "\0" not in topic


def is_valid_filter(topic_filter: str) -> bool:
    """Whether one can subscribe to `topic_filter`: each wildcard fills its level and `#` comes last."""
    if not topic_filter or "\0" in topic_filter:
        return False  # [MQTT-4.7.3-1] [MQTT-4.7.3-2]
    if "#" not in topic_filter and "+" not in topic_filter:
        return True
    *parents, last = topic_filter.split("/")
    if "#" in "".join(parents):
        return False  # [MQTT-4.7.1-1]
    return (last == "#" or "#" not in last) and all(
        level == "+" or "+" not in level for level in (*parents, last)
    )  # [MQTT-4.7.1-2]


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter selects a valid topic.

    A filter that begins with a wildcard selects no topic that begins with `$` [MQTT-4.7.2-1]; `a/#` selects
    `a` itself too.
    """
    if topic.startswith("$") and topic_filter.startswith(WILDCARDS):
        return False
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    for depth, level in enumerate(wanted):
        if level == "#":
            return True
        if depth == len(levels):
            return False
        if level != "+" and level != levels[depth]:
            return False
    return len(wanted) == len(levels)


class _Node(Generic[S, V]):
    """One level of the wildcard filters: what follows it, and who ends here."""

    __slots__ = ("children", "entries")

    def __init__(self) -> None:
        self.children: dict[str, _Node[S, V]] = {}
        self.entries: dict[S, V] = {}


class SubscriptionTrie(Generic[S, V]):
    """Subscriptions of many subscribers: filter and subscriber to one value (say the granted QoS).

    Filters without wildcards are found by one look-up, however many there are; the others by walking the
    levels of the topic. Filters must be valid.
    """

    __slots__ = ("_exact", "_root")

    def __init__(self) -> None:
        self._exact: dict[str, dict[S, V]] = {}
        self._root: _Node[S, V] = _Node()

    def __bool__(self) -> bool:
        """Whether there is any subscription."""
        return bool(self._exact or self._root.children)

    def add(self, topic_filter: str, subscriber: S, value: V) -> bool:
        """Subscribe, or replace the value of a subscription [MQTT-3.8.4-3]; True if it is new."""
        entries = self._entries_for(topic_filter)
        is_new = subscriber not in entries
        entries[subscriber] = value
        return is_new

    def discard(self, topic_filter: str, subscriber: S) -> bool:
        """Unsubscribe; False if there was no such subscription. Leaves no empty levels behind."""
        if "+" not in topic_filter and "#" not in topic_filter:
            exact = self._exact.get(topic_filter)
            if exact is None or subscriber not in exact:
                return False
            del exact[subscriber]
            if not exact:
                del self._exact[topic_filter]
            return True
        return self._discard_wildcard(topic_filter.split("/"), subscriber)

    def matching(self, topic: str) -> Iterator[tuple[S, V]]:
        """Each matching subscription as (subscriber, value); a subscriber may come more than once."""
        yield from self._exact.get(topic, {}).items()
        levels = topic.split("/")
        pending = [(self._root, 0)]
        while pending:
            node, depth = pending.pop()
            hidden = depth == 0 and topic.startswith("$")  # [MQTT-4.7.2-1]
            if not hidden and "#" in node.children:
                yield from node.children["#"].entries.items()
            if depth == len(levels):
                yield from node.entries.items()
                continue
            for level in (levels[depth],) if hidden else ("+", levels[depth]):
                child = node.children.get(level)
                if child is not None:
                    pending.append((child, depth + 1))

    def _entries_for(self, topic_filter: str) -> dict[S, V]:
        if "+" not in topic_filter and "#" not in topic_filter:
            return self._exact.setdefault(topic_filter, {})
        node = self._root
        for level in topic_filter.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        return node.entries

    def _discard_wildcard(self, levels: list[str], subscriber: S) -> bool:
        path = [self._root]
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return False
            path.append(child)
        if subscriber not in path[-1].entries:
            return False
        del path[-1].entries[subscriber]
        for depth in range(len(levels), 0, -1):
            if path[depth].entries or path[depth].children:
                break
            del path[depth - 1].children[levels[depth - 1]]
        return True
