"""Topics to maps and back: which map reads a message, and what a device's topics are made of."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from edge_gateway.connectors.mqtt.settings import RpcPublish, TopicMap
from edge_gateway.mapping.compiling import compile_map
from edge_gateway.mapping.interface import CompiledTemplate, MappingError
from edge_gateway.mapping.paths import Path, compile_path
from edge_gateway.mapping.patterns import compile_pattern
from edge_gateway.mapping.templates import compile_body, compile_template
from edge_gateway.model import Reading

MAX_TOPICS: Final = 20_000  # remembered with what they mean
MAX_DEVICES: Final = 50_000  # whose captures are remembered
FORBIDDEN_IN_TOPICS: Final = "+#\0"

_PLACE = re.compile(r"\{(\$?[^{}]*)\}")

Captures = Mapping[str, str]


class _Whole:
    """The body `$.params` or `$.value`: that member as JSON, also when it is null."""

    names: frozenset[str] = frozenset()

    def __init__(self, member: str) -> None:
        self._member = member

    def render(self, values: Mapping[str, Any], document: Any = None) -> str:
        """As `CompiledTemplate.render`."""
        return msgspec.json.encode(document[self._member]).decode()


class Downlink:
    """The compiled form of `shared` or of one `rpc.<method>`; the latter has a `source` with reply and time-out."""

    __slots__ = ("answer", "body", "filter", "publish", "reply", "reply_filter")

    def __init__(self, publish: str, body: str, rpc: RpcPublish | None = None) -> None:
        self.publish: CompiledTemplate = compile_template(publish, forbidden=FORBIDDEN_IN_TOPICS)
        self.body: CompiledTemplate = _Whole(body[2:]) if body in ("$.params", "$.value") else compile_body(body)
        self.filter = filter_of(publish)
        reply = rpc.reply if rpc else ""
        self.reply = compile_template(reply, forbidden=FORBIDDEN_IN_TOPICS) if reply else None
        self.reply_filter = filter_of(reply) if reply else ""
        self.answer: Path | None = compile_path(rpc.answer) if rpc and rpc.answer else None


class Route:
    """One map, compiled."""

    __slots__ = ("_device", "_wants_login", "map", "pattern", "rpc", "settings", "shared")

    def __init__(self, settings: TopicMap, extra: Collection[str]) -> None:
        self.settings = settings
        self.pattern = compile_pattern(settings.topic)
        self.map = compile_map(settings, self.pattern.captures | set(extra))
        names = compile_template(settings.device).names | compile_template(settings.type).names
        self._wants_login = bool((names & set(extra)) - self.pattern.captures)
        self._device = _inversion_of(settings.device)
        shared = settings.shared
        self.shared = Downlink(shared.publish, _shared_body(settings)) if shared else None
        self.rpc = {name: Downlink(one.publish, one.body, one) for name, one in settings.rpc.items()}

    def readings(self, payload: bytes, captures: Captures, login: Captures, *, wants_raw: bool) -> list[Reading]:
        """As `CompiledMap.readings`."""
        if self._wants_login:
            captures = {**login, **captures}
        return self.map.readings(payload, captures, wants_raw=wants_raw)

    def captures_of(self, device: str) -> Captures | None:
        """What the topic's captures must have been for this device, if its name tells."""
        return _unique_match(self._device, device) if self._device else None


def _shared_body(settings: TopicMap) -> str:
    assert settings.shared is not None
    return settings.shared.body or ("$.value" if "{key}" in settings.shared.publish else "")


def filter_of(template: str) -> str:
    """The topic filter that selects whatever a topic template gives."""
    return "/".join("+" if "{" in level else level for level in template.split("/"))


def _inversion_of(template: str) -> tuple[re.Pattern[str], re.Pattern[str]] | None:
    """Patterns that find the captures in a name made by `template`, greedily and not; None where it has none."""
    places = _PLACE.findall(template)
    if not places or any(not place.isidentifier() for place in places) or len(set(places)) < len(places):
        return None
    texts = [re.escape(text) for text in _PLACE.split(template)[::2]]
    forms = []
    for repeat in ("+", "+?"):
        groups = [f"(?P<{place}>[^/]{repeat})" for place in places]
        forms.append(re.compile("".join(a + b for a, b in zip(texts, [*groups, ""], strict=True))))
    return forms[0], forms[1]


def _unique_match(forms: tuple[re.Pattern[str], re.Pattern[str]], name: str) -> Captures | None:
    """The captures, or None where the name can be read in two ways (`a-b-c` for `{line}-{unit}`)."""
    greedy, lazy = forms[0].fullmatch(name), forms[1].fullmatch(name)
    if greedy is None or lazy is None or greedy.groups() != lazy.groups():
        return None
    return greedy.groupdict()


class Routes:
    """All maps of one connector; the first that fits a topic reads it."""

    def __init__(self, maps: Sequence[TopicMap], extra: Collection[str] = ()) -> None:
        self.all = [Route(one, extra) for one in maps]
        self._by_topic: dict[str, tuple[Route, Captures] | None] = {}
        self._heard: dict[str, dict[Route, Captures]] = {}
        self._has_downlinks = any(route.shared or route.rpc for route in self.all)

    def find(self, topic: str) -> tuple[Route, Captures] | None:
        """The map for a topic and the topic's captures."""
        try:
            return self._by_topic[topic]
        except KeyError:
            found = self._search(topic)
        if len(self._by_topic) >= MAX_TOPICS:
            self._by_topic.clear()
        self._by_topic[topic] = found
        return found

    def _search(self, topic: str) -> tuple[Route, Captures] | None:
        for route in self.all:
            captures = route.pattern.match(topic)
            if captures is not None:
                return route, captures
        return None

    def heard(self, readings: Sequence[Reading], route: Route, captures: Captures) -> None:
        """Remembers by which captures a device spoke, for the way back."""
        if not self._has_downlinks:
            return
        for reading in readings:
            known = self._heard.get(reading.device)
            if known is None:
                if len(self._heard) >= MAX_DEVICES:
                    del self._heard[next(iter(self._heard))]
                self._heard[reading.device] = {route: captures}
            elif known.get(route) is not captures:
                known[route] = captures

    def values_for(self, device: str, route: Route) -> dict[str, Any] | None:
        """What the templates of `route` may use for a device; None when the route cannot be this device's."""
        template = route.settings.device
        if "{" not in template and template != device:
            return None
        heard = self._heard.get(device, {})
        own = heard.get(route) or route.captures_of(device)
        if own is None and not heard and "{" in template:
            return None
        values: dict[str, Any] = {}
        for captures in heard.values():
            values.update(captures)
        values.update(own or {})
        values["device"] = device
        return values

    def in_order_for(self, device: str) -> list[Route]:
        """All maps, first those by which the device has spoken."""
        heard = self._heard.get(device, {})
        return [*heard, *(route for route in self.all if route not in heard)]

    def filters(self) -> list[str]:
        """What a client subscribes to: data and replies."""
        wanted = [route.pattern.filter for route in self.all]
        wanted += [one.reply_filter for route in self.all for one in route.rpc.values() if one.reply_filter]
        return list(dict.fromkeys(wanted))


def rendered(template: CompiledTemplate, values: Mapping[str, Any], document: Any = None) -> str | None:
    """The text, or None when something is missing."""
    try:
        return template.render(values, document)
    except MappingError:
        return None
