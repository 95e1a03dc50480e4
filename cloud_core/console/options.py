"""Options of the commands that need no running core: where the configuration is, and what it comes to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cloud_core.config import Config, ConfigError, load
from cloud_core.console.calls import fail
from cloud_core.console.exits import EXIT_CONFIG

_OPTIONS = (
    click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML configuration file."),
    click.option("--data-dir", help="Where database, keys and first password lie.  [default: data]"),
    click.option("--http-port", type=int, help="HTTP: device API and REST; 0 picks a free one.  [default: 8080]"),
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
        "--workers", type=int, help="Processes that share the ports; more than 1 needs PostgreSQL.  [default: 1]"
    ),
    click.option("--fabric", help="nats://user:password@host:4222, which joins the nodes of a cluster."),
    click.option("--log-format", type=click.Choice(["text", "json"]), help="Log lines on stderr.  [default: text]"),
)
NAMES = (
    "config_path", "data_dir", "http_port", "mqtt_port", "coap_port", "https_port", "mqtts_port", "coaps_port",
    "dev_tls", "bind", "database_url", "workers", "fabric", "log_format",
)  # fmt: skip


def server_options(command: Any) -> Any:  # Any: click decorators
    """The options of `serve`, which other commands take to speak of the same core."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the command line says, as {section: {key: value or None}}."""
    return {
        "http": {"port": options["http_port"], "tls_port": options["https_port"], "bind": options["bind"]},
        "mqtt": {"port": options["mqtt_port"], "tls_port": options["mqtts_port"]},
        "coap": {"port": options["coap_port"], "dtls_port": options["coaps_port"]},
        "tls": {"development": options["dev_tls"]},
        "database": {"url": options["database_url"]},
        "cluster": {"workers": options["workers"], "fabric": options["fabric"]},
        "log": {"format": options["log_format"]},
    }


def effective(options: dict[str, Any]) -> Config:
    """Raises: ConfigError naming every problem."""
    return load(options["config_path"], os.environ, given(options), data_dir=options["data_dir"])


def configuration(options: dict[str, Any]) -> Config:
    """As `effective`; problems end the command."""
    try:
        return effective(options)
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
