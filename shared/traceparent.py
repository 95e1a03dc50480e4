"""The `traceparent` with which a peer names the span that it is in.

Source: W3C Trace Context section 3.2.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NAME = "traceparent"
MAX_CHARS = 256  # of a version that is still to come; today's has 55
_IS_SAMPLED = 0x01
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceParent(NamedTuple):
    """`is_sampled`: the peer keeps its span, and so wants those beneath it."""

    trace_id: int
    span_id: int
    is_sampled: bool


def parse_traceparent(text: str) -> TraceParent | None:
    """None for what is not well-formed: such a header counts as not sent (section 3.2.2)."""
    found = _FORM.fullmatch(text) if len(text) <= MAX_CHARS else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    parent = TraceParent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _IS_SAMPLED))
    return parent if parent.trace_id and parent.span_id else None
