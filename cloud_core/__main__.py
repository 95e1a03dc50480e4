"""Command line of the cloud core: options to configuration, then run."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import click

from cloud_core.config import Config
from cloud_core.console.audit import audit
from cloud_core.console.backup import backup
from cloud_core.console.ca import ca, certificates
from cloud_core.console.calls import dry_run, fail
from cloud_core.console.commands import device, login, profile, provisioning
from cloud_core.console.completion import completion
from cloud_core.console.config import config
from cloud_core.console.doctor import doctor
from cloud_core.console.exits import EXIT_CONFIG, EXIT_START, EXIT_WRONG, TABLE
from cloud_core.console.gateways import gateway
from cloud_core.console.keys import keys, rotate_secret
from cloud_core.console.options import configuration, server_options
from cloud_core.console.output import show_json
from cloud_core.console.pending import accept, pending, reject
from cloud_core.console.simulate import simulate
from cloud_core.console.users import user
from cloud_core.workers.assignment import Assignment
from cloud_core.workers.assignment import read as read_assignment


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=TABLE)
@click.version_option(package_name="muster", prog_name="cloud-core")
def main() -> None:
    """Lets fleets of devices register themselves over MQTT, HTTP and CoAP.

    Start with `cloud-core demo`, which shows the main job end to end.

    \b
    On a machine of your own:
      cloud-core config check --config cloud-core.toml
      cloud-core serve --config cloud-core.toml
      cloud-core profile create meters --reveal --data-dir data
      cloud-core doctor --config cloud-core.toml     when something does not work
    """


@main.command()
@server_options
def serve(**options: Any) -> None:
    """Run the core until SIGTERM or Ctrl-C; prints one `ready …` line once everything listens."""
    config = configuration(options)
    sys.exit(_supervise(config) if config.cluster.workers > 1 else _run(config))


@main.command(hidden=True)
def worker() -> None:
    """One of the processes of `serve --workers N`, which starts it."""
    try:
        assignment = read_assignment()
    except ValueError as error:
        fail(str(error), EXIT_CONFIG)
    sys.exit(_run(assignment.config, assignment))


@main.command()
@server_options
@dry_run
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def migrate(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Bring the database schema up to date, without starting the core. Make a backup first."""
    from sqlalchemy.exc import SQLAlchemyError

    from cloud_core.service import StartFailed, database_url, open_vault
    from cloud_core.storage.inspection import inspect, sqlite_path
    from cloud_core.storage.migrations import NEWEST, upgrade
    from cloud_core.storage.store import make_engine

    config = configuration(options)
    url = database_url(config)
    path = sqlite_path(url)
    try:
        step = None if path is not None and not path.exists() else inspect(url, None).step
        if not dry_run:
            open_vault(config)
            engine = make_engine(url)
            upgrade(engine)
            engine.dispose()
    except (StartFailed, RuntimeError) as error:
        fail(str(error), EXIT_START)
    except (SQLAlchemyError, OSError) as error:
        fail(f"Cannot open the database: {str(error).splitlines()[0]}; cloud-core doctor says more.", EXIT_START)
    if as_json:
        show_json({"dryRun": dry_run, "from": step, "to": NEWEST})
    elif step == NEWEST:
        click.echo(f"The schema is already at step {NEWEST}.")
    else:
        click.echo(f"The schema {'would be' if dry_run else 'is now'} at step {NEWEST}.")


@main.command()
@click.option("--once", is_flag=True, help="Check every step from outside, then exit 0, or 1 naming the step.")
@click.option("--http-port", type=int, help="Port to use; by default the usual one, or a free one if taken.")
@click.option("--mqtt-port", type=int, help="MQTT, likewise.")
@click.option("--coap-port", type=int, help="CoAP (UDP), likewise.")
@click.option("--https-port", type=int, help="HTTPS, likewise.")
@click.option("--mqtts-port", type=int, help="MQTT over TLS, likewise.")
@click.option("--coaps-port", type=int, help="CoAP over DTLS (UDP), likewise.")
def demo(once: bool, **ports: int | None) -> None:
    """Show the main job: devices provision themselves over MQTT, HTTP, CoAP and by certificate, and send telemetry."""
    from cloud_core.demo.clients import DemoFailed
    from cloud_core.demo.tour import run_demo
    from cloud_core.rest_client import RestError

    try:
        run_demo({name.removesuffix("_port"): port for name, port in ports.items()}, once=once)
    except (DemoFailed, RestError) as error:
        fail(str(error), EXIT_WRONG)


def _supervise(config: Config) -> int:
    """Runs several workers; the exit code."""
    from cloud_core.logs import start_logging
    from cloud_core.transports.listener import ListenFailed
    from cloud_core.workers.own_fabric import FabricFailed
    from cloud_core.workers.supervisor import Supervisor

    start_logging(config.log.format, config.log.level)
    _raise_file_limit()
    try:
        Path(config.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        return asyncio.run(Supervisor(config, say=lambda line: print(line, flush=True)).run())
    except (ListenFailed, FabricFailed, OSError) as error:
        click.echo(f"cloud-core: {error}", err=True)
        return EXIT_START


def _run(config: Config, assignment: Assignment | None = None) -> int:
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
    start_logging(config.log.format, config.log.level, assignment.index if assignment is not None else None)
    _raise_file_limit()
    signal.signal(signal.SIGHUP, lambda *_: None)  # has new certificates read where there are any; ends nothing
    exit_code = 0

    async def start() -> None:
        nonlocal exit_code
        try:
            program = Program(config, reactor=reactor, assignment=assignment)
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

    if assignment is not None:
        loop.add_reader(sys.stdin.fileno(), lambda: reactor.stop() if not os.read(sys.stdin.fileno(), 1) else None)
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(start()))
    reactor.run()
    return exit_code


def _raise_file_limit() -> None:
    """One descriptor per connection: as many as the system allows without asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


for command in (
    login, profile, device, provisioning, gateway, user, ca, certificates, audit, config, doctor, backup, completion,
    simulate,
):  # fmt: skip
    main.add_command(command)
for command in (keys, rotate_secret):
    profile.add_command(command)
for command in (pending, accept, reject):
    provisioning.add_command(command)

if __name__ == "__main__":
    main()
