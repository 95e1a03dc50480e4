"""What a simulated device goes through: one table."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    OFF = "off"
    """Not powered yet."""
    POWERED = "powered"
    """Without credentials; waits to ask: for its turn, or as long as it was told."""
    PROVISIONING = "provisioning"
    """Its request is on the way."""
    PROVISIONED = "provisioned"
    """Has credentials; waits to connect."""
    CONNECTING = "connecting"
    """Its login, or its first report, is on the way."""
    ONLINE = "online"
    """Has been let in with its credentials, and reports."""
    ASLEEP = "asleep"
    """Has reported and closed its connection, for want of descriptors; comes back for the next report."""
    DONE = "done"
    """Was switched off after its report."""
    REFUSED = "refused as planned"
    """Holds a wrong secret, and was not let in."""
    KNOWN = "provisioned before"
    """The core has it from an earlier run whose credentials are not at hand."""
    FAILED = "failed"
    """Will never get in."""


class Event(StrEnum):
    POWER_ON = "power on"
    POWER_ON_KNOWN = "power on with credentials of an earlier run"
    ASK = "ask"
    PUT_OFF = "put off"
    """No answer, or one that says: later."""
    GRANTED = "granted"
    """Credentials have arrived, or its own are tried because the name is taken."""
    EXPECTED = "refused as expected"
    TAKEN = "name taken in an earlier run"
    CONNECT = "connect"
    ACCEPTED = "accepted"
    DISOWNED = "credentials of an earlier run are not valid any more"
    LOST = "connection lost"
    SLEEP = "sleep"
    SWITCH_OFF = "switch off"
    GIVE_UP = "give up"


S, E = State, Event

NEXT: Final[dict[tuple[State, Event], State]] = {
    (S.OFF, E.POWER_ON): S.POWERED,
    (S.OFF, E.POWER_ON_KNOWN): S.PROVISIONED,
    (S.POWERED, E.ASK): S.PROVISIONING,
    (S.POWERED, E.EXPECTED): S.REFUSED,
    (S.POWERED, E.GIVE_UP): S.FAILED,
    (S.PROVISIONING, E.PUT_OFF): S.POWERED,
    (S.PROVISIONING, E.GRANTED): S.PROVISIONED,
    (S.PROVISIONING, E.EXPECTED): S.REFUSED,
    (S.PROVISIONING, E.TAKEN): S.KNOWN,
    (S.PROVISIONING, E.GIVE_UP): S.FAILED,
    (S.PROVISIONED, E.CONNECT): S.CONNECTING,
    (S.PROVISIONED, E.LOST): S.PROVISIONED,  # a storm meets it while it waits
    (S.PROVISIONED, E.GIVE_UP): S.FAILED,
    (S.CONNECTING, E.ACCEPTED): S.ONLINE,
    (S.CONNECTING, E.PUT_OFF): S.PROVISIONED,
    (S.CONNECTING, E.DISOWNED): S.POWERED,
    (S.CONNECTING, E.TAKEN): S.KNOWN,  # its own credentials are not those that the core has
    (S.CONNECTING, E.LOST): S.PROVISIONED,
    (S.CONNECTING, E.GIVE_UP): S.FAILED,
    (S.ONLINE, E.LOST): S.PROVISIONED,
    (S.ONLINE, E.SLEEP): S.ASLEEP,
    (S.ONLINE, E.SWITCH_OFF): S.DONE,
    (S.ASLEEP, E.CONNECT): S.CONNECTING,
    (S.ASLEEP, E.LOST): S.PROVISIONED,
    (S.ASLEEP, E.SWITCH_OFF): S.DONE,
}
"""A pair that is missing cannot happen; asking for it raises KeyError."""

FINAL: Final = frozenset({S.DONE, S.REFUSED, S.KNOWN, S.FAILED})
"""Nothing happens to these any more."""
