"""Who lives: a table of beats, with the time passed in. Pure."""

from __future__ import annotations

from collections import OrderedDict

MAX_NODES = 64  # at a time; strangers who know the password shall not fill the memory
MAX_GOODBYES = 256  # that are remembered, so that a late message brings nobody back


class Membership:
    """`others` changes before any caller hears of it, and is the same object until it changes."""

    def __init__(self, *, gone_after_s: float) -> None:
        self.others: frozenset[str] = frozenset()
        self._gone_after_s = gone_after_s
        self._heard_s: dict[str, float] = {}
        self._goodbyes: OrderedDict[str, None] = OrderedDict()

    def has_said_goodbye(self, node: str) -> bool:
        return node in self._goodbyes

    def heard(self, node: str, now_s: float) -> bool:
        """Notes a sign of life; whether the node is new. Nothing is noted of one that said goodbye, or one too many."""
        is_new = node not in self._heard_s
        if is_new and (node in self._goodbyes or len(self._heard_s) >= MAX_NODES):
            return False
        self._heard_s[node] = now_s
        if is_new:
            self.others = frozenset(self._heard_s)
        return is_new

    def goodbye(self, node: str) -> bool:
        """Takes it out for good; whether it was there."""
        self._goodbyes[node] = None
        if len(self._goodbyes) > MAX_GOODBYES:
            self._goodbyes.popitem(last=False)
        return self._take_out([node]) != []

    def silent(self, now_s: float) -> list[str]:
        """Takes out those that have been silent for too long, and names them."""
        return self._take_out([node for node, at_s in self._heard_s.items() if now_s - at_s > self._gone_after_s])

    def forgive(self, now_s: float) -> None:
        """Nobody could be heard until now: silence counts from here."""
        self._heard_s = dict.fromkeys(self._heard_s, now_s)

    def clear(self) -> list[str]:
        """Takes out all, and names them."""
        return self._take_out(list(self._heard_s))

    def _take_out(self, nodes: list[str]) -> list[str]:
        gone = [node for node in nodes if self._heard_s.pop(node, None) is not None]
        if gone:
            self.others = frozenset(self._heard_s)
        return gone
