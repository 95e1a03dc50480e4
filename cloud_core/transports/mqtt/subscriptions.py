"""The topic filters that one session has been granted, each with its QoS."""

from __future__ import annotations

from collections.abc import Iterator

from shared import topics


class Subscriptions:
    """The newest stands last, and decides where several cover a topic."""

    __slots__ = ("_granted",)

    def __init__(self) -> None:
        self._granted: dict[str, int] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._granted)

    def items(self) -> list[tuple[str, int]]:
        """(filter, QoS), oldest first."""
        return list(self._granted.items())

    def add(self, topic_filter: str, qos: int) -> None:
        self._granted.pop(topic_filter, None)
        self._granted[topic_filter] = qos

    def discard(self, topic_filter: str) -> bool:
        """Whether there was such a subscription."""
        return self._granted.pop(topic_filter, None) is not None

    def qos_for(self, topic: str) -> int:
        """The QoS granted for `topic`; 1 where nothing covers it (wire-contract.md section 2.2)."""
        exact = self._granted.get(topic)
        if exact is not None:
            return exact
        for topic_filter, qos in reversed(self._granted.items()):
            if topics.matches(topic_filter, topic):
                return qos
        return 1
