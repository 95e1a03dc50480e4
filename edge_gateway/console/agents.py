"""Whether an agent is at work on a spool."""

from __future__ import annotations

from pathlib import Path

from edge_gateway.storage.errors import SpoolUnavailable
from edge_gateway.storage.opening import lock


def is_at_work(spool: Path) -> bool:
    """By the spool's lock, which it holds as long as it lives; makes nothing that was not there."""
    if not spool.with_name(spool.name + ".lock").exists():
        return False
    try:
        lock(spool).release()
    except SpoolUnavailable:
        return True
    return False
