"""Composition root: builds all, starts in order, stops in reverse order; the only module that sees everything.

Order of the start: spool, flow, local door, connectors, agent. So whatever a connector brings is durable from the first
message, whether the core is there or not.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import string
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from edge_gateway.config import Config
from edge_gateway.connectors.interface import ConnectorKind
from edge_gateway.core import presence
from edge_gateway.core.agent import Agent
from edge_gateway.core.clock import Clock
from edge_gateway.core.downlinks import Downlinks
from edge_gateway.core.gateway_methods import GatewayMethods
from edge_gateway.core.intake import ConnectorSite, Intake
from edge_gateway.core.rates import SessionLimits
from edge_gateway.core.relay import Relay
from edge_gateway.core.statistics import Counters, Statistics
from edge_gateway.core.sub_devices import SubDevices
from edge_gateway.core.supervision import Supervisor, Table, Watchdog
from edge_gateway.mapping.reports import parse_report
from edge_gateway.model import Content, Credentials, Reading
from edge_gateway.storage.credentials import CredentialsFolder
from edge_gateway.storage.keyring import FileKeyring
from edge_gateway.storage.spool import SqlSpool, seconds_since_start
from edge_gateway.uplink.interface import Uplink
from edge_gateway.uplink.paho import PahoUplink

log = Logger()

STATE_TEXTS = {
    presence.State.KNOWN: "known; not told to the core in this connection",
    presence.State.ANNOUNCING: "being registered",
    presence.State.ONLINE: "registered; can be called",
    presence.State.LEAVING: "gone a moment ago",
    presence.State.LEFT: "gone",
    presence.State.REFUSED: "refused by the core; tried again later",
    presence.State.DELETED: "deleted at the core; until it speaks again",
}
FIRST_WORDS_S = 2.0  # for connectors that have to reach somebody first
COMMIT_S = 10.0  # so long the disk may take for the last records at a stop
_LETTERS = string.ascii_letters + string.digits


def wall_ms() -> int:
    """Unix time."""
    return time.time_ns() // 1_000_000


def spool_path(config: Config, data_dir: Path) -> Path:
    """Where the spool lies."""
    return Path(config.store.path) if config.store.path else data_dir / "spool.db"


def gateway_name(config: Config, data_dir: Path) -> str:
    """The gateway's name at the core, as `[core.provision] name` says. Raises: FileUnusable."""
    template = config.core.provision.name if config.core.provision else "gw-{serial}"
    serial = CredentialsFolder(data_dir).serial() if "{serial}" in template else ""
    return template.replace("{serial}", serial).replace("{hostname}", socket.gethostname())


