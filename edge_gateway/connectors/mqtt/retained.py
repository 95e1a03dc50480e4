"""The last message on each topic that is to be retained: who subscribes later gets it at once."""

from __future__ import annotations

from collections.abc import Iterator

from shared.mqtt.filters import matches

MAX_RETAINED = 20_000  # messages; the oldest goes first


class Retained:
    """By topic: the device that it concerns and the payload."""

    def __init__(self) -> None:
        self._messages: dict[str, tuple[str, bytes]] = {}

    def put(self, device: str, topic: str, payload: bytes) -> None:
        """Keeps a message; an empty one removes what was kept [MQTT-3.3.1-6]."""
        self._messages.pop(topic, None)
        if payload:
            if len(self._messages) >= MAX_RETAINED:
                del self._messages[next(iter(self._messages))]
            self._messages[topic] = (device, payload)

    def matching(self, topic_filter: str) -> Iterator[tuple[str, str, bytes]]:
        """(device, topic, payload) of those that a filter selects."""
        if "+" not in topic_filter and "#" not in topic_filter:
            found = self._messages.get(topic_filter)
            if found is not None:
                yield found[0], topic_filter, found[1]
            return
        for topic, (device, payload) in list(self._messages.items()):
            if matches(topic_filter, topic):
                yield device, topic, payload
