"""From the configuration to a fabric, and what `doctor` asks of its servers."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import threading
from typing import Protocol

from cloud_core.fabric.addresses import Address, BadAddress, addresses_of
from cloud_core.fabric.alone import Alone
from cloud_core.fabric.interface import Fabric
from cloud_core.measures import Family

MAX_HOST_CHARACTERS = 40


class FabricFailed(Exception):
    """There can be none; `str()` is one sentence that says the fix."""


class OpenFabric(Fabric, Protocol):
    """What whoever runs the program needs of a fabric beside what the core asks."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def families(self) -> list[Family]:
        """For `/metrics`."""


def open_fabric(urls: str, *, cluster: str, realm: str = "") -> OpenFabric:
    """Of `[cluster] fabric` and `name`; not started yet. Raises: FabricFailed.

    `realm`: what the nodes of one installation share and others do not have, fit for a subject. Installations that use
    one server under the same name would take each other's changes and commands for their own: devices have the same
    numbers there.
    """
    if not urls:
        return Alone()
    try:
        addresses = addresses_of(urls)
        from cloud_core.fabric.nats import NatsFabric
    except BadAddress as error:
        raise FabricFailed(f"[cluster] fabric: {error}") from None
    except ModuleNotFoundError as error:
        raise FabricFailed(
            "The fabric of [cluster] needs NATS' client library: pip install 'muster[cluster]'."
        ) from error
    return NatsFabric(addresses, cluster=f"{cluster}.{realm}" if realm else cluster, node=new_node_name())


def new_node_name() -> str:
    """Of this start of the program: host, process, chance."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname())[:MAX_HOST_CHARACTERS] or "node"
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


def unreachable(urls: str) -> list[tuple[Address, str]]:
    """The servers that do not let us in, each with the reason. Blocks for some seconds. Raises: FabricFailed."""
    open_fabric(urls, cluster="doctor")  # the address, and the library
    found: list[tuple[Address, str]] = []
    thread = threading.Thread(target=lambda: found.extend(asyncio.run(_tried(addresses_of(urls)))))
    thread.start()  # whoever asks may have a loop that runs
    thread.join()
    return found


async def _tried(addresses: list[Address]) -> list[tuple[Address, str]]:
    from cloud_core.fabric.connection import ConnectFailed, Connection

    failed = []
    for address in addresses:
        connection = Connection(address, on_arrived=_ignore, on_ended=_ignore)
        try:
            await connection.open((), name="muster doctor", ping_s=60.0, tls=None)
        except ConnectFailed as error:
            failed.append((address, str(error)))
        else:
            await connection.close()
    return failed


def _ignore(*_: object) -> None:
    """Nothing is subscribed to, and the end is ours."""
