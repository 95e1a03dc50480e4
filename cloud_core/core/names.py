"""Which names a device may have (wire-contract.md section 1.9)."""

from __future__ import annotations

import re

from shared.errors import InvalidDeviceName

MAX_NAME_CHARS = 255
_MARKUP = re.compile(r"<[a-zA-Z/!?]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def fault_of(field: str, value: str) -> str | None:
    """What is wrong with a name, type or label, in ThingsBoard's words; None when nothing is."""
    if len(value) > MAX_NAME_CHARS:
        return f"{field} length must be equal or less than {MAX_NAME_CHARS}"
    if _MARKUP.search(value) or _CONTROL.search(value):
        return f"{field} is malformed"
    return None


def check_device_name(name: str) -> str:
    """The trimmed name. Raises: InvalidDeviceName for a blank, long or malformed one."""
    trimmed = name.strip()
    if not trimmed:
        raise InvalidDeviceName("the device name is blank")
    fault = fault_of("name", trimmed)
    if fault:
        raise InvalidDeviceName(fault)
    return trimmed
