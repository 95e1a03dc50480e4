"""The query parameters that choose provision attempts."""

from __future__ import annotations

from twisted.web.http import Request

from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.transports.http.calls import integer, query, uuid_of
from shared.errors import InvalidArgument, Reason

OUTCOMES = ("SUCCESS", "REPLAYED", *(reason.value for reason in Reason))
REFUSED = "REFUSED"  # stands for every outcome but the good ones
_GOOD = ("SUCCESS", "REPLAYED")


def attempt_filter(request: Request) -> AttemptFilter:
    """Of `outcome` (a comma list), `deviceName`, `deviceProfileId`, `startTs` and `endTs`. Raises: InvalidArgument."""
    outcomes: list[str] = []
    for one in filter(None, (part.strip().upper() for part in query(request, "outcome").split(","))):
        if one == REFUSED:
            outcomes += [name for name in OUTCOMES if name not in _GOOD]
        elif one in OUTCOMES:
            outcomes.append(one)
        else:
            raise InvalidArgument(f"Unknown outcome '{one[:40]}'; use {REFUSED}, {', '.join(OUTCOMES)}")
    profile = query(request, "deviceProfileId")
    return AttemptFilter(
        outcomes=tuple(outcomes), device_name=query(request, "deviceName"),
        profile=uuid_of(profile) if profile else None,
        start_ms=integer(request, "startTs") if query(request, "startTs") else None,
        end_ms=integer(request, "endTs") if query(request, "endTs") else None,
    )  # fmt: skip
