"""What a path at the listener means: a message of a device, or what it observes."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from edge_gateway.connectors.coap.observers import ATTRIBUTES, CALLS
from edge_gateway.connectors.coap.settings import PEER, CoapSettings, PathMap, pattern_of
from edge_gateway.mapping.compiling import compile_map
from edge_gateway.mapping.interface import MappingError
from edge_gateway.mapping.templates import compile_template
from edge_gateway.model import Json, Reading
from shared.errors import PlatformError
from shared.payloads import parse_attributes, parse_telemetry
from shared.values import value_to_json

_MAX_PATHS_TOLD: Final = 8
_PRESET: Final = "api/v1"


class NotAllowed(Exception):
    """The request lacks the token, or has another; `str()` says how to give it."""


class NoSuchPath(Exception):
    """`str()` names the paths that there are."""


@dataclass(frozen=True, slots=True)
class Message:
    """POST or PUT: `read(payload, wants_raw)` gives its readings; raises MappingError. `label` is the path, to be
    shown: without a token."""

    read: Callable[[bytes, bool], list[Reading]]
    label: str


@dataclass(frozen=True, slots=True)
class Downlink:
    """`what` the device may observe; `number` of the call that a POST answers."""

    device: str
    type: str
    what: str
    number: int | None = None
    is_wrapped: bool = False  # a plain GET gives {"shared": {…}}, as ThingsBoard does


Target = Message | Downlink


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8", "replace"))


class _MapRoute:
    """One `[[coap.map]]`."""

    def __init__(self, settings: PathMap, token: str) -> None:
        self.path = settings.path
        self.observes = bool(settings.rpc)
        self._pattern = pattern_of(settings.path)
        self._map = compile_map(settings, {*self._pattern.captures, PEER})
        self._device = compile_template(settings.device)
        self._type = compile_template(settings.type)
        self._token = token

    def message(self, path: str, token: str, peer: str) -> Message | None:
        found = self._match(path, token, peer)
        if found is None:
            return None

        def read(payload: bytes, wants_raw: bool) -> list[Reading]:
            return self._map.readings(payload, found, wants_raw=wants_raw)

        return Message(read, self.path if "token" in found else path)

    def downlink(self, path: str, token: str, peer: str) -> Downlink | None:
        if not self.observes:
            return None
        base, _, last = path.rpartition("/")
        number: int | None = None
        if last.isascii() and last.isdecimal() and base.endswith("/" + CALLS) and len(last) < 16:
            number = int(last)
            base, _, last = base.rpartition("/")
        if last not in (CALLS, ATTRIBUTES):
            return None
        found = self._match(base, token, peer)
        if found is None:
            return None
        device = self._device.render(found)
        try:
            type = self._type.render(found)
        except MappingError:  # it comes with the payload
            type = ""
        return Downlink(device, type, last, number)

    def _match(self, path: str, token: str, peer: str) -> dict[str, str] | None:
        found = self._pattern.match(path)
        if found is None:
            return None
        if self._token and not _same(found.get("token", token), self._token):
            place = "in the path" if "token" in found else "as ?token=…"
            raise NotAllowed(f"give the connector's token {place}")
        return {**found, PEER: peer}


class _PresetRoute:
    """`api/v1/{token}/telemetry|attributes|rpc`, as ThingsBoard's own CoAP devices know them."""

    path = f"/{_PRESET}/{{token}}/telemetry"
    observes = True

    def __init__(self, users: dict[str, str], type: str) -> None:
        self._users = {token.encode(): device for token, device in users.items()}
        self._type = type

    def message(self, path: str, token: str, peer: str) -> Message | None:
        found = self._split(path)
        if found is None or found[1] not in (["telemetry"], ["attributes"]):
            return None
        device, (what,) = found
        read = self._telemetry(device) if what == "telemetry" else self._attributes(device)
        return Message(read, f"/{_PRESET}/{device}/{what}")

    def downlink(self, path: str, token: str, peer: str) -> Downlink | None:
        found = self._split(path)
        if found is None:
            return None
        device, rest = found
        if rest in ([CALLS], [ATTRIBUTES]):
            return Downlink(device, self._type, rest[0], is_wrapped=rest == [ATTRIBUTES])
        if len(rest) == 2 and rest[0] == CALLS and rest[1].isascii() and rest[1].isdecimal() and len(rest[1]) < 16:
            return Downlink(device, self._type, CALLS, int(rest[1]))
        return None

    def _split(self, path: str) -> tuple[str, list[str]] | None:
        parts = path.split("/")
        if len(parts) < 5 or "/".join(parts[1:3]) != _PRESET:
            return None
        device = ""
        given = parts[3].encode("utf-8", "replace")
        for token, name in self._users.items():  # all of them: the time must not tell how many letters fit
            if hmac.compare_digest(given, token):
                device = name
        if not device:
            raise NotAllowed("the gateway does not know this access token; add it to users")
        return device, parts[4:]

    def _telemetry(self, device: str) -> Callable[[bytes, bool], list[Reading]]:
        def read(payload: bytes, wants_raw: bool) -> list[Reading]:
            try:
                samples = parse_telemetry(payload, received_ms=-1)
            except PlatformError as error:
                raise MappingError(str(error)) from error
            return [
                Reading(device, self._type, ts_ms if ts_ms >= 0 else None, telemetry=_plain(values))
                for ts_ms, values in samples
                if values
            ]

        return read

    def _attributes(self, device: str) -> Callable[[bytes, bool], list[Reading]]:
        def read(payload: bytes, wants_raw: bool) -> list[Reading]:
            try:
                values = parse_attributes(payload)
            except PlatformError as error:
                raise MappingError(str(error)) from error
            return [Reading(device, self._type, attributes=_plain(values))] if values else []

        return read


def _plain(values: dict[str, Json]) -> dict[str, Json]:
    """Typed values as decoded JSON."""
    return {
        key: msgspec.json.decode(raw) if isinstance(raw := value_to_json(value), msgspec.Raw) else raw
        for key, value in values.items()
    }


class Routes:
    """All paths of a listener."""

    def __init__(self, settings: CoapSettings) -> None:
        self._routes: list[_MapRoute | _PresetRoute] = [_MapRoute(one, settings.token) for one in settings.map]
        if settings.preset:
            self._routes.append(_PresetRoute(settings.users, settings.type))

    def message(self, path: str, token: str, peer: str) -> Message | Downlink:
        """Of a POST or PUT. Raises: NoSuchPath, NotAllowed."""
        for route in self._routes:
            found: Target | None = route.message(path, token, peer)
            found = found or route.downlink(path, token, peer)
            if found is not None:
                return found
        raise NoSuchPath(self._known())

    def downlink(self, path: str, token: str, peer: str) -> Downlink:
        """Of a GET. Raises: NoSuchPath, NotAllowed."""
        for route in self._routes:
            found = route.downlink(path, token, peer)
            if found is not None:
                return found
        raise NoSuchPath(self._known())

    @property
    def calls_path(self) -> str:
        """Where devices may observe their calls; empty when nowhere."""
        for route in self._routes:
            if route.observes:
                return route.path.removesuffix("/telemetry") + "/" + CALLS
        return ""

    def _known(self) -> str:
        paths = [route.path for route in self._routes[:_MAX_PATHS_TOLD]]
        paths += [f"{route.path.removesuffix('/telemetry')}/{CALLS}" for route in self._routes if route.observes][:1]
        more = ", …" if len(self._routes) > _MAX_PATHS_TOLD else ""
        return f"no such path; known are {', '.join(paths)}{more}"
