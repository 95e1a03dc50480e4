"""A row of an import as what it wants of a device: cells to typed values, checked as far as the row alone can be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cloud_core.core.attributes import check_writable
from cloud_core.core.bulk.columns import (
    CUSTOMER,
    DESCRIPTION,
    GATEWAY,
    LABEL,
    MQTT_CLIENT_ID,
    MQTT_PASSWORD,
    MQTT_USERNAME,
    NAME,
    SCOPES,
    TIME_SERIES,
    TOKEN,
    TYPE,
    X509,
)
from cloud_core.core.inventory import checked
from cloud_core.core.names import fault_of
from cloud_core.model import Scope
from shared.credentials import AccessToken, Credentials, MqttBasic, X509Certificate
from shared.errors import InvalidArgument
from shared.messages import JsonValue, Value

MAX_TEXT_CHARS = 4_096  # of a description
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]{1,3})?")
_YES, _NO = ("true", "yes", "1", "y"), ("false", "no", "0", "n")


class RowFault(Exception):
    """What is wrong with a row: a code for programs, `str()` for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True, kw_only=True)
class Wish:
    """What a row says of a device. None and empty: nothing, so that what is there stays."""

    number: int
    name: str
    type: str = ""
    label: str | None = None
    description: str | None = None
    customer: str = ""
    is_gateway: bool | None = None
    credentials: Credentials | None = field(default=None, repr=False)
    attributes: dict[Scope, dict[str, Value]] = field(default_factory=dict)
    time_series: dict[str, Value] = field(default_factory=dict)


def wish_of(number: int, cells: dict[str, Any], *, casts: bool) -> Wish:
    """`casts`: texts of attributes are read as ThingsBoard reads them (numbers, booleans, JSON). Raises: RowFault."""
    for column, cell in cells.items():
        if "\0" in (cell if isinstance(cell, str) else text_of(cell)):
            raise RowFault("MALFORMED", f"The column '{column}' holds a NUL character; remove it")
    name = _text(cells, NAME)
    if not name:
        raise RowFault("NAME_MISSING", f"The name is empty; fill in the column '{NAME}'")
    wish = Wish(number=number, name=name, type=_text(cells, TYPE))
    if LABEL in cells:
        wish.label = _text(cells, LABEL)
    for column, value in ((NAME, name), (TYPE, wish.type), (LABEL, wish.label or "")):
        fault = fault_of(column, value)
        if fault:
            raise RowFault("MALFORMED", f"{fault}; correct the column '{column}'")
    if DESCRIPTION in cells:
        wish.description = _text(cells, DESCRIPTION)
        if len(wish.description) > MAX_TEXT_CHARS:
            raise RowFault("MALFORMED", f"The description is longer than {MAX_TEXT_CHARS} characters; shorten it")
    wish.customer = _text(cells, CUSTOMER)
    if GATEWAY in cells:
        wish.is_gateway = _flag(cells[GATEWAY])
    try:
        wish.credentials = _credentials(cells)
        _read_values(wish, cells, casts=casts)
    except InvalidArgument as error:
        code = "READ_ONLY" if "itself" in str(error) else "CREDENTIALS_INVALID"
        raise RowFault(code, str(error)) from error
    return wish


def _read_values(wish: Wish, cells: dict[str, Any], *, casts: bool) -> None:
    for column, cell in cells.items():
        kind, colon, key = column.partition(":")
        if not colon:
            continue
        value = _value(cell, casts=casts)
        if kind == TIME_SERIES:
            wish.time_series[key] = value
        else:
            check_writable(SCOPES[kind], (key,))
            wish.attributes.setdefault(SCOPES[kind], {})[key] = value


def text_of(cell: Any) -> str:  # Any: text, or a JSON scalar, or [JSON text]
    """A cell as it stands in a CSV file."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list):
        return str(cell[0])
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return str(cell)


def _text(cells: dict[str, Any], column: str) -> str:
    cell = cells.get(column, "")
    if isinstance(cell, list):
        raise RowFault("MALFORMED", f"The column '{column}' must be a text, not an object or array")
    return text_of(cell).strip()


def _flag(cell: Any) -> bool:
    text = text_of(cell).strip().lower()
    if text in _YES:
        return True
    if text in _NO:
        return False
    raise RowFault("MALFORMED", f"The column '{GATEWAY}' must be true or false")


def _credentials(cells: dict[str, Any]) -> Credentials | None:
    """A certificate before MQTT credentials before a token, as in ThingsBoard. Raises: InvalidArgument, RowFault."""
    certificate, token = _text(cells, X509), _text(cells, TOKEN)
    if certificate:
        return checked(X509Certificate(certificate))
    client_id, username, password = (_text(cells, one) for one in (MQTT_CLIENT_ID, MQTT_USERNAME, MQTT_PASSWORD))
    if client_id or username or password:
        return checked(MqttBasic(client_id, username, password))
    return checked(AccessToken(token)) if token else None


def _value(cell: Any, *, casts: bool) -> Value:
    if isinstance(cell, list):
        return JsonValue(str(cell[0]))
    if isinstance(cell, str):
        return cast_value(cell) if casts else cell
    if isinstance(cell, int) and not isinstance(cell, bool) and not -(2**63) <= cell < 2**63:
        return str(cell)
    value: Value = cell
    return value


def cast_value(text: str) -> Value:
    """Of a cell: boolean, long, double, JSON object or array, else the text (ThingsBoard's bulk import)."""
    bare = text.strip()
    if bare.lower() in ("true", "false"):
        return bare.lower() == "true"
    if _INTEGER.fullmatch(bare):
        number = int(bare)
        return number if -(2**63) <= number < 2**63 else text
    if len(bare) <= 64 and _DECIMAL.fullmatch(bare):
        decimal = float(bare)
        return decimal if abs(decimal) != float("inf") else text
    if bare[:1] in ("{", "["):
        try:
            return JsonValue(msgspec.json.encode(msgspec.json.decode(bare.encode())).decode())
        except (msgspec.MsgspecError, RecursionError):
            return text
    return text
