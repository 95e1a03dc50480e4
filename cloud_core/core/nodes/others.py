"""What a node asks and tells the others, in one place; `DeviceApi.others`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloud_core.core.downlinks import Downlinks
from cloud_core.core.events import Events
from cloud_core.core.nodes.changes import Changes
from cloud_core.core.nodes.here import Here
from cloud_core.core.nodes.leases import Leases
from cloud_core.core.nodes.news import NewsOfNodes
from cloud_core.core.nodes.questions import Questions
from cloud_core.core.nodes.takeovers import Takeovers
from cloud_core.core.nodes.whereabouts import WhereaboutsApi
from cloud_core.core.presence import Presence
from cloud_core.fabric.interface import Fabric


class Others:
    """One attribute of `DeviceApi` for all: with more than 30 Python reads each of an object's more slowly.

    `here` and `changes` are added by `DeviceApi`, whose parts they need.
    """

    here: Here
    changes: Changes

    def __init__(
        self, *, fabric: Fabric, downlinks: Downlinks, events: Events, presence: Presence, now_ms: Callable[[], int],
        call_later: Callable[..., Any], leases: Leases,
    ) -> None:  # fmt: skip
        self.leases = leases
        self.questions = Questions(fabric=fabric, call_later=call_later)
        self.news = NewsOfNodes(fabric=fabric, events=events, now_ms=now_ms)
        self.takeovers = Takeovers(
            fabric=fabric, downlinks=downlinks, presence=presence, now_ms=now_ms, call_later=call_later
        )
        self.whereabouts = WhereaboutsApi(fabric=fabric, questions=self.questions, downlinks=downlinks)
