"""`edge-gateway run`: the agent's life as a process: start, reload, restart, stop."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from importlib.metadata import version
from typing import Any

import click
from twisted.logger import Logger

from edge_gateway.config import Config, ConfigError, load
from edge_gateway.console.history import History
from edge_gateway.console.local_port import DoorUnavailable, LocalPort
from edge_gateway.console.loop import as_deferred, installed_reactor
from edge_gateway.console.options import (
    EXIT_START,
    Place,
    configuration,
    environment,
    in_place,
    known_kinds,
)
from edge_gateway.console.systemd import Systemd
from edge_gateway.logs import start_logging

log = Logger()


@click.command()
@in_place
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Log lines on stderr.  [default: text]")
def run(place: Place, log_format: str | None) -> None:
    """Run the agent until SIGTERM or Ctrl-C; prints one `ready …` line once all connectors are started.

    The core may be away: what the connectors bring is kept on disk until it is back. SIGHUP reads the configuration
    again: connectors whose table did not change go on untouched, and a configuration with problems changes nothing.

    \b
    Example:
      $ edge-gateway run --config gateway.toml --data-dir /var/lib/edge-gateway
      ready core=mqtts://core.example.com:8883 connectors=4 local=http://127.0.0.1:8090

    Exit codes: 0 stopped in order, 2 the configuration has problems, 3 it cannot start.
    """
    reactor = installed_reactor()
    config = configuration(place)
    start_logging(log_format or config.log.format, config.log.level)
    agent = AgentProcess(place, config, reactor)
    reactor.callWhenRunning(lambda: as_deferred(agent.start()))
    reactor.run()
    if agent.is_restart_wanted:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    sys.exit(agent.exit_code)


class AgentProcess:
    """One gateway in this process."""

    def __init__(self, place: Place, config: Config, reactor: Any) -> None:
        self.exit_code = 0
        self.is_restart_wanted = False
        self._place = place
        self._config = config
        self._reactor = reactor
        self._kinds = known_kinds()
        self._systemd = Systemd()
        self._history = History(place.data_dir)
        self._gateway: Any = None  # imported late
        self._door: Any = None  # LocalDoor, imported for the first caller
        self._port: LocalPort | None = None
        self._reloading = asyncio.Lock()

    async def start(self) -> None:
        """Ends the reactor when it fails."""
        try:
            line = await self._start()
        except Exception as error:  # whatever keeps it from starting is told in one sentence
            self.exit_code = EXIT_START
            text = str(error) if type(error).__name__ in _SENTENCES else f"{type(error).__name__}: {error}"
            click.echo(f"edge-gateway: cannot start: {text}", err=True)
            self._reactor.stop()
            return
        self._reactor.addSystemEventTrigger("before", "shutdown", lambda: as_deferred(self.stop()))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))
        # What exists now lives as long as the program: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        print(line, flush=True)
        self._systemd.ready(line)

    async def _start(self) -> str:
        from edge_gateway.service import Gateway

        _raise_file_limit()
        self._gateway = Gateway(
            self._config,
            data_dir=self._place.data_dir,
            reactor=self._reactor,
            kinds=self._kinds,
            version=version("muster"),
            restart=self.restart,
            beat=self._systemd.beat,
        )
        await self._gateway.start()
        self._remember()
        local = await self._open_door()
        return f"ready core={self._config.core.url} connectors={len(self._config.connectors)} local={local}"

    async def _open_door(self) -> str:
        """The local page; the gateway works without it."""
        local = self._config.local
        if not local.enabled:
            return "off"
        opened = LocalPort(settings=local, data_dir=self._place.data_dir, reactor=self._reactor, serve=self._serve_page)
        try:
            port = await opened.start()
        except DoorUnavailable as error:
            log.warn("{reason}", reason=str(error))
            return "unavailable"
        self._port = opened
        return f"http://{f'[{local.bind}]' if ':' in local.bind else local.bind}:{port}"

    def _serve_page(self) -> Any:
        """The factory behind the local port."""
        from edge_gateway.console.local_door import LocalDoor

        self._door = LocalDoor(
            gateway=self._gateway,
            data_dir=self._place.data_dir,
            load_config=self._load,
            check_text=self._load,
            config_path=self._place.config,
            is_storing=self._gateway.is_storing,
            kept=self._kept,
            reactor=self._reactor,
        )
        return self._door.open()

    def _load(self, text: str | None = None) -> Config:
        """Raises: ConfigError."""
        return load(self._place.config, environment(), kinds=self._kinds, text=text)

    def _kept(self) -> None:
        self._config = self._gateway.config
        self._remember()

    async def stop(self) -> None:
        """Everything that was accepted is on disk when this ends."""
        self._systemd.stopping()
        try:
            if self._port is not None:
                await self._port.stop()
            if self._door is not None:
                await self._door.stop()
        finally:  # the page's trouble must not keep readings from the disk
            await self._gateway.stop()

    def restart(self) -> None:
        """The core's order `gateway_restart`: stops in order, then becomes a new process with the same arguments."""
        self.is_restart_wanted = True
        self._reactor.stop()

    def reload(self) -> None:
        """SIGHUP."""
        self._reactor.callLater(0, lambda: as_deferred(self._reload()))

    async def _reload(self) -> None:
        async with self._reloading:
            try:
                config = self._load()
            except ConfigError as error:
                log.error("The configuration has problems; the old one goes on:\n{problems}", problems=str(error))
                return
            if self._door is not None and self._door.rollout.is_running:
                log.warn("Not read again: another configuration is on trial; see `edge-gateway apply`")
                return
            report = await self._gateway.apply(config)
            self._kept()
            log.info("Configuration read again: {changes}", changes=_in_words(report))

    def _remember(self) -> None:
        try:
            self._history.remember(self._place.config)
        except OSError as error:
            log.warn("The configuration was not kept in the history: {reason}", reason=error.strerror or str(error))


_SENTENCES = ("SpoolUnavailable", "FileUnusable")  # exceptions that are written for people already


def _in_words(report: dict[str, list[str]]) -> str:
    said = [f"{what} {', '.join(names)}" for what, names in report.items() if names]
    return "; ".join(said) or "nothing changed"


def _raise_file_limit() -> None:
    """One descriptor per connection: as many as the system allows without asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
