"""`config check` and `config show`: what the configuration comes to, before anything starts."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import click

from cloud_core.config import ENVIRONMENT_PREFIX, SECTIONS, Config, ConfigError
from cloud_core.console.exits import EXIT_CONFIG, POINTER
from cloud_core.console.options import configuration, effective, given, server_options
from cloud_core.console.output import HIDDEN, fitted, show_json, terminal_columns, text_of

DEFAULT = "default"
_SECRETS = {("database", "key"), ("admin", "password"), ("admin", "system_password"), ("metrics", "token")}

_LOGIN = re.compile(r"(://)[^@,]*@")  # user and password, or a token, of each address
_KEY = re.compile(r"[0-9a-fA-F]{64}")


@click.group(epilog=POINTER)
def config() -> None:
    """The configuration: is it right, and what does it come to?

    It is put together of defaults, the file, the environment (CLOUD_CORE__SECTION__KEY) and options; later ones win.
    """


@config.command("check")
@server_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def config_check(as_json: bool, **options: Any) -> None:
    """Say every problem of the configuration at once, each with what is meant. Starts and changes nothing.

    \b
    Example:
      $ cloud-core config check --config cloud-core.toml
      cloud-core: Unknown key 'prot' in section [http]; did you mean 'port'?
    """
    problems: list[str] = []
    try:
        problems = clashes(effective(options))
    except ConfigError as error:
        problems = str(error).splitlines()
    if as_json:
        show_json({"ok": not problems, "problems": problems})
    else:
        for problem in problems:
            click.echo(f"cloud-core: {problem}", err=True)
        if not problems:
            click.echo(f"The configuration is right{_of(options)}.")
    if problems:
        sys.exit(EXIT_CONFIG)


def _of(options: dict[str, Any]) -> str:
    return f": {options['config_path']}" if options["config_path"] else ", all of it defaults, environment and options"


def clashes(config: Config) -> list[str]:
    """What each value allows and all of them together do not."""
    used: dict[tuple[str, int], str] = {}
    problems = []
    for name, kind, port in ports_of(config):
        other = used.setdefault((kind, port), name) if port else name
        if other != name:
            problems.append(f"{name}: port {port} is that of {other}, too; choose another.")
    for key in ("certificate", "private_key"):
        file = getattr(config.tls, key)
        if file and not Path(file).is_file():
            problems.append(f"[tls] {key}: there is no file {file}.")
    if config.database.key and not _KEY.fullmatch(config.database.key):
        problems.append("[database] key: must hold 64 hexadecimal digits.")
    if config.database.key_file and not Path(config.database.key_file).parent.is_dir():
        problems.append(f"[database] key_file: there is no folder {Path(config.database.key_file).parent}.")
    return problems


def ports_of(config: Config) -> list[tuple[str, str, int]]:
    """(name, "tcp" or "udp", port) of everything that will listen."""
    ports = [
        ("[http] port", "tcp", config.http.port),
        ("[mqtt] port", "tcp", config.mqtt.port),
        ("[coap] port", "udp", config.coap.port),
    ]
    if config.tls.certificate or config.tls.development:
        ports += [
            ("[http] tls_port", "tcp", config.http.tls_port),
            ("[mqtt] tls_port", "tcp", config.mqtt.tls_port),
            ("[coap] dtls_port", "udp", config.coap.dtls_port),
        ]
    return ports


@config.command("show")
@server_options
@click.option("--changed", is_flag=True, help="Only what is not the default.")
@click.option("--reveal", is_flag=True, help="Show passwords and keys.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def config_show(changed: bool, reveal: bool, as_json: bool, **options: Any) -> None:
    """Show every effective value and where it comes from; secrets are hidden."""
    found = configuration(options)
    rows = _rows(found, _sources(options), reveal=reveal)
    rows = [one for one in rows if not changed or one["source"] != DEFAULT]
    if as_json:
        show_json(rows)
        return
    section = None
    lines = fitted([[one["key"], text_of(one["value"]) or '""', one["source"]] for one in rows], terminal_columns())
    for one, line in zip(rows, lines, strict=True):
        if one["section"] != section:
            section = one["section"]
            click.echo(f"[{section}]" if section else "")
        click.echo(f"  {line}")


def _rows(config: Config, sources: dict[tuple[str, str], str], *, reveal: bool) -> list[dict[str, Any]]:
    rows = [
        {"section": "", "key": "data_dir", "value": config.data_dir, "source": sources.get(("", "data_dir"), DEFAULT)}
    ]
    for section in SECTIONS:
        values = getattr(config, section)
        for key in values.__struct_fields__:
            value = getattr(values, key)
            shown = value if reveal else _public(section, key, value)
            rows.append(
                {"section": section, "key": key, "value": shown, "source": sources.get((section, key), DEFAULT)}
            )
    return rows


def _public(section: str, key: str, value: Any) -> Any:
    if (section, key) in _SECRETS:
        return HIDDEN if value else value
    if (section, key) == ("database", "url") and value:
        return url_without_password(value)
    if (section, key) == ("cluster", "fabric"):
        return _LOGIN.sub(rf"\1{HIDDEN}@", value)
    return value


def url_without_password(url: str) -> str:
    from sqlalchemy.exc import ArgumentError  # takes long to import, and most commands do without

    from cloud_core.storage import addresses

    try:
        parsed = addresses.parsed(url)
    except ArgumentError:
        return HIDDEN  # whatever it is, it may hold one
    query = {key: HIDDEN if "password" in key else value for key, value in parsed.query.items()}
    return parsed.set(query=query).render_as_string(hide_password=True)


def _sources(options: dict[str, Any]) -> dict[tuple[str, str], str]:
    """{(section, key): where its value was found}; of a configuration that is right."""
    found: dict[tuple[str, str], str] = {}
    path = options["config_path"]
    if path is not None:
        for section, values in tomllib.loads(path.read_text(encoding="utf-8")).items():
            keys = values if isinstance(values, dict) else None
            places = [("", section)] if keys is None else [(section, key) for key in keys]
            found |= dict.fromkeys(places, str(path))
    for variable in os.environ:
        if variable.startswith(ENVIRONMENT_PREFIX):
            section, _, key = variable[len(ENVIRONMENT_PREFIX) :].lower().partition("__")
            found[section, key] = variable
    for section, values in given(options).items():
        found |= {(section, key): "command line" for key, value in values.items() if value is not None}
    if options["data_dir"] is not None:
        found["", "data_dir"] = "command line"
    return found
