"""What a device needs of its transport, and what it hears from it."""

from __future__ import annotations

from typing import Protocol

from cloud_core.simulator.plan import DevicePlan
from shared.credentials import Credentials


class Listener(Protocol):
    """The device. Of each thing that is under way exactly one of these tells the end; `broken` ends all of them."""

    plan: DevicePlan
    credentials: Credentials | None

    def answered(self, body: bytes, retry_after_s: float | None) -> None:
        """A provision response; `retry_after_s` as the transport says it, beside the body."""

    def accepted(self) -> None:
        """The login is good."""

    def acknowledged(self) -> None:
        """The report is stored."""

    def turned_away(self, reason: str, *, retry_after_s: float | None, is_final: bool) -> None:
        """Login or report refused; `is_final`: the credentials are not valid."""

    def broken(self, why: str) -> None:
        """The connection, or the wait for an answer, has ended; the link is of no use any more."""

    def commanded(self) -> None:
        """A command has come and been answered."""


class Link(Protocol):
    """A device's way to the core, for one conversation or one connection.

    What opens a connection raises OSError where this machine has no socket or port left; the link is of no use then.
    """

    @property
    def stays(self) -> bool:
        """Whether it is of use after an answer; else a new one is made for each request."""

    @property
    def awaits_more(self) -> bool:
        """Whether another answer to the same request is due."""

    def ask(self, body: bytes) -> None:
        """Sends a provision request."""

    def connect(self, report: bytes) -> None:
        """Logs in and sends a report."""

    def post(self, report: bytes) -> None:
        """Sends a report, once connected."""

    def close(self, *, abruptly: bool = False) -> None:
        """Ends it; the device hears nothing more."""

    def ping(self) -> None:
        """Shows that the device is still there, where the transport asks for it."""
