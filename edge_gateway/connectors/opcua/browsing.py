"""From paths of BrowseNames to nodes.

`Any` stands for asyncua's objects, whose types are partial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edge_gateway.connectors.opcua.library import ua
from edge_gateway.connectors.opcua.link import Link, Trouble
from edge_gateway.connectors.opcua.places import Place, Step
from edge_gateway.mapping.problems import did_you_mean

_HIERARCHICAL: Final = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
_CLASSES: Final = ua.NodeClass.Object | ua.NodeClass.Variable | ua.NodeClass.Method
_RESULTS: Final = ua.BrowseResultMask.BrowseName | ua.BrowseResultMask.NodeClass
_MAX_TOLD: Final = 10
ROOT: Final = ua.NodeId(ua.ObjectIds.RootFolder)
MAX_NAMES: Final = 200_000  # BrowseNames that one survey looks at


@dataclass(frozen=True, slots=True)
class Found:
    """A node, and what the path captured on the way."""

    node_id: Any
    captures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    namespace: int
    node_id: Any


class Browser:
    """Remembers what it has seen: use one for a survey and throw it away."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._children: dict[Any, dict[Any, _Child]] = {}  # by node id, each child once
        self._names = 0

    async def find(self, start: Found, place: Place) -> Found:
        """The one node. Raises: Trouble, saying what is there instead."""
        [found] = await self.find_all([start], place)
        if not found:
            raise Trouble(self.why_nothing(start, place))
        return found[0]

    async def find_all(self, starts: Sequence[Found], place: Place) -> list[list[Found]]:
        """For each start the nodes that `place` leads to; none is no error. Raises: Trouble."""
        if place.node_id:
            node_id = self._link.node_id(place)
            return [[Found(node_id, start.captures)] for start in starts]
        front = [[start] for start in starts]
        for step in place.steps:
            await self._browse([one.node_id for group in front for one in group])
            front = [[found for one in group for found in self._fitting(one, step)] for group in front]
        return front

    def _fitting(self, parent: Found, step: Step) -> list[Found]:
        found = []
        for child in self._children[parent.node_id].values():
            captures = step.match(child.name, child.namespace)
            if captures is not None:
                found.append(Found(child.node_id, {**parent.captures, **captures}))
        return found

    def why_nothing(self, start: Found, place: Place) -> str:
        """Where the way ends, after `find_all` found nothing."""
        here = [start]
        for number, step in enumerate(place.steps):
            there = [found for one in here for found in self._fitting(one, step)]
            if not there:
                names = list(
                    dict.fromkeys(child.name for one in here for child in self._children[one.node_id].values())
                )
                where = "/".join(one.text for one in place.steps[:number]) or "the starting point"
                return f"'{place.text}': {where} has no '{step.text}'{_there(step, names)}"
            here = there
        return f"'{place.text}' leads nowhere"

    async def _browse(self, node_ids: Sequence[Any]) -> None:
        new = [node_id for node_id in dict.fromkeys(node_ids) if node_id not in self._children]
        for at in range(0, len(new), self._link.limits.browse):
            await self._browse_some(new[at : at + self._link.limits.browse])

    async def _browse_some(self, node_ids: list[Any]) -> None:
        parameters = ua.BrowseParameters(
            NodesToBrowse=[
                ua.BrowseDescription(
                    NodeId=node_id,
                    ReferenceTypeId=_HIERARCHICAL,
                    NodeClassMask=_CLASSES,
                    ResultMask=_RESULTS,
                )
                for node_id in node_ids
            ]
        )
        results = await self._link.session.browse(parameters)
        for node_id, result in zip(node_ids, results, strict=True):
            children = self._children.setdefault(node_id, {})
            while True:
                self._take(result, children)
                if not result.ContinuationPoint:
                    break
                more = ua.BrowseNextParameters(ContinuationPoints=[result.ContinuationPoint])
                [result] = await self._link.session.browse_next(more)

    def _take(self, result: Any, children: dict[Any, _Child]) -> None:
        for reference in result.References or ():
            node_id, name = reference.NodeId, reference.BrowseName
            if getattr(node_id, "ServerIndex", 0):
                continue  # of another server
            plain = ua.NodeId(node_id.Identifier, node_id.NamespaceIndex, node_id.NodeIdType)
            children.setdefault(plain, _Child(name.Name or "", name.NamespaceIndex, plain))
            self._names += 1
        if self._names > MAX_NAMES:
            raise Trouble(f"the paths pass more than {MAX_NAMES} nodes; begin nearer at the devices, by a longer root")


def _there(step: Step, names: list[str]) -> str:
    if not names:
        return "; nothing is below it, or nothing that this user may see"
    guess = did_you_mean(step.name, names) if step.name is not None else ""
    if "did you mean" in guess:
        return guess
    more = f" and {len(names) - _MAX_TOLD} more" if len(names) > _MAX_TOLD else ""
    return f"; there are {', '.join(names[:_MAX_TOLD])}{more}"
