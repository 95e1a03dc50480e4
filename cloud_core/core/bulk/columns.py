"""What the columns of an import mean: by ThingsBoard's mapping, or by their names in the header.

Source: wire-contract.md section 6.5; ThingsBoard's BulkImportColumnType.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cloud_core.model import Scope
from shared.errors import InvalidArgument

NAME, TYPE, LABEL, DESCRIPTION, CUSTOMER, GATEWAY = "name", "type", "label", "description", "customer", "gateway"
TOKEN, X509 = "access_token", "x509"
MQTT_CLIENT_ID, MQTT_USERNAME, MQTT_PASSWORD = "mqtt_client_id", "mqtt_username", "mqtt_password"
ERROR = "error"  # the last column of an error file; of one that is loaded again it is passed over
PLAIN = (
    NAME, TYPE, LABEL, DESCRIPTION, CUSTOMER, GATEWAY, TOKEN, X509, MQTT_CLIENT_ID, MQTT_USERNAME, MQTT_PASSWORD,
)  # fmt: skip
SHARED, SERVER, TIME_SERIES = "shared", "server", "timeseries"
SCOPES = {SHARED: Scope.SHARED, SERVER: Scope.SERVER}
KEYED = (SHARED, SERVER, TIME_SERIES)  # as `server:KEY`
MAX_COLUMNS, MAX_KEY_CHARS = 200, 255

# Other names of a column, compared without case, spaces, dashes, dots and underscores.
_ALIASES = {
    **{one.replace("_", ""): one for one in (*PLAIN, ERROR)},
    "devicename": NAME, "devicetype": TYPE, "profile": TYPE, "deviceprofile": TYPE, "customertitle": CUSTOMER,
    "isgateway": GATEWAY, "token": TOKEN, "certificate": X509, "x509certificate": X509, "clientid": MQTT_CLIENT_ID,
    "username": MQTT_USERNAME, "mqttuser": MQTT_USERNAME, "password": MQTT_PASSWORD,
}  # fmt: skip
_PREFIXES = {
    SHARED: SHARED, "sharedattribute": SHARED, SERVER: SERVER, "serverattribute": SERVER,
    TIME_SERIES: TIME_SERIES, "telemetry": TIME_SERIES,
}  # fmt: skip
_OF_THINGSBOARD = {
    "NAME": NAME, "TYPE": TYPE, "LABEL": LABEL, "DESCRIPTION": DESCRIPTION, "IS_GATEWAY": GATEWAY,
    "SHARED_ATTRIBUTE": SHARED, "SERVER_ATTRIBUTE": SERVER, "TIMESERIES": TIME_SERIES, "ACCESS_TOKEN": TOKEN,
    "X509": X509, "MQTT_CLIENT_ID": MQTT_CLIENT_ID, "MQTT_USER_NAME": MQTT_USERNAME, "MQTT_PASSWORD": MQTT_PASSWORD,
}  # fmt: skip
_NOISE = re.compile(r"[\s_.\-]+")


@dataclass(frozen=True, slots=True)
class Columns:
    """The meaning of each column of a file, in its order."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) > MAX_COLUMNS:
            raise InvalidArgument(f"The file has more columns than are taken: at most {MAX_COLUMNS}")
        twice = next((one for at, one in enumerate(self.names) if one in self.names[:at]), None)
        if twice is not None:
            raise InvalidArgument(f"Two columns mean '{twice}'; leave one of them out")
        if NAME not in self.names:
            raise InvalidArgument(f"There is no column '{NAME}', which every device needs; add it, or map one to it")


def column_of(header: str, mapped: dict[str, str]) -> str:
    """The meaning of a column by its name; `mapped` holds what the operator says of names in the file.

    Raises: InvalidArgument that names an unknown one, and what may have been meant.
    """
    name = mapped.get(header.strip(), header).strip()
    prefix, colon, key = name.partition(":")
    kind = _PREFIXES.get(_folded(prefix)) if colon else None
    if kind is not None:
        return f"{kind}:{_checked_key(key.strip(), name)}"
    known = _ALIASES.get(_folded(name))
    if known is not None:
        return known
    raise InvalidArgument(_unknown(name))


def columns_of_header(cells: Sequence[str], mapped: dict[str, str]) -> Columns:
    """Raises: InvalidArgument for an unknown column, one that is there twice, or none that is the name."""
    unused = sorted(set(mapped) - {cell.strip() for cell in cells})
    if unused:
        raise InvalidArgument(f"The mapping names a column '{unused[0][:80]}' that the file does not have")
    return Columns(tuple(column_of(cell, mapped) for cell in cells))


def columns_of_mapping(mapping: Any) -> Columns:  # Any: decoded JSON
    """Of ThingsBoard's `columns`: `[{"type": "NAME"}, {"type": "SERVER_ATTRIBUTE", "key": "DATA"}, …]`.

    Raises: InvalidArgument.
    """
    if not isinstance(mapping, list) or not all(isinstance(one, dict) for one in mapping):
        raise InvalidArgument('The mapping\'s columns must be a list such as [{"type": "NAME"}, {"type": "TYPE"}]')
    return Columns(tuple(_of_thingsboard(one) for one in mapping[: MAX_COLUMNS + 1]))


def _of_thingsboard(one: dict[str, Any]) -> str:
    kind = str(one.get("type") or "")
    meaning = _OF_THINGSBOARD.get(kind)
    if meaning is None:
        near = get_close_matches(kind.upper(), _OF_THINGSBOARD, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(_OF_THINGSBOARD)}"
        raise InvalidArgument(f"Unknown column type '{kind[:80]}'; {hint}")
    if meaning in KEYED:
        return f"{meaning}:{_checked_key(str(one.get('key') or '').strip(), kind)}"
    return meaning


def _checked_key(key: str, column: str) -> str:
    if not key or len(key) > MAX_KEY_CHARS or "\0" in key:
        raise InvalidArgument(f"The column '{column[:80]}' needs a key of 1 to {MAX_KEY_CHARS} characters")
    return key


def _folded(name: str) -> str:
    return _NOISE.sub("", name).lower()


def _unknown(name: str) -> str:
    prefix, colon, key = name.partition(":")
    if colon:
        near = get_close_matches(_folded(prefix), _PREFIXES, n=1, cutoff=0.5)
        meant = f"{_PREFIXES[near[0]]}:{key}" if near else ""
    else:
        near = get_close_matches(_folded(name), _ALIASES, n=1)
        meant = _ALIASES[near[0]] if near else ""
    hint = f"did you mean '{meant[:120]}'?" if meant else (
        f"use one of {', '.join(PLAIN)}, or 'server:{name[:80]}' for a server attribute"
        " ('shared:' and 'timeseries:' likewise)"
    )  # fmt: skip
    return f"Unknown column '{name[:80]}'; {hint}. Nothing was imported"
