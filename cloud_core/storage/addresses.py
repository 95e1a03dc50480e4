"""Addresses of databases, as SQLAlchemy has them."""

from __future__ import annotations

import re

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

_HOST = re.compile(r"\[?(?P<name>[^\[\]/?,]*?)\]?(:(?P<port>[0-9]+))?")

# How libpq says them; an address may say otherwise.
DEFAULTS = {
    "application_name": "muster",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "target_session_attrs": "read-write",
}


def parsed(url: str) -> URL:
    """`url`, in which several hosts may stand, separated by commas as libpq has it: `…@one:5432,two:5433/name`.

    Raises: sqlalchemy.exc.ArgumentError.
    """
    scheme, _, rest = url.partition("://")
    who, at, behind = rest.partition("@")  # a password may hold everything but that
    if not at:
        who, behind = "", rest
    hosts = re.split("[/?]", behind, maxsplit=1)[0]
    if "," not in hosts or scheme.startswith("sqlite"):
        return make_url(url)
    one = make_url(f"{scheme}://{who}{at}{behind[len(hosts) :]}")
    places = [_HOST.fullmatch(host) for host in hosts.split(",")]
    if not all(places):
        raise ArgumentError("one of the hosts is none")
    names, ports = zip(*((place["name"], place["port"] or "5432") for place in places if place), strict=True)
    return one.update_query_dict({"host": ",".join(names), "port": ",".join(ports)})


def for_serving(url: str) -> URL:
    """The server of PostgreSQL that takes writes, and an end to waiting for one that is gone."""
    made = parsed(url)
    return made.update_query_dict({name: value for name, value in DEFAULTS.items() if name not in made.query})
