"""What one node tells the others of what it has written, and where in the database that stands."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple


class ChangeKind(IntEnum):
    """What has changed; the numbers stand in the database."""

    CREDENTIALS = 1
    """A device's credentials are over: its sessions end. `body` True: a certificate was revoked, maybe of nobody."""
    LOGIN = 2
    """A device's credentials are read anew at its next login; its connections stay."""
    NEW_CREDENTIALS = 3
    """A new device has credentials that others may remember not to exist."""
    DEVICE = 4
    """Something that sessions hold a copy of: name, profile, whether it is a gateway."""
    DELETED = 5
    """The device is gone."""
    PROFILE = 6
    """A profile or an authority was made, changed or deleted."""
    SHARED = 7
    """Shared attributes of a device; `body`: their keys. The values are read by whoever has the device."""
    INACTIVITY = 8
    """The server attribute `inactivityTimeout` of a device."""
    COMMAND = 9
    """A persistent command of the device waits, or may be sent now."""
    LOGINS = 10
    """Logins of people have ended, or there is another API key."""


class Change(NamedTuple):
    """A row of the table `change`. `node`: who has written it; `body`: what MessagePack carries."""

    number: int
    node: str
    kind: int  # a `ChangeKind`, or one of a newer program
    device_id: int | None = None
    body: Any = None
