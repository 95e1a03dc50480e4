"""The states of a sub-device on one connection to the core, and what changes them: a table, no behaviour."""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """Where a sub-device stands."""

    KNOWN = auto()
    """Remembered; on this connection the core has not been told of it."""
    ANNOUNCING = auto()
    """Its connect was published; the core's acknowledgement is awaited."""
    ONLINE = auto()
    """The core has taken its connect: it can be called, and its data may go."""
    LEAVING = auto()
    """It went away; the core is told after a grace time unless it comes back."""
    LEFT = auto()
    """It is away and the core knows; it is announced again when it speaks, or when data of it waits."""
    REFUSED = auto()
    """The core refused its connect; its data waits on disk, and it is announced again after a while."""
    DELETED = auto()
    """The core deleted it; forgotten until it speaks again."""


class Event(Enum):
    """What happens to a sub-device."""

    SPOKE = auto()
    """It said something, or a connector saw it."""
    DATA_WAITS = auto()
    """A record of it wants to be sent."""
    SENT = auto()
    """Its connect was published."""
    ACKNOWLEDGED = auto()
    """The core took its connect."""
    REJECTED = auto()
    """The core refused its connect."""
    RETRY = auto()
    """The time after a refusal is over."""
    CHANGED = auto()
    """Its name or type is another: the core must be told again."""
    WENT = auto()
    """A connector saw it go, or it has been silent for too long."""
    GRACE_OVER = auto()
    """It did not come back."""
    ENDED = auto()
    """The connection to the core is over, and with it all sessions of sub-devices."""
    DELETED = auto()
    """The core deleted it."""


S, E = State, Event
NEXT: dict[tuple[State, Event], State] = {
    (S.KNOWN, E.SPOKE): S.KNOWN,
    (S.KNOWN, E.DATA_WAITS): S.KNOWN,
    (S.KNOWN, E.SENT): S.ANNOUNCING,
    (S.KNOWN, E.CHANGED): S.KNOWN,
    (S.KNOWN, E.WENT): S.LEFT,
    (S.KNOWN, E.ENDED): S.KNOWN,
    (S.KNOWN, E.DELETED): S.DELETED,
    (S.ANNOUNCING, E.SPOKE): S.ANNOUNCING,
    (S.ANNOUNCING, E.DATA_WAITS): S.ANNOUNCING,
    (S.ANNOUNCING, E.ACKNOWLEDGED): S.ONLINE,
    (S.ANNOUNCING, E.REJECTED): S.REFUSED,
    (S.ANNOUNCING, E.CHANGED): S.KNOWN,
    (S.ANNOUNCING, E.WENT): S.LEAVING,
    (S.ANNOUNCING, E.ENDED): S.KNOWN,
    (S.ANNOUNCING, E.DELETED): S.DELETED,
    (S.ONLINE, E.SPOKE): S.ONLINE,
    (S.ONLINE, E.DATA_WAITS): S.ONLINE,
    (S.ONLINE, E.CHANGED): S.KNOWN,
    (S.ONLINE, E.WENT): S.LEAVING,
    (S.ONLINE, E.ENDED): S.KNOWN,
    (S.ONLINE, E.DELETED): S.DELETED,
    (S.LEAVING, E.SPOKE): S.ONLINE,
    (S.LEAVING, E.DATA_WAITS): S.LEAVING,
    (S.LEAVING, E.CHANGED): S.KNOWN,
    (S.LEAVING, E.WENT): S.LEAVING,
    (S.LEAVING, E.GRACE_OVER): S.LEFT,
    (S.LEAVING, E.ENDED): S.LEFT,
    (S.LEAVING, E.DELETED): S.DELETED,
    (S.LEFT, E.SPOKE): S.KNOWN,
    (S.LEFT, E.DATA_WAITS): S.KNOWN,
    (S.LEFT, E.CHANGED): S.LEFT,
    (S.LEFT, E.WENT): S.LEFT,
    (S.LEFT, E.ENDED): S.LEFT,
    (S.LEFT, E.DELETED): S.DELETED,
    (S.REFUSED, E.SPOKE): S.REFUSED,
    (S.REFUSED, E.DATA_WAITS): S.REFUSED,
    (S.REFUSED, E.RETRY): S.KNOWN,
    (S.REFUSED, E.CHANGED): S.KNOWN,
    (S.REFUSED, E.WENT): S.LEFT,
    (S.REFUSED, E.ENDED): S.KNOWN,
    (S.REFUSED, E.DELETED): S.DELETED,
    (S.DELETED, E.SPOKE): S.KNOWN,
    (S.DELETED, E.WENT): S.DELETED,
    (S.DELETED, E.ENDED): S.DELETED,
    (S.DELETED, E.DELETED): S.DELETED,
}


class ImpossibleEvent(Exception):
    """An event that cannot happen in a state: our mistake."""


def next_state(state: State, event: Event) -> State:
    """Raises: ImpossibleEvent."""
    try:
        return NEXT[state, event]
    except KeyError:
        raise ImpossibleEvent(f"{event.name} in state {state.name}") from None
