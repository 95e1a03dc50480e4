"""Which devices a server has, and which nodes of theirs are watched.

`Any` stands for asyncua's objects, whose types are partial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edge_gateway.connectors.opcua.browsing import ROOT, Browser, Found
from edge_gateway.connectors.opcua.compiled import CONNECTOR, Device, Line
from edge_gateway.connectors.opcua.link import Link, Trouble
from edge_gateway.mapping.interface import MappingError
from edge_gateway.model import Content


class Spot(NamedTuple):
    """Part of the settings that a survey has trouble with: a device, or a line of it."""

    device: int
    line: int = -1


class PointKey(NamedTuple):
    """What makes a point the same one in the next survey."""

    device: str
    content: Content
    key: str
    node_id: Any


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A node that gives one key of one device."""

    key: PointKey
    type: str
    line: Line

    @property
    def source(self) -> str:
        """The node, for people."""
        return f"{self.key.device}/{self.line.place.text} ({self.key.node_id.to_string()})"


@dataclass(frozen=True, slots=True)
class Target:
    """A device that is there: its settings and its root."""

    device: Device
    root: Found


@dataclass(slots=True)
class Survey:
    """`targets` by the device's name: several entries of the settings may describe the same device."""

    targets: dict[str, list[Target]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    points: dict[PointKey, Point] = field(default_factory=dict)
    troubles: dict[Spot, str] = field(default_factory=dict)


async def survey(link: Link, devices: Sequence[Device], max_nodes: int) -> Survey:
    """Browses the server. Raises: what the library raises when the connection breaks."""
    result, browser = Survey(), Browser(link)
    for device in devices:
        try:
            await _survey_device(browser, device, link.settings.name, result, max_nodes)
        except (Trouble, MappingError) as error:
            result.troubles[Spot(device.number)] = str(error)
    return result


async def _survey_device(browser: Browser, device: Device, connector: str, result: Survey, max_nodes: int) -> None:
    start = Found(ROOT, {CONNECTOR: connector})
    [roots] = await browser.find_all([start], device.root)
    if not roots:
        raise Trouble(browser.why_nothing(start, device.root))
    named = []
    for root in roots:
        name, kind = device.name.render(root.captures), device.type.render(root.captures)
        named.append((name, kind))
        result.targets.setdefault(name, []).append(Target(device, root))
        result.types[name] = kind or result.types.get(name, "")
    for number, line in enumerate(device.lines):
        try:
            found = await browser.find_all(roots, line.place)
        except Trouble as error:
            result.troubles[Spot(device.number, number)] = str(error)
            continue
        for root, (name, kind), nodes in zip(roots, named, found, strict=True):
            if not nodes:
                why = browser.why_nothing(root, line.place)
                result.troubles.setdefault(Spot(device.number, number), f"{name}: {why}")
            _add_points(name, kind, line, nodes, result, max_nodes)


def _add_points(device: str, kind: str, line: Line, nodes: list[Found], result: Survey, max_nodes: int) -> None:
    for node in nodes:
        if len(result.points) >= max_nodes:
            text = (
                f"more than max_nodes = {max_nodes} nodes; the rest is left out: raise max_nodes, or narrow the paths"
            )
            result.troubles[Spot(-1)] = text
            return
        key = PointKey(device, line.content, line.key.render(node.captures), node.node_id)
        result.points[key] = Point(key, kind, line)
