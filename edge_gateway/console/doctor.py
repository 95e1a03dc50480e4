"""`edge-gateway doctor`: looks at everything that has to work, one line each, with the fix."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from edge_gateway.config import Config, ConfigError, load, shown
from edge_gateway.console.agents import is_at_work
from edge_gateway.console.examinations import clock, data_directory, local_findings
from edge_gateway.console.login import has_login, log_in
from edge_gateway.console.loop import installed_reactor
from edge_gateway.console.loop import run as run_loop
from edge_gateway.console.options import EXIT_FAULT, Place, as_json, environment, in_place, known_kinds
from edge_gateway.console.output import plural, printable, show_json
from edge_gateway.console.reachability import connector_findings, core_findings, local_page
from edge_gateway.logs import start_logging
from edge_gateway.service import spool_path
from edge_gateway.storage.credentials import FileUnusable
from edge_gateway.storage.keyring import FileKeyring
from shared.findings import Finding, Verdict, good, skipped, wrong

_SIGNS = {Verdict.GOOD: "✔", Verdict.HINT: "!", Verdict.WRONG: "✘", Verdict.SKIPPED: "-"}


@click.command()
@in_place
@click.option("--offline", is_flag=True, help="Only this machine: no look at the core and the connectors' addresses.")
@as_json
def doctor(place: Place, offline: bool, is_json: bool) -> None:
    """Look at everything that has to work, one line each, with the fix. Changes nothing.

    \b
    Example:
      $ edge-gateway doctor
      ✔ configuration   gateway.toml, 2 connectors
      ✔ data directory  gateway-data can be written
      ✔ DNS             core.example.com is 192.0.2.10
      ✘ TCP             core.example.com:8883 cannot be reached
                        → no answer in 4 s: check the address, cables, and firewalls between
      ✘ modbus plant    /dev/ttyUSB0 may not be used
                        → usermod -aG dialout USER, for the user of the service; then restart it

    Exit codes: 0 all is well, 1 something is wrong.
    """
    installed_reactor()
    start_logging("text", "error")
    findings: list[Finding] = []
    for finding in _findings(place, is_offline=offline):
        findings.append(finding)
        if not is_json:
            _show(finding)
    wrongs = sum(finding.verdict is Verdict.WRONG for finding in findings)
    if is_json:
        rows = [{**finding._asdict(), "verdict": finding.verdict.value} for finding in findings]
        show_json({"ok": not wrongs, "findings": rows})
    else:
        click.echo(f"\n{plural(wrongs, 'thing')} to mend." if wrongs else "\nAll is well.")
    sys.exit(EXIT_FAULT if wrongs else 0)


def _show(finding: Finding) -> None:
    click.echo(f"{_SIGNS[finding.verdict]} {finding.topic:<16} {printable(finding.text)}")
    if finding.fix:
        click.echo(f"{'':<18} → {printable(finding.fix)}")


def _findings(place: Place, *, is_offline: bool) -> Iterator[Finding]:
    if not place.has_config:
        yield wrong("configuration", f"there is none at {place.config}", "make one with `edge-gateway setup`")
        yield data_directory(place.data_dir)
        yield clock()
        return
    try:
        config = load(place.config, environment(), kinds=known_kinds())
    except ConfigError as error:
        for problem in error.problems:
            yield wrong("configuration", shown(problem, place.config.name), "see `edge-gateway check`")
        yield data_directory(place.data_dir)
        yield clock()
        return
    yield from local_findings(config, place)
    yield local_page(config, is_agent_at_work=is_at_work(spool_path(config, place.data_dir)))
    if is_offline:
        yield skipped("network", "not looked at (--offline)")
        return
    yield from _network(config, place)


def _network(config: Config, place: Place) -> Iterator[Finding]:
    at_work = is_at_work(spool_path(config, place.data_dir))
    found = list(core_findings(config))
    yield from found
    if any(finding.verdict is Verdict.WRONG for finding in found):
        yield skipped("login", "not tried: the core cannot be reached")
    elif at_work:
        yield skipped("login", "not tried: the running agent has it; see `edge-gateway status`")
    else:
        yield _login(config, place)
    for table in config.connectors:
        yield from connector_findings(table, is_agent_at_work=at_work)


def _login(config: Config, place: Place) -> Finding:
    """Logs in with what is there; never provisions."""
    keyring = FileKeyring(place.data_dir, name="gateway")
    try:
        if config.core.provision is not None and not has_login(config.core, keyring):
            return good("login", "the gateway provisions itself at its first start")
    except FileUnusable as error:
        return wrong("login", str(error))
    core = msgspec.structs.replace(config.core, provision=None)
    reason: Any = run_loop(lambda reactor: log_in(core, keyring, "gateway", reactor))
    if reason is None:
        return skipped("login", "ended before the core answered")
    if reason:
        fix = "check at the core that this device exists; setup --force, or factory-reset, registers it anew"
        return wrong("login", reason, fix)
    return good("login", f"{config.core.url} lets this gateway in")
