"""Handshakes of TLS that are under way on all ports: how many there may be, of one address and in all.

Each holds a socket and, from its first bytes on, OpenSSL's buffers, for somebody whom nobody knows yet.

Of one address the newest is turned away, so that those which have begun come to their end: behind one address may stand
a whole fleet that reconnects. In all it is the oldest that goes: whoever opens connections from many addresses and lets
them lie must not keep others out.
"""

from __future__ import annotations

from typing import Protocol

PER_ADDRESS = "too many handshakes of this address are under way"
IN_ALL = "too many handshakes are under way, and it was the oldest"


class GivesUp(Protocol):
    """A connection that has not finished its handshake."""

    def give_up(self, why: str) -> None:
        """Ends it; `Handshakes.end` is called from within."""


class Handshakes:
    """0: without limit."""

    def __init__(self, *, max_per_address: int = 0, max_in_all: int = 0) -> None:
        self._max_per_address = max_per_address
        self._max_in_all = max_in_all
        self._address_of: dict[GivesUp, str] = {}  # the oldest first
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._address_of)

    def begin(self, connection: GivesUp, address: str) -> None:
        """May end this one, or another in its place."""
        count = self._counts.get(address, 0)
        if self._max_per_address and count >= self._max_per_address:
            connection.give_up(PER_ADDRESS)
            return
        if self._max_in_all and len(self._address_of) >= self._max_in_all:
            next(iter(self._address_of)).give_up(IN_ALL)
            count = self._counts.get(address, 0)
        self._address_of[connection] = address
        self._counts[address] = count + 1

    def end(self, connection: GivesUp) -> None:
        """One that is finished, broken or given up; another than those that are under way is fine."""
        address = self._address_of.pop(connection, None)
        if address is None:
            return
        count = self._counts[address] - 1
        if count:
            self._counts[address] = count
        else:
            del self._counts[address]
