"""What a node counts of its fabric: plain slots, read when somebody asks."""

from __future__ import annotations

from cloud_core.measures import Family, counter, gauge, one


class Counters:
    """Messages of parts, without what nodes say of themselves."""

    __slots__ = ("away", "full", "heard", "malformed", "missed", "told", "untellable")

    def __init__(self) -> None:
        self.told = self.heard = self.missed = 0
        self.away = self.full = self.untellable = self.malformed = 0

    def families(self, *, is_up: bool, nodes: int) -> list[Family]:
        dropped = [({"reason": name}, getattr(self, name)) for name in ("away", "full", "untellable", "malformed")]
        return [
            gauge("fabric_up", "1 while the fabric of the cluster can be reached.", one(int(is_up))),
            gauge("fabric_nodes", "Living nodes of the cluster, with this one.", one(nodes)),
            counter("fabric_messages_told_total", "Messages to other nodes.", one(self.told)),
            counter("fabric_messages_heard_total", "Messages of other nodes.", one(self.heard)),
            counter("fabric_messages_dropped_total", "Messages to or of other nodes that went nowhere.", dropped),
            counter("fabric_missed_total", "How often messages of other nodes may have been missed.", one(self.missed)),
        ]
