"""Logs in at the core as the agent would, for `setup` and `doctor`."""

from __future__ import annotations

import asyncio
import random
import secrets
import string
from typing import Any

from edge_gateway.core.agent import Agent, Keyring, State
from edge_gateway.core.rates import SessionLimits
from edge_gateway.model import Credentials
from edge_gateway.settings import Core
from edge_gateway.storage.keyring import FileKeyring
from edge_gateway.uplink.interface import Uplink
from edge_gateway.uplink.paho import PahoUplink

LOOK_S = 0.05
TIMEOUT_S = 30.0
ATTEMPTS = 3  # a core that does not speak MQTT 5 closes twice before the older version is tried
PATIENCE_S = 4.0  # a longer wait is one that the core asked for
_LETTERS = string.ascii_letters + string.digits


class _Nobody:
    """Uses the connection for nothing."""

    def online(self, uplink: Uplink, limits: SessionLimits, *, max_packet_bytes: int, receive_maximum: int) -> None:
        """Being let in is all that is asked for."""

    def received(self, topic: str, payload: bytes) -> None:
        """Left to the agent."""

    def offline(self) -> None:
        """Nothing to end."""


async def log_in(core: Core, keyring: FileKeyring, name: str, reactor: Any, timeout_s: float = TIMEOUT_S) -> str:
    """Provisions the gateway when it has no credentials yet, and logs in. Empty when it works, else why it does not."""

    def uplink(credentials: Credentials | None, version: str) -> Uplink:
        files = (core.certificate, core.private_key)
        if credentials is not None and credentials.kind == "X509_CERTIFICATE" and not core.certificate:
            files = keyring.certificate_files()
        return PahoUplink(core=core, credentials=credentials, version=version, certificate_files=files, reactor=reactor)

    agent = Agent(
        core=core, name=name, keyring=keyring, uplinks=uplink, link=_Nobody(), reactor=reactor, random=random.random,
        new_secret=lambda length: "".join(secrets.choice(_LETTERS) for _ in range(length)),
    )  # fmt: skip
    agent.start()
    try:
        return await _outcome(agent, reactor, timeout_s)
    finally:
        agent.stop()
        await asyncio.sleep(LOOK_S)  # the connection says goodbye in the next turn of the loop


async def _outcome(agent: Agent, reactor: Any, timeout_s: float) -> str:
    began_s = reactor.seconds()
    waits, was = 0, State.IDLE
    while reactor.seconds() - began_s < timeout_s:
        if agent.state in (State.SETTLING, State.ONLINE):
            return ""
        if agent.state is State.WAITING:
            waits += was is not State.WAITING
            if waits >= ATTEMPTS or reactor.seconds() - agent.since_s > PATIENCE_S:
                break
        was = agent.state
        await asyncio.sleep(LOOK_S)
    return agent.reason or f"no answer within {timeout_s:g} s"


def has_login(core: Core, keyring: Keyring) -> bool:
    """Whether there is anything to log in with, without provisioning."""
    return bool(core.token or core.username or core.client_id or core.certificate or keyring.credentials())
