"""Values out of forms where a form's text is not yet what REST's JSON would hold; refusals in words for people."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from cloud_core.transports.http.ui.visits import Form
from shared.errors import InvalidArgument, PlatformError

_MAX_DIGITS = 18
_FOR_PROGRAMS = "Validation error: "  # with which ThingsBoard's clients expect some to begin


def number_of(form: Form, name: str, label: str, default: int) -> int:
    """A whole number; `default` where the field is empty. Raises: InvalidArgument."""
    text = form[name]
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > _MAX_DIGITS:
        raise InvalidArgument(f"{label} must be a whole number, 0 or more")
    return int(text)


def version_of(form: Form) -> int | None:
    """Of what the form was filled from; None where it does not say."""
    text = form["version"]
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else None


def end_of_day_ms(form: Form, name: str, label: str) -> int | None:
    """The end of a day in UTC, in ms since the epoch; None where the field is empty. Raises: InvalidArgument."""
    text = form[name]
    if not text:
        return None
    try:
        next_day = date.fromisoformat(text) + timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"{label} must be a day such as 2030-12-31") from error
    return int(datetime(next_day.year, next_day.month, next_day.day, tzinfo=UTC).timestamp() * 1000) - 1


def said(error: PlatformError) -> str:
    """Why a form was refused."""
    text = (str(error) or error.public_text).removeprefix(_FOR_PROGRAMS)
    if text.endswith("is malformed"):
        text += ": leave out markup such as <b> and control characters"
    return text[:1].upper() + text[1:]
