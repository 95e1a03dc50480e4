"""`edge-gateway setup`: from a new machine to a gateway that the core knows, with a configuration to go on from."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from edge_gateway.config import Config, ConfigError, load
from edge_gateway.config.checks import is_loopback
from edge_gateway.console.discovery import Found, local_network, scan, serial_ports
from edge_gateway.console.examples import EXAMPLES, example
from edge_gateway.console.login import log_in
from edge_gateway.console.loop import installed_reactor
from edge_gateway.console.loop import run as run_loop
from edge_gateway.console.network import Unreachable, certificate_days, connect, core_address
from edge_gateway.console.options import EXIT_CONFIG, EXIT_REFUSED, Place, environment, fail, in_place, known_kinds
from edge_gateway.console.output import age
from edge_gateway.console.toml_text import section
from edge_gateway.logs import start_logging
from edge_gateway.mapping.problems import did_you_mean
from edge_gateway.service import gateway_name
from edge_gateway.settings import Core
from edge_gateway.storage.files import write_private
from edge_gateway.storage.keyring import FileKeyring


@dataclass(slots=True)
class Answers:
    """What was asked, or given as flags."""

    core: str = ""
    ca_file: str = ""
    insecure: bool = False
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    name: str = "gw-{serial}"
    credentials: str = "ACCESS_TOKEN"


@click.command()
@in_place
@click.option(
    "--core", default="", help="Address of the core: core.example.com, mqtts://…:8883, mqtt://127.0.0.1:1883."
)
@click.option("--ca-file", default="", help="Authority that signed the core's certificate (PEM), if it is your own.")
@click.option("--insecure", is_flag=True, help="Allow mqtt:// to another machine, and TLS without verification.")
@click.option("--key", default="", envvar="EDGE_GATEWAY_PROVISION_KEY", help="Provision key of the device profile.")
@click.option(
    "--secret", default="", envvar="EDGE_GATEWAY_PROVISION_SECRET",
    help="Its secret; better in the environment (EDGE_GATEWAY_PROVISION_SECRET), where `ps` does not show it.",
)  # fmt: skip
@click.option("--token", default="", envvar="EDGE_GATEWAY_TOKEN", help="Access token, instead of key and secret.")
@click.option("--name", default="gw-{serial}", show_default=True, help="Name of this gateway at the core.")
@click.option(
    "--credentials", default="ACCESS_TOKEN", show_default=True, help="What the gateway shall log in with.",
    type=click.Choice(["ACCESS_TOKEN", "MQTT_BASIC", "X509_CERTIFICATE"]),
)  # fmt: skip
@click.option("--kind", "kinds", multiple=True, help="Write an example table of this kind; may be repeated.")
@click.option("--scan/--no-scan", "is_scan", default=None, help="Look for Modbus and OPC UA on the local network.")
@click.option("--network", help="Network to look at, such as 10.0.0.0/24.  [default: the local one]")
@click.option("--offline", is_flag=True, help="Write the configuration without testing it at the core.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the flags and the defaults.")
@click.option("--force", is_flag=True, help="Replace a configuration that is there.")
def setup(
    place: Place, kinds: tuple[str, ...], is_scan: bool | None, network: str | None, offline: bool, yes: bool,
    force: bool, **given: str | bool,
) -> None:  # fmt: skip
    """Set up a new gateway: asks, tests the core, registers there, looks around, writes the configuration (0600).

    \b
    Example, with questions:
      $ edge-gateway setup
      Core address: core.example.com
        ✔ core.example.com:8883 answers in 21 ms, its certificate is trusted
      Provision key (empty: I have an access token): fleet-key
      Provision secret:
        ✔ registered as gw-4f2a91c03d7e
      Look for Modbus TCP and OPC UA on 10.0.0.0/24? [y/N]: y
        found Modbus TCP at 10.0.0.20:502
    \b
    Example, for a script:
      $ edge-gateway setup --yes --core core.example.com --key fleet-key --kind mqtt --kind modbus

    Exit codes: 0 done, 2 an answer cannot be used, 4 the core refuses, or a configuration is there already.
    """
    installed_reactor()
    if place.has_config and not force:
        fail(f"{place.config} is there already; --force replaces it, --config names another", EXIT_REFUSED)
    answers = Answers(**given)  # type: ignore[arg-type]  # the flags are its fields
    kinds = _known(kinds)
    start_logging("text", "error")
    _ask_core(answers, yes=yes)
    if not offline:
        _test_core(answers)
    _ask_login(answers, yes=yes)
    core = _core(answers)
    if not offline:
        _register(core, answers, place)
    found = _look_around(core, is_scan, network, yes=yes)
    if not kinds and not yes:
        kinds = _ask_kinds(found)
    _write(place, answers, kinds, found)
    click.echo(
        "Next: change the examples in it, then `edge-gateway check`, `edge-gateway try NAME`, `edge-gateway run`."
    )


def _known(kinds: tuple[str, ...]) -> tuple[str, ...]:
    choices = [kind for kind in EXAMPLES if kind in known_kinds()]
    for kind in kinds:
        if kind not in choices:
            fail(f"there is no example of '{kind}'{did_you_mean(kind, choices)}", EXIT_CONFIG)
    return tuple(dict.fromkeys(kinds))


# --- the core -------------------------------------------------------------------------------------


def _ask_core(answers: Answers, *, yes: bool) -> None:
    if not answers.core:
        if yes:
            fail("--core is needed with --yes, such as --core core.example.com", EXIT_CONFIG)
        answers.core = click.prompt("Core address")
    try:
        answers.core = core_url(answers.core)
    except ValueError as error:
        fail(str(error), EXIT_CONFIG)
    parts = urlsplit(answers.core)
    if parts.scheme == "mqtt" and not answers.insecure and not is_loopback(parts.hostname or ""):
        text = "mqtt:// sends credentials and data unprotected to another machine; use mqtts://, or add --insecure"
        fail(text, EXIT_CONFIG)


def core_url(text: str) -> str:
    """The URL that people mean: TLS on another machine, none on this one. Raises: ValueError."""
    text = text.strip().rstrip("/")
    if "://" not in text:
        host = urlsplit(f"//{text}").hostname or ""
        text = f"{'mqtt' if is_loopback(host) else 'mqtts'}://{text}"
    parts = urlsplit(text)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.username is not None:
        raise ValueError(f"'{text}' is no address of a core; write core.example.com, or mqtts://core.example.com:8883")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or (8883 if parts.scheme == 'mqtts' else 1883)}"


def _core(answers: Answers) -> Core:
    return msgspec.convert(_core_table(answers), Core)


def _core_table(answers: Answers) -> dict[str, object]:
    values: dict[str, object] = {"url": answers.core}
    if answers.ca_file:
        values["ca_file"] = str(Path(answers.ca_file).absolute())
    if answers.insecure:
        values["insecure"] = True
    if answers.token:
        values["token"] = answers.token
    elif answers.key:
        provision = {"key": answers.key, "secret": answers.secret, "name": answers.name}
        if answers.credentials != "ACCESS_TOKEN":
            provision["credentials"] = answers.credentials
        values["provision"] = provision
    return values


def _literal(value: Any) -> Any:
    """As the configuration takes it literally: `${NAME}` in what was typed is no reference."""
    if isinstance(value, dict):
        return {name: _literal(member) for name, member in value.items()}
    return value.replace("${", "$${") if isinstance(value, str) else value


def _test_core(answers: Answers) -> None:
    core = msgspec.structs.replace(_core(answers), token="", provision=None)
    address = core_address(core)
    try:
        took = age(connect(address))
        days = certificate_days(core, address) if address.is_tls else None
    except Unreachable as error:
        fail(f"{error}\n(--offline writes the configuration without a test)", EXIT_REFUSED)
    tls = "" if not address.is_tls else ", not verified" if days is None else ", its certificate is trusted"
    click.echo(f"  ✔ {address} answers in {took}{tls}")


def _ask_login(answers: Answers, *, yes: bool) -> None:
    if not answers.token and not answers.key and not yes:
        answers.key = click.prompt("Provision key (empty: I have an access token)", default="", show_default=False)
        if not answers.key:
            answers.token = click.prompt("Access token", hide_input=True)
    if not answers.token and not answers.key:
        fail("give --key and --secret of the device profile, or --token of this gateway's device", EXIT_CONFIG)
    if answers.key and not answers.token and not answers.secret:
        if yes:
            fail("--secret is needed beside --key; put it into EDGE_GATEWAY_PROVISION_SECRET", EXIT_CONFIG)
        answers.secret = click.prompt("Provision secret", hide_input=True)


def _register(core: Core, answers: Answers, place: Place) -> None:
    """What the core gives is kept in the data directory, so that the agent finds it there."""
    place.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = gateway_name(Config(core=core), place.data_dir)
    keyring = FileKeyring(place.data_dir, name=name)
    if answers.key and keyring.credentials() is not None:
        click.echo(f"  ! {place.data_dir} has credentials already; they are used (factory-reset removes them)")
    reason = run_loop(lambda reactor: log_in(core, keyring, name, reactor))
    if reason is None:
        fail("ended before the core answered; nothing was written", EXIT_REFUSED)
    if reason:
        fail(f"{reason}\n(--offline writes the configuration without a test)", EXIT_REFUSED)
    click.echo("  ✔ the core lets this gateway in" if answers.token else f"  ✔ registered as {name}")


# --- the site -------------------------------------------------------------------------------------


def _look_around(core: Core, is_scan: bool | None, network: str | None, *, yes: bool) -> list[Found]:
    found = serial_ports()
    where = _network(core, network)
    if where is not None and is_scan is None and not yes:
        is_scan = click.confirm(f"Look for Modbus TCP and OPC UA on {where}?", default=False)
    if is_scan and where is None:
        click.echo("  ! the local network is not known; name it by --network")
    if is_scan and where is not None:
        try:
            found += scan(where)
        except ValueError as error:
            fail(str(error), EXIT_CONFIG)
    for one in found:
        click.echo(f"  found {one.text}")
    if is_scan and not found:
        click.echo(f"  nothing answers on {where}")
    return found


def _network(core: Core, network: str | None) -> ipaddress.IPv4Network | None:
    if network is None:
        return local_network(core_address(core).host)
    try:
        return ipaddress.IPv4Network(network, strict=False)
    except ValueError:
        fail(f"'{network}' is no network; write such as 10.0.0.0/24", EXIT_CONFIG)


def _ask_kinds(found: list[Found]) -> tuple[str, ...]:
    choices = [kind for kind in EXAMPLES if kind in known_kinds()]
    suggested = ",".join(dict.fromkeys(one.kind for one in found if one.kind in choices)) or "none"
    text = click.prompt(
        f"Connectors to begin with ({', '.join(choices)}; several by comma; or none)", default=suggested
    )
    return _known(tuple(word.strip() for word in text.split(",") if word.strip() and word.strip() != "none"))


# --- the file -------------------------------------------------------------------------------------


def configuration_text(answers: Answers, kinds: tuple[str, ...], found: list[Found]) -> str:
    """The whole file."""
    parts = [
        "# Configuration of the edge gateway. `edge-gateway check` validates it, `check --explain` shows what is in\n"
        "# effect. Secrets may be ${VARIABLE} or file:/path instead of standing here.\n",
        section("core", _literal(_core_table(answers))),
        '[store]                                     # readings wait here while the core is away\nmax_size = "2 GiB"\n'
        'max_age = "30 d"\n',
    ]
    for kind in kinds:
        places = [one.connect for one in found if one.kind == kind]
        parts += [_numbered(example(kind, address), number) for number, address in enumerate(places or [""], 1)]
    return "\n".join(parts)


def _numbered(text: str, number: int) -> str:
    """Names are unique: the second `plant` is `plant-2`."""
    if number == 1:
        return text
    lines = [
        f'{line[:-1]}-{number}"' if line.startswith("name = ") and line.endswith('"') else line
        for line in text.splitlines()
    ]
    return "\n".join(lines).replace('device = "', f'device = "{number}-') + "\n"


def _write(place: Place, answers: Answers, kinds: tuple[str, ...], found: list[Found]) -> None:
    old = place.config.read_bytes() if place.has_config else None
    try:
        if old is not None:
            write_private(place.config.with_name(place.config.name + ".before-setup"), old)
        write_private(place.config, configuration_text(answers, kinds, found).encode())
        load(place.config, environment(), kinds=known_kinds())
    except OSError as error:
        user = os.environ.get("USER", "this user")
        fail(f"{place.config} cannot be written ({error.strerror}): make its folder writable for {user}", EXIT_CONFIG)
    except ConfigError as error:
        fail(f"{place.config} is written, but has problems:\n{error}", EXIT_CONFIG)
    was = f"; the old one is {place.config.name}.before-setup" if old is not None else ""
    click.echo(f"  ✔ {place.config} is written (readable by you alone){was}")
