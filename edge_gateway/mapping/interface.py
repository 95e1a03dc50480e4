"""How connectors use a mapping.

The language, one line a key: `"$.path -> key"`, `"$.path -> key: type"`, `"$.io.* -> io_{key}: bool"`; with options it
is a table: `{ at = "$.t", key = "temperature", as = "float", scale = 0.1, report = "change 0.5 | 1 min" }`. Paths are
JSONPath (RFC 9535). For payloads that are no JSON: `bytes:0-3` and `bits:4.0-4.3` with `as` and `words`, `text` for the
whole, `csv:2` (the second) or `csv:name` for a column, `regex:(\\d+)` for a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from edge_gateway.model import Json, Reading, ReportRule


class MappingError(Exception):
    """A payload that does not fit its mapping; `str()` names what was looked for and what was found.

    `readings` holds what could be read all the same (other keys, other elements of `each`, other lines): accept it
    beside rejecting the payload, and one broken sensor does not silence the others."""

    def __init__(self, text: str, readings: Sequence[Reading] = ()) -> None:
        self.readings = list(readings)
        super().__init__(text)


class NoValue(MappingError):
    """What stands there means that there is no value: null, NaN, infinity. A key is left out unless it is required."""


class Line(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A key as a table; the text form `"at -> key: as"` is short for the first three."""

    at: str
    key: str
    as_: str = msgspec.field(name="as", default="")  # string, int, float, bool, json; for bytes: uint16, float32, …
    words: str = "big"  # order of bytes and words: big, little, big-swapped, little-swapped
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""  # shown by `try`; not sent
    report: str = ""  # received | change [n | n%] | <period> | change … | <period>
    required: bool = False  # a message without it is rejected instead of read without it


class MapSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How messages of one kind become readings; connectors add their own pattern (topic, path) by subclassing.

    `device` and `type` are templates: `{name}` is a capture of the pattern, `{$.path}` is picked from the payload.
    `each` names an array in the payload, each element of which is a reading of its own (`{each}`: its index, or the
    name of the member that `each = "$.*"` found); paths then begin at the element, and what `device`, `type` and `ts`
    do not find there is looked for in the whole message."""

    device: str
    type: str = ""
    format: str = "json"  # json | bytes | text | csv
    each: str = ""
    ts: str = ""  # path of the source's time; absent: time of arrival
    ts_format: str = ""  # ms | s | iso8601 | a strptime format; empty: by its look
    delimiter: str = ","  # of csv
    telemetry: list[str | Line] = []
    attributes: list[str | Line] = []
    report: str = ""  # for the keys that say none themselves


class CompiledMap(Protocol):
    """A `MapSettings`, ready for use."""

    def readings(self, payload: bytes, captures: Mapping[str, str], *, wants_raw: bool = False) -> list[Reading]:
        """What the payload says, with the source's time as it is: whether it can be meant is judged at acceptance.

        Keys whose path finds nothing are left out. Raises: MappingError when the payload cannot be read at all,
        yields neither device nor value, lacks a required key, or has a value that does not fit its type."""


class CompiledPattern(Protocol):
    """A topic or path with captures: `site/{line}/{unit}/data`, `+` and `#` as in MQTT, `*` for one segment."""

    def match(self, text: str) -> dict[str, str] | None:
        """The captures, or None when it does not fit. A capture is never empty."""

    @property
    def filter(self) -> str:
        """The same as an MQTT topic filter."""

    @property
    def captures(self) -> frozenset[str]:
        """The names that `match` gives."""


class CompiledTemplate(Protocol):
    """Text with `{name}`, `{key}`, `{$.path}` in it, for topics, paths and bodies on the way back to a device."""

    def render(self, values: Mapping[str, Any], document: Json = None) -> str:
        """Raises: MappingError naming what is missing."""

    @property
    def names(self) -> frozenset[str]:
        """The `{name}`s in it, without the `{$.path}`s."""


Reports = dict[str, ReportRule]
