"""Report strategies in words: `received`, `change`, `change 0.5`, `change 2%`, `1 min`, `change 0.5 | 1 min`."""

from __future__ import annotations

import math
import re
from typing import Final

from edge_gateway.mapping.amounts import parse_duration
from edge_gateway.model import ReportOn, ReportRule

GRAMMAR: Final = (
    'write "received" (always), "change" (when it differs), "change 0.5" or "change 2%" (by at least so much), '
    '"1 min" (once in a period), or "change 0.5 | 1 min" (at a change, and at the latest after a period)'
)
_CHANGE = re.compile(r"change(?:\s+(?P<band>[0-9.]+)\s*(?P<percent>%)?)?", re.IGNORECASE)


def parse_report(text: str) -> ReportRule:
    """Raises: ValueError whose text says the grammar."""
    parts = [part.strip() for part in text.split("|")]
    if len(parts) > 2 or not all(parts):
        raise _no_report(text)
    if len(parts) == 1 and parts[0].lower() == "received":
        return ReportRule()
    change = _CHANGE.fullmatch(parts[0])
    if change is None:
        if len(parts) == 2:
            raise _no_report(text)
        return ReportRule(on=ReportOn.PERIOD, period_s=_period(text, parts[0]))
    band = _dead_band(text, change["band"])
    is_percent = change["percent"] is not None
    if len(parts) == 1:
        return ReportRule(on=ReportOn.CHANGE, dead_band=band, is_percent=is_percent)
    period_s = _period(text, parts[1])
    return ReportRule(on=ReportOn.CHANGE_OR_PERIOD, period_s=period_s, dead_band=band, is_percent=is_percent)


def _dead_band(text: str, band: str | None) -> float:
    try:
        number = float(band or 0)
    except ValueError:
        raise _no_report(text) from None
    if not math.isfinite(number):
        raise _no_report(text)
    return number


def _period(text: str, period: str) -> float:
    try:
        period_s = parse_duration(period)
    except ValueError:
        raise _no_report(text) from None
    if period_s <= 0 or period.replace(".", "").isdigit():  # a bare number might be meant as a dead band
        raise _no_report(text)
    return period_s


def _no_report(text: str) -> ValueError:
    return ValueError(f"'{text}' is no report strategy; {GRAMMAR}")
