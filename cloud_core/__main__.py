"""Command line of the cloud core: options to configuration, then run."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from cloud_core.config import Config, ConfigError, load
from cloud_core.console import device, login, profile, provisioning
from cloud_core.console_audit import audit
from cloud_core.console_ca import ca, certificates
from cloud_core.console_keys import keys, rotate_secret
from cloud_core.console_pending import accept, pending, reject

EXIT_CONFIG = 2
EXIT_START = 3


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="muster", prog_name="cloud-core")
def main() -> None:
    """Lets fleets of devices register themselves over MQTT, HTTP and CoAP.

    Start with `cloud-core demo`, which shows the main job end to end.
    """


def _server_options(command: Any) -> Any:  # Any: click decorators
    for option in reversed(
        (
            click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML configuration file."),
            click.option("--data-dir", help="Where database, keys and first password lie.  [default: data]"),
            click.option(
                "--http-port", type=int, help="HTTP: device API and REST; 0 picks a free one.  [default: 8080]"
            ),
            click.option("--mqtt-port", type=int, help="MQTT; 0 picks a free one.  [default: 1883]"),
            click.option("--coap-port", type=int, help="CoAP (UDP); 0 picks a free one.  [default: 5683]"),
            click.option("--https-port", type=int, help="HTTPS, where [tls] names a certificate.  [default: 8443]"),
            click.option("--mqtts-port", type=int, help="MQTT over TLS, likewise.  [default: 8883]"),
            click.option("--coaps-port", type=int, help="CoAP over DTLS (UDP), likewise.  [default: 5684]"),
            click.option(
                "--dev-tls",
                is_flag=True,
                default=None,
                help="Open the TLS ports with a certificate of a CA made for that; not for real devices.",
            ),
            click.option("--bind", help="Address to listen on, for all transports.  [default: 127.0.0.1]"),
            click.option("--database-url", help="postgresql+psycopg://user:password@host/name instead of SQLite."),
            click.option(
                "--log-format", type=click.Choice(["text", "json"]), help="Log lines on stderr.  [default: text]"
            ),
        )
    ):
        command = option(command)
    return command


@main.command()
@_server_options
def serve(**options: Any) -> None:
    """Run the core until SIGTERM or Ctrl-C; prints one `ready …` line once everything listens."""
    config = _configuration(options)
    sys.exit(_run(config))


@main.command()
@_server_options
def migrate(**options: Any) -> None:
    """Bring the database schema up to date, without starting the core."""
    from cloud_core.service import StartFailed, database_url, open_vault
    from cloud_core.storage.migrations import NEWEST, upgrade
    from cloud_core.storage.store import make_engine

    config = _configuration(options)
    try:
        open_vault(config)
        engine = make_engine(database_url(config))
        changed = upgrade(engine)
        engine.dispose()
    except (StartFailed, RuntimeError) as error:
        _fail(str(error), EXIT_START)
    click.echo(f"The schema is {'now ' if changed else 'already '}at step {NEWEST}.")


@main.command()
@click.option("--once", is_flag=True, help="Check every step from outside, then exit 0, or 1 naming the step.")
@click.option("--http-port", type=int, help="Port to use; by default the usual one, or a free one if taken.")
@click.option("--mqtt-port", type=int)
@click.option("--coap-port", type=int)
@click.option("--https-port", type=int)
@click.option("--mqtts-port", type=int)
@click.option("--coaps-port", type=int)
def demo(once: bool, **ports: int | None) -> None:
    """Show the main job: devices provision themselves over MQTT, HTTP, CoAP and by certificate, and send telemetry."""
    from cloud_core.demo import DemoFailed, run_demo
    from cloud_core.rest_client import RestError

    try:
        run_demo({name.removesuffix("_port"): port for name, port in ports.items()}, once=once)
    except (DemoFailed, RestError) as error:
        _fail(str(error), 1)


def _configuration(options: dict[str, Any]) -> Config:
    given = {
        "http": {"port": options["http_port"], "tls_port": options["https_port"], "bind": options["bind"]},
        "mqtt": {"port": options["mqtt_port"], "tls_port": options["mqtts_port"]},
        "coap": {"port": options["coap_port"], "dtls_port": options["coaps_port"]},
        "tls": {"development": options["dev_tls"]},
        "database": {"url": options["database_url"]},
        "log": {"format": options["log_format"]},
    }
    try:
        return load(options["config_path"], os.environ, given, data_dir=options["data_dir"])
    except ConfigError as error:
        _fail(str(error), EXIT_CONFIG)


def _fail(message: str, code: int) -> NoReturn:
    for line in message.splitlines():
        click.echo(f"cloud-core: {line}", err=True)
    sys.exit(code)


def _run(config: Config) -> int:
    """Installs the reactor (aiocoap needs asyncio's), runs the program, returns the exit code."""
    loop = asyncio.SelectorEventLoop()
    asyncio.set_event_loop(loop)
    from twisted.internet import asyncioreactor

    asyncioreactor.install(loop)
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred

    from cloud_core.logs import start_logging
    from cloud_core.service import Program, StartFailed

    reactor: Any = installed  # mypy reads nothing from zope interfaces
    start_logging(config.log.format, config.log.level)
    _raise_file_limit()
    exit_code = 0

    async def start() -> None:
        nonlocal exit_code
        try:
            program = Program(config, reactor=reactor)
            line = await program.start()
        except StartFailed as error:
            exit_code = EXIT_START
            for sentence in str(error).splitlines():
                click.echo(f"cloud-core: {sentence}", err=True)
            reactor.stop()
            return
        except Exception as error:
            exit_code = EXIT_START
            click.echo(f"cloud-core: could not start: {type(error).__name__}: {error}", err=True)
            reactor.stop()
            return
        reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(program.stop()))
        # What exists now lives as long as the program; a full collection over it and over a hundred
        # thousand live requests would stop everything for 100 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        print(line, flush=True)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(start()))
    reactor.run()
    return exit_code


def _raise_file_limit() -> None:
    """One descriptor per connection: as many as the system allows without asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


for command in (login, profile, device, provisioning, ca, certificates, audit):
    main.add_command(command)
for command in (keys, rotate_secret):
    profile.add_command(command)
for command in (pending, accept, reject):
    provisioning.add_command(command)

if __name__ == "__main__":
    main()
