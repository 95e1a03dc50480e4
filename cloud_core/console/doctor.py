"""`cloud-core doctor`: looks at everything that has to work, one line each, with the fix."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from cloud_core.config import ConfigError
from cloud_core.console.exits import EXIT_WRONG
from cloud_core.console.options import effective, server_options
from cloud_core.console.output import show_json, text_of
from shared.findings import Finding, Verdict, good, wrong

_SIGNS = {Verdict.GOOD: "✔", Verdict.HINT: "!", Verdict.WRONG: "✘", Verdict.SKIPPED: "-"}
_TOPIC_WIDTH = 16


@click.command()
@server_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def doctor(as_json: bool, **options: Any) -> None:
    """Look at everything that has to work, one line each, with the fix. Changes nothing; the core may run or not.

    \b
    Example:
      $ cloud-core doctor --config cloud-core.toml
      ✔ data directory  data can be written
      ✔ master key      data/master.key has the right form
      ✘ tcp 1883        [mqtt] port is taken by mosquitto (process 812)
                        → stop that, or choose another port

    Exit codes: 0 all is well, 1 something is wrong.
    """
    findings = []
    for finding in _findings(options):
        findings.append(finding)
        if not as_json:
            click.echo(f"{_SIGNS[finding.verdict]} {finding.topic:<{_TOPIC_WIDTH}}{text_of(finding.text)}")
            if finding.fix:
                click.echo(f"  {'':<{_TOPIC_WIDTH}}→ {text_of(finding.fix)}")
    wrongs = sum(finding.verdict is Verdict.WRONG for finding in findings)
    if as_json:
        show_json({"ok": not wrongs, "findings": [one._asdict() for one in findings]})
    elif wrongs:
        click.echo(f"\n{wrongs} to mend.", err=True)
    if wrongs:
        sys.exit(EXIT_WRONG)


def _findings(options: dict[str, Any]) -> Iterator[Finding]:
    from cloud_core.diagnosis import examined

    try:
        config = effective(options)
    except ConfigError as error:
        for problem in str(error).splitlines():
            yield wrong("configuration", problem, "cloud-core config check says the same, without the rest")
        return
    yield good("configuration", str(options["config_path"] or "defaults, environment and options"))
    yield from examined(config)
