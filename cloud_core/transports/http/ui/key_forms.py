"""Rules of provision keys as people type them, and where a key stands."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from cloud_core.model import KeyRules, ProvisionKey
from cloud_core.transports.http.ui.visits import Form
from shared.errors import InvalidArgument

OVERLAPS = [
    ("86400", "1 day"), ("604800", "7 days"), ("2592000", "30 days"), ("7776000", "90 days"), ("3600", "1 hour"),
    ("0", "none: the old secret ends at once"),
]  # fmt: skip


class Standing(NamedTuple):
    """What a key does now. `kind`: of the badge."""

    text: str
    kind: str


_NO_RULES = KeyRules()


def rules_of(form: Form, known: KeyRules = _NO_RULES) -> KeyRules:
    """Checked by the core besides. `known`: those that the form has shown; a time that was not touched stays to the
    millisecond. Raises: InvalidArgument."""
    return KeyRules(
        budget=_whole(form["budget"]), valid_from_ms=_time(form["validFrom"], "Valid from", known.valid_from_ms),
        valid_until_ms=_time(form["validUntil"], "Valid until", known.valid_until_ms),
        networks=tuple(one for one in re.split(r"[\s,;]+", form["networks"]) if one), name_pattern=form["namePattern"],
        allows_gateways=form.is_on("gateways"), batch=form["batch"],
    )  # fmt: skip


def values_of(rules: KeyRules) -> dict[str, str]:
    """For the form."""
    return {
        "budget": str(rules.budget) if rules.budget else "", "validFrom": _shown(rules.valid_from_ms),
        "validUntil": _shown(rules.valid_until_ms), "networks": ", ".join(rules.networks),
        "namePattern": rules.name_pattern, "gateways": "yes" if rules.allows_gateways else "", "batch": rules.batch,
    }  # fmt: skip


def standing(key: ProvisionKey, now_ms: int) -> Standing:
    """The first thing that keeps devices out, as the core checks it."""
    rules = key.rules
    if not key.is_enabled:
        return Standing("Disabled", "idle")
    if now_ms < rules.valid_from_ms:
        return Standing("Not valid yet", "warn")
    if rules.valid_until_ms and now_ms >= rules.valid_until_ms:
        return Standing("Over", "bad")
    if rules.budget and key.used >= rules.budget:
        return Standing("Budget used up", "bad")
    return Standing("In use", "good")


def overlap_of(text: str) -> int:
    """Seconds. Raises: InvalidArgument."""
    if text not in {value for value, _ in OVERLAPS}:
        raise InvalidArgument("Choose how long the old secret stays valid.")
    return int(text)


def _whole(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 17):
        raise InvalidArgument("Budget must be a whole number of devices, or empty for no limit.")
    return int(text)


def seen_of(rules: KeyRules) -> str:
    """What a form carries, so that it does not overwrite what somebody else has changed since it was shown."""
    return hashlib.sha256(msgspec.json.encode(rules)).hexdigest()[:16]


def _time(text: str, label: str, known: int) -> int:
    """In UTC, as the form says; ms since the epoch, 0 for none."""
    if known and text == _shown(known):
        return known
    if not text:
        return 0
    try:
        at = datetime.fromisoformat(text[:40])
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"{label}: write a date and time, such as 2026-12-31 18:00.") from error


def _shown(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M") if ms else ""
    except (ValueError, OverflowError, OSError):  # set over REST to a year that calendars do not have
        return ""
