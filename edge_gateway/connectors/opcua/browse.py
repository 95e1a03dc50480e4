"""Looks up on the server what the settings want."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge_gateway.connectors.opcua.compiling import Action, DeviceDraft, Draft, Wanted
from edge_gateway.connectors.opcua.library import ua
from edge_gateway.connectors.opcua.places import Place
from edge_gateway.mapping.interface import MappingError

MAX_BROWSED: Final = 50_000
_MAX_NAMES_TOLD: Final = 6


@dataclass(frozen=True, slots=True)
class Item:
    """A key of a device and its node."""

    node: Any  # ua.NodeId
    device: str
    type: str
    key: str
    wanted: Wanted


@dataclass(slots=True)
class Device:
    """A device that was found; `base` is where its paths begin."""

    name: str
    type: str
    base: Any
    rpc: dict[str, Action] = field(default_factory=dict)
    shared: dict[str, Action] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    items: list[Item] = field(default_factory=list)
    devices: dict[str, list[Device]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


Match = tuple[Any, Any, dict[str, str], str]
"""The node, its parent, the captures and the BrowseName."""


class Browser:
    """One look at the server; asks for each node's children once."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._children: dict[Any, list[tuple[int, str, Any]]] = {}

    async def find(self, draft: Draft) -> Found:
        found = Found()
        for device in draft.devices:
            try:
                await self._find_device(device, found)
            except MappingError as error:
                found.faults.append(str(error))
        return found

    async def _find_device(self, draft: DeviceDraft, found: Found) -> None:
        bases: list[Match] = [(None, None, {}, "")]
        if draft.place is not None:
            bases = await self.matches(draft.place, None)
            if not bases:
                found.faults.append(await self.why_nothing(draft.place, None))
        for base, _, captures, name in bases:
            values = {**captures, "key": name}
            device = Device(draft.device.render(values), draft.type.render(values), base, draft.rpc, draft.shared)
            found.devices.setdefault(device.name, []).append(device)
            for wanted in draft.wanted:
                await self._find_items(device, wanted, captures, found)

    async def _find_items(self, device: Device, wanted: Wanted, captures: Mapping[str, str], found: Found) -> None:
        matches = await self.matches(wanted.place, device.base)
        if not matches:
            found.faults.append(f"{device.name}: {await self.why_nothing(wanted.place, device.base)}")
        for node, _, more, name in matches:
            key = wanted.key.render({**captures, **more, "key": name})
            found.items.append(Item(node, device.name, device.type, key, wanted))

    async def matches(self, place: Place, base: Any) -> list[Match]:
        """Every node at the place. Raises: MappingError when the server has too many."""
        if place.node_id:
            node = ua.NodeId.from_string(place.node_id)
            return [(node, None, {}, place.node_id.rpartition("=")[2])]
        level: list[Match] = [(self._start(place, base), None, {}, place.root)]
        for segment in place.segments:
            below: list[Match] = []
            for node, _, captures, _ in level:
                for namespace, name, child in await self._children_of(node):
                    more = segment.match(namespace, name)
                    if more is not None:
                        below.append((child, node, {**captures, **more}, name))
            level = below
        return level

    def _start(self, place: Place, base: Any) -> Any:
        if place.root:
            ids = ua.ObjectIds
            numbers = {
                "Root": ids.RootFolder, "Objects": ids.ObjectsFolder, "Types": ids.TypesFolder, "Views": ids.ViewsFolder
            }  # fmt: skip
            return ua.NodeId(numbers[place.root])
        return base if base is not None else ua.NodeId(ua.ObjectIds.ObjectsFolder)

    async def _children_of(self, node: Any) -> list[tuple[int, str, Any]]:
        if node not in self._children:
            if len(self._children) >= MAX_BROWSED:
                raise MappingError(f"more than {MAX_BROWSED} nodes were looked through; write the paths more exactly")
            descriptions = await self._client.get_node(node).get_children_descriptions()
            self._children[node] = [
                (one.BrowseName.NamespaceIndex, one.BrowseName.Name or "", _local(one.NodeId)) for one in descriptions
            ]
        return self._children[node]

    async def why_nothing(self, place: Place, base: Any) -> str:
        """Where the path ends, and what is there instead."""
        so_far = place.root or "the device's place"
        for count in range(1, len(place.segments) + 1):
            shorter = Place(place.text, root=place.root, segments=place.segments[:count])
            if not await self.matches(shorter, base):
                above = Place(place.text, root=place.root, segments=place.segments[: count - 1])
                there = [
                    name for node, *_ in await self.matches(above, base) for _, name, _ in await self._children_of(node)
                ]
                there = sorted(set(there))
                names = ", ".join(there[:_MAX_NAMES_TOLD]) + (" …" if len(there) > _MAX_NAMES_TOLD else "")
                text = f"'{place.text}' finds nothing: there is no '{place.segments[count - 1].text}' below {so_far}"
                return f"{text}; there are {names}" if names else f"{text}, nor anything else"
            so_far = place.segments[count - 1].text
        return f"'{place.text}' finds nothing"


def _local(node: Any) -> Any:
    """A NodeId of this server, from an ExpandedNodeId."""
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)
