"""`simulate`: a fleet of simulated devices against a running core."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from cloud_core.console.calls import at_core, ca_file, call, connect, fail, local_ports
from cloud_core.console.exits import EXIT_FILE, EXIT_REFUSED, EXIT_START, EXIT_WRONG, POINTER
from cloud_core.console.output import show_json
from cloud_core.rest_client import RestClient, RestError

if TYPE_CHECKING:
    from cloud_core.simulator.network import Target
    from cloud_core.simulator.plan import Plan
    from cloud_core.simulator.tally import Tally
    from cloud_core.simulator.verdict import Run

T = TypeVar("T")
KEY, SECRET = "CLOUD_CORE_PROVISION_KEY", "CLOUD_CORE_PROVISION_SECRET"
MADE_PROFILE = "simulated fleet"
PROFILES = ["power-on-storm", "steady", "reconnect-storm", "factory-line"]
MAX_PROCESSES = 64
_PORTS = {False: {"http": 8080, "mqtt": 1883, "coap": 5683}, True: {"http": 8443, "mqtt": 8883, "coap": 5683}}
_SCHEMES = {
    False: {"http": "http", "mqtt": "mqtt", "coap": "coap"},
    True: {"http": "https", "mqtt": "mqtts", "coap": "coap"},
}
_ALLOW = "ALLOW_CREATE_NEW_DEVICES"


def _made_by(parse: Callable[[str], T]) -> Callable[..., Any]:
    """A click callback that takes a text apart; the fault is a sentence of the option."""

    def made(_context: click.Context, _option: click.Parameter, value: Any) -> Any:
        try:
            return [parse(one) for one in value] if isinstance(value, tuple) else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return made


def _mix(text: str) -> Any:
    from cloud_core.simulator.plan import Transport, parse_weights

    return parse_weights(text, Transport)


def _kinds(text: str) -> Any:
    from cloud_core.simulator.plan import Kind, parse_weights

    return parse_weights(text, Kind)


def _fault(text: str) -> Any:
    from cloud_core.simulator.plan import parse_fault

    return parse_fault(text)


_seconds = click.FloatRange(0, 86_400)


@click.command(epilog=POINTER)
@click.option("--devices", type=click.IntRange(1, 1_000_000), default=1_000, show_default=True, help="How many.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Decides every device; see above.")
@click.option("--profile", type=click.Choice(PROFILES), default=PROFILES[0], show_default=True, help="See above.")
@click.option(
    "--mix", default="mqtt=60,mqtt5=10,http=15,coap=15", show_default=True, callback=_made_by(_mix),
    help="Shares of the transports.",
)  # fmt: skip
@click.option(
    "--credentials", "kinds", default="token=80,own-token=10,basic=10", show_default=True, callback=_made_by(_kinds),
    help="Shares of what devices ask for; also x509 (a signing request; --tls). What a transport cannot use: token.",
)  # fmt: skip
@click.option(
    "--fault", "faults", multiple=True, callback=_made_by(_fault), metavar="NAME=SHARE",
    help="lost-answer, duplicate, slow, wrong-secret or reconnect, such as slow=5%. Several may be given.",
)  # fmt: skip
@click.option("--ramp", type=_seconds, default=10.0, show_default=True, help="Seconds over which they are switched on.")
@click.option("--duration", type=_seconds, default=900.0, show_default=True, help="Seconds after which the run ends.")
@click.option("--telemetry-every", type=click.FloatRange(0.1, 86_400), default=30.0, show_default=True,
              help="Seconds between two reports of a device.")  # fmt: skip
@click.option("--give-up", type=_seconds, default=600.0, show_default=True,
              help="Seconds after which a device that is not in counts as failed.")  # fmt: skip
@click.option("--prefix", default="sim", show_default=True, help="What devices' names begin with.")
@click.option("--host", help="Where devices reach the core.  [default: the host of --url]")
@click.option("--http-port", type=click.IntRange(1, 65_535), help="[default: as the core says, or that of --url]")
@click.option("--mqtt-port", type=click.IntRange(1, 65_535), help="[default: as the core says, or 1883; TLS 8883]")
@click.option("--coap-port", type=click.IntRange(1, 65_535), help="[default: as the core says, or 5683]")
@click.option("--tls", "is_tls", is_flag=True, help="MQTT and HTTP over TLS; CoAP stays as it is.")
@click.option("--ca", "device_ca", type=click.Path(exists=True, dir_okay=False), help="--tls: CA of the certificate.")
@click.option("--provision-key", envvar=KEY, show_envvar=True, help="Of the device profile that admits them.")
@click.option("--provision-secret-file", type=click.Path(exists=True, dir_okay=False),
              help=f"File with its secret.  [else env var: {SECRET}]")  # fmt: skip
@click.option("--create-profile", "profile_name", is_flag=False, flag_value=MADE_PROFILE, metavar="[NAME]",
              help="Make a profile for them over REST, with replay, or use the one of that name.")  # fmt: skip
@click.option(
    "--state", "state_file", type=click.Path(dir_okay=False), help="Keep credentials here (0600), and use them."
)
@click.option("--processes", type=click.IntRange(1, MAX_PROCESSES), help="[default: half of the processors]")
@click.option("--connections", type=click.IntRange(1), help="TCP connections at a time.  [default: by descriptors]")
@click.option(
    "--report", "report_file", type=click.Path(dir_okay=False, writable=True), help="Write it: .html, .md or .json."
)
@click.option("--quiet", is_flag=True, help="No live view, and only the result.")
@click.option("--dry-run", is_flag=True, help="Show the plan and its digest; load nothing, change nothing.")
@click.option(
    "--yes-load-that-host", is_flag=True, help="Also a host that is not on this machine or a private network."
)
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@at_core
def simulate(
    url: str | None, profile_name: str | None, provision_key: str | None, provision_secret_file: str | None,
    state_file: str | None, report_file: str | None, quiet: bool, dry_run: bool, as_json: bool, processes: int | None,
    connections: int | None, **options: Any,
) -> None:  # fmt: skip
    """Load a core with a fleet of simulated devices, and report how it went.

    Devices are switched on, provision themselves, log in with what they got, report, and answer commands, over MQTT
    3.1.1 and 5, HTTP and CoAP. Good ones wait as long as they are told, back off, and ask again with the same request
    after a lost answer; in the end all of them must be in. The exit code is 1 if one is not, and it is named.

    \b
    power-on-storm    all within --ramp; over when everybody has reported
    steady            the same, then reports until --duration is over
    reconnect-storm   when all are in, every connection breaks at once; over when all are back
    factory-line      one after the other over --ramp; each reports once and is switched off

    The seed and the options decide each device's name, transport, credentials, faults and start, in any number of
    processes: the digest of the plan tells whether two runs were the same. Devices with a wrong secret must be refused
    and are no failures. Ctrl-C ends a run early, with its report.

    \b
    Examples:
      cloud-core simulate --data-dir data --create-profile --devices 1000
      cloud-core simulate --data-dir data --create-profile --devices 100000 --ramp 30 --report storm.html
      cloud-core simulate --data-dir data --create-profile --profile reconnect-storm --state fleet.state
      cloud-core simulate --host 10.0.0.7 --provision-key KEY --provision-secret-file FILE --tls --ca ca.pem \\
          --fault lost-answer=2% --fault duplicate=2% --fault slow=1% --fault wrong-secret=1% --fault reconnect=5%
    """
    plan = _plan(options)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return
    client = connect(url) if profile_name else None
    target = _target(options, client.url if client else url)
    key, secret = _key_and_secret(client, profile_name, provision_key, provision_secret_file)
    _prepare(state_file, report_file)
    outcome = _run(
        plan, target, key, secret, processes=_processes(processes, plan), connections=connections,
        state_file=state_file or "", quiet=quiet, as_json=as_json,
    )  # fmt: skip
    _report(outcome, report_file, quiet=quiet, as_json=as_json)
    sys.exit(0 if outcome.is_good else EXIT_WRONG)


def _plan(options: dict[str, Any]) -> Plan:
    from cloud_core.simulator.plan import Plan, Profile

    return Plan(
        devices=options["devices"], seed=options["seed"], profile=Profile(options["profile"]), mix=options["mix"],
        kinds=options["kinds"], faults=dict(options["faults"]), ramp_s=options["ramp"], duration_s=options["duration"],
        telemetry_every_s=options["telemetry_every"], give_up_s=options["give_up"], prefix=options["prefix"],
        is_tls=options["is_tls"],
    )  # fmt: skip


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    from cloud_core.simulator.plan import overview

    found = overview(plan)
    if as_json:
        show_json(found)
        return
    for title, value in found.items():
        text = ", ".join(f"{name} {count:,}" for name, count in value.items()) if isinstance(value, dict) else value
        click.echo(f"{title:<12}{text}")


def _target(options: dict[str, Any], url: str | None) -> Target:
    from cloud_core.simulator.network import Target
    from cloud_core.simulator.target import TargetRefused, address_of

    is_tls = options["is_tls"]
    if options["device_ca"] and not is_tls:
        raise click.UsageError("--ca goes with --tls.")
    known, parts = local_ports(), urlsplit(url or os.environ.get("CLOUD_CORE_URL") or "")
    host = options["host"] or parts.hostname or "127.0.0.1"
    ports: dict[str, int] = {}
    for name, scheme in _SCHEMES[is_tls].items():
        by_url = parts.port if name == "http" and parts.scheme == scheme else None
        ports[name] = options[f"{name}_port"] or known.get(scheme) or by_url or _PORTS[is_tls][name]
    try:
        address = address_of(host, is_allowed=options["yes_load_that_host"])
    except TargetRefused as error:
        fail(str(error), EXIT_REFUSED)
    return Target(
        address=address, server_name=host, http_port=ports["http"], mqtt_port=ports["mqtt"], coap_port=ports["coap"],
        is_tls=is_tls, ca_file=options["device_ca"] or ca_file(),
    )  # fmt: skip


def _key_and_secret(
    client: RestClient | None, profile_name: str | None, key: str | None, secret_file: str | None
) -> tuple[str, str]:
    if client is not None and profile_name is not None:
        if key or secret_file:
            raise click.UsageError("--create-profile brings key and secret; leave the others out.")
        return call(lambda: _of_profile(client, profile_name))  # type: ignore[no-any-return]
    secret = os.environ.get(SECRET, "")
    if secret_file:
        try:
            secret = Path(secret_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            fail(f"{secret_file} cannot be read: {error}", EXIT_FILE)
    if not key or not secret:
        raise click.UsageError(
            "Devices need a key and a secret: --create-profile, or --provision-key with --provision-secret-file"
            f" (or {KEY} and {SECRET} in the environment)."
        )
    return key, secret


def _of_profile(client: RestClient, name: str) -> tuple[str, str]:
    """Key and secret of the profile, which is made where there is none. Raises: RestError."""
    page = client.get("/api/deviceProfiles", pageSize=1000, page=0, textSearch=name)
    found = next((one for one in page["data"] if one["name"] == name), None)
    if found is None:
        configuration = {"type": _ALLOW, "reprovisioning": "REPLAY_UNTIL_CONFIRMED"}
        body = {
            "name": name, "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": _ALLOW,
            "description": "Made by cloud-core simulate.",
            "profileData": {
                "configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"},
                "provisionConfiguration": configuration,
            },
        }  # fmt: skip
        found = client.post("/api/deviceProfile", body)
    secret = found["profileData"]["provisionConfiguration"].get("provisionDeviceSecret")
    if found["provisionType"] != _ALLOW or not secret:
        raise RestError(f"The profile '{name}' does not admit new devices ({_ALLOW}); name another one.", 409)
    return found["provisionDeviceKey"], secret


def _prepare(state_file: str | None, report_file: str | None) -> None:
    """Files that cannot be used are found before the run, not after it."""
    from cloud_core.simulator.keeping import KeepingError, load, prepare

    if report_file and Path(report_file).suffix not in _WRITERS:
        raise click.UsageError(f"--report: the file's name must end in {', '.join(_WRITERS)}.")
    if report_file and not Path(report_file).parent.is_dir():
        fail(f"{Path(report_file).parent} is no folder; the report could not be written.", EXIT_FILE)
    if state_file:
        try:
            prepare(Path(state_file))
            load(Path(state_file))
        except KeepingError as error:
            fail(str(error), EXIT_FILE)


def _processes(given: int | None, plan: Plan) -> int:
    return min(plan.devices, given or max(1, (os.cpu_count() or 2) // 2))


def _run(
    plan: Plan, target: Target, key: str, secret: str, *, processes: int, connections: int | None, state_file: str,
    quiet: bool, as_json: bool,
) -> Run:  # fmt: skip
    from cloud_core.simulator.conductor import Conductor, RunFailed, most_connections
    from cloud_core.simulator.screen import Screen
    from cloud_core.simulator.verdict import Run

    here = most_connections()
    columns = shutil.get_terminal_size().columns
    screen = Screen(plan, sys.stderr, is_live=sys.stderr.isatty(), columns=columns)

    def shown(tally: Tally) -> None:
        if not quiet:
            screen.show(tally)

    conductor = Conductor(
        plan, target, key=key, secret=secret, processes=processes, connections=connections or here,
        state_file=state_file, shown=shown,
    )  # fmt: skip
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        outcome = asyncio.run(conductor.run())
    except RunFailed as error:
        fail(f"The simulator could not run: {error}", EXIT_START)
    where = f"{target.server_name} (http {target.http_port}, mqtt {target.mqtt_port}, coap {target.coap_port})"
    return Run(plan, outcome.tally, where, processes, outcome.is_interrupted, started_at)


def _report(run: Run, report_file: str | None, *, quiet: bool, as_json: bool) -> None:
    from cloud_core.simulator import report

    if report_file:
        try:
            Path(report_file).write_text(_WRITERS[Path(report_file).suffix](run), encoding="utf-8")
        except OSError as error:
            fail(f"{report_file} cannot be written: {error.strerror}.", EXIT_FILE)
    if as_json:
        show_json(run.summary())
    elif quiet:
        click.echo(run.sentence())
    else:
        click.echo(report.terminal(run))
    if not run.is_good and as_json:
        click.echo(f"cloud-core: {run.sentence()}", err=True)


def _html(run: Run) -> str:
    from cloud_core.simulator.report import page

    return page(run)


def _markdown(run: Run) -> str:
    from cloud_core.simulator.report import markdown

    return markdown(run)


def _json(run: Run) -> str:
    import json

    return json.dumps(run.summary(), indent=2) + "\n"


_WRITERS: dict[str, Callable[[Run], str]] = {".html": _html, ".md": _markdown, ".json": _json}