class Gateway:
    """The running gateway. Raises at construction: SpoolUnavailable, FileUnusable, with a sentence for people."""

    def __init__(
        self,
        config: Config,
        *,
        data_dir: Path,
        reactor: Any,  # mypy reads nothing from zope interfaces
        kinds: Mapping[str, ConnectorKind],
        version: str,
        restart: Callable[[], None],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        # `beat` is called while the loop turns, for systemd's watchdog.
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.config = config
        self.version = version
        self._kinds = kinds
        self._reactor = reactor
        self.name = gateway_name(config, data_dir)
        self._keyring = FileKeyring(data_dir, name=self.name)
        self._keyring.credentials()  # a damaged file is said now, not at the first connection
        self._spool = SqlSpool(path=spool_path(config, data_dir), settings=config.store, reactor=reactor)
        self._spool.open()
        self._build_flow(beat)
        self._build_north(restart)

    def _build_flow(self, beat: Callable[[], None]) -> None:
        """From the connectors to the relay."""
        config, reactor = self.config, self._reactor
        self.counters = Counters(wall_ms)
        self._clock = Clock(
            wall_ms=wall_ms,
            monotonic_ms=lambda: round(seconds_since_start() * 1000),
            boots=self._spool,
            newest_ms=max((device.last_seen_ms for device in self._spool.sub_devices()), default=0),
        )
        self.sub_devices = SubDevices(
            settings=config.devices, store=self._spool, timers=reactor, wall_ms=lambda: self._clock.now()[0]
        )
        self.relay = Relay(
            spool=self._spool,
            sub_devices=self.sub_devices,
            clock=self._clock,
            timers=reactor,
            core=config.core,
            store=config.store,
            counters=self.counters,
            on_silent=self._silent,
        )
        self.intake = Intake(
            spool=self._spool,
            relay=self.relay,
            sub_devices=self.sub_devices,
            clock=self._clock,
            timers=reactor,
            report=parse_report(config.devices.report) if config.devices.report else None,
        )
        self.supervisor = Supervisor(
            site=self.intake.site,
            timers=reactor,
            random=random.random,
            sleep=lambda seconds: asyncio.ensure_future(asyncio.sleep(seconds)),
        )
        self.statistics = Statistics(
            counters=self.counters,
            spool=self._spool,
            relay=self.relay,
            sites=self._sites,
            devices=lambda: self.sub_devices.count,
            timers=reactor,
            wall_ms=wall_ms,
            every_s=config.statistics.every,
            send=lambda values: self.intake.own(Content.TELEMETRY, values),
        )
        self.watchdog = Watchdog(timers=reactor, beat=beat)

    def _sites(self) -> dict[str, ConnectorSite]:
        """Those of the configured connectors: the gateway's own and former ones are nobody's to mend."""
        names = {table.name for table in self.config.connectors if table.settings.enabled}
        return {name: site for name, site in self.intake.sites.items() if name in names}

    def _build_north(self, restart: Callable[[], None]) -> None:
        """The agent, and who answers the core's messages."""
        core, provision = self.config.core, self.config.core.provision
        self.downlinks = Downlinks(
            sub_devices=self.sub_devices,
            connector=self.supervisor.connector,
            urgent=self.relay.urgent,
            timers=self._reactor,
        )
        self.methods = GatewayMethods(
            sub_devices=self.sub_devices,
            urgent=self.relay.urgent,
            snapshot=self.status,
            version=self.version,
            restart=restart,
            remove_credentials=lambda: self.agent.forget_credentials(),
            may_remove_credentials=provision is not None and provision.again != "never",
        )
        self.agent = Agent(
            core=core,
            name=self.name,
            keyring=self._keyring,
            uplinks=self._uplink,
            link=self,
            reactor=self._reactor,
            random=random.random,
            new_secret=lambda length: "".join(secrets.choice(_LETTERS) for _ in range(length)),
        )

    def _uplink(self, credentials: Credentials | None, version: str) -> Uplink:
        core = self.config.core
        files = (core.certificate, core.private_key)
        if credentials is not None and credentials.kind == "X509_CERTIFICATE" and not core.certificate:
            files = self._keyring.certificate_files()
        return PahoUplink(
            core=core, credentials=credentials, version=version, certificate_files=files, reactor=self._reactor
        )

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything runs when this returns, with its ports open; the core may still be far away."""
        self.relay.start()
        self.statistics.start()
        self.watchdog.start()
        await self.supervisor.apply(self._tables(self.config))
        self.agent.start()
        await self.supervisor.first_words(FIRST_WORDS_S)

    async def stop(self) -> None:
        """Connectors first, then what they brought goes to the disk, then the connection ends."""
        try:
            await self.supervisor.stop()
            await self.downlinks.stop()
        finally:
            self.statistics.stop()
            self.watchdog.stop()
            self.intake.stop()
            await self.is_storing()  # all that was handed over is durable then
            self.agent.stop()
            self.relay.stop()
            self._spool.close()

    async def is_storing(self) -> bool:
        """Whether the spool takes records; everything handed over before is durable then. Waits for `COMMIT_S`."""
        committed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(refusal: object) -> None:
            if not committed.done():
                committed.set_result(refusal is None)

        self._spool.append((), done)
        await asyncio.wait([committed], timeout=COMMIT_S)
        return committed.done() and committed.result()

    async def apply(self, config: Config) -> dict[str, list[str]]:
        """Makes `config` the running one without losing data: connectors that did not change go on untouched.

        Returns the names of the connectors started, stopped, restarted and unchanged, and under "restart needed" the
        sections that take effect only at the next start.
        """
        report = await self.supervisor.apply(self._tables(config))
        self.sub_devices.apply(config.devices)
        fixed = ("core", "store", "local", "statistics", "log")
        report["restart needed"] = [name for name in fixed if getattr(config, name) != getattr(self.config, name)]
        self.config = config
        return report

    def _tables(self, config: Config) -> list[Table]:
        return [Table(self._kinds[one.kind], one.settings, one.raw) for one in config.connectors]

    # -- what the agent tells (core.agent.Link) ----------------------------------------------------

    def online(self, uplink: Uplink, limits: SessionLimits, *, max_packet_bytes: int, receive_maximum: int) -> None:
        self.relay.connected(uplink, limits, max_packet_bytes=max_packet_bytes, receive_maximum=receive_maximum)

    def received(self, topic: str, payload: bytes) -> None:
        if not (self.downlinks.received(topic, payload) or self.methods.received(topic, payload)):
            log.debug("Nothing here answers {topic}", topic=topic)

    def offline(self) -> None:
        self.relay.ended()

    def _silent(self) -> None:
        self.agent.reconnect(f"the core acknowledged nothing for {self.config.core.answer_timeout:g} s")

    # -- what people ask --------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Everything that `edge-gateway status` shows; JSON."""
        agent = self.agent
        return {
            "name": self.name,
            "version": self.version,
            "core": {
                "url": self.config.core.url,
                "state": agent.state.name.lower(),
                "stateText": agent.state.value,
                "reason": agent.reason,
                "sinceS": round(self._reactor.seconds() - agent.since_s),
                "mqtt": agent.version,
            },
            "loopBlocked": self.watchdog.blocked,
            **self.statistics.snapshot(),
        }

    def devices(self) -> list[dict[str, Any]]:
        """All sub-devices, as JSON."""
        return [
            {
                "name": device.name,
                "upstreamName": device.upstream_name,
                "type": device.type,
                "connector": device.connector,
                "state": state.name.lower(),
                "stateText": STATE_TEXTS[state],
                "lastSeenMs": device.last_seen_ms,
            }
            for device, state in self.sub_devices.listing()
        ]

    def tap(self, listener: Callable[[str, Reading], None]) -> Callable[[], None]:
        """Hears every reading with its connector's name; call what is returned to stop."""
        return self.intake.tap(listener)
