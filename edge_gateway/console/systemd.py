"""Tells systemd how the service is (`Type=notify`, `WatchdogSec=`), see sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Systemd:
    """Does nothing where systemd is not the one that started us."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # @: Linux' abstract names

    def tell(self, *states: str) -> None:
        """Such as `READY=1`. A lost message is systemd's to notice, by its own timeouts."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
                notify.setblocking(False)
                notify.sendto("\n".join(states).encode(), self._address)
        except OSError:
            return

    def ready(self, status: str) -> None:
        self.tell("READY=1", f"STATUS={status}")

    def beat(self) -> None:
        self.tell("WATCHDOG=1")

    def stopping(self) -> None:
        self.tell("STOPPING=1")
