"""When a publish that the core will not have is the reading's fault, and when it is the core's.

A refusal that does not name the payload may be an outage: a lone record is given up only when the core has taken
other data since, or after `LAST_TRY` refusals. A core that hangs up instead of answering tells even less: after
`SILENT_ENDS` connections that ended without any acknowledgement the oldest batch on its way is suspected. It is taken
apart by device and waits, alone and ever longer, while the others go on; it is never given up.
"""

from __future__ import annotations

from edge_gateway.core.batches import Batch

SINGLE_TRIES = 3
LAST_TRY = 200  # about a hundred minutes: nothing else is sent that could tell
SILENT_ENDS = 5
WAIT_MIN_S = 5.0
WAIT_MAX_S = 600.0


def is_at_fault(batch: Batch, *, sent: int) -> bool:
    """Whether a lone record that was refused again shall be given up. `sent`: records the core has taken so far."""
    if batch.sent_before < 0:
        batch.sent_before = sent
    tries = batch.attempts + 1
    return tries >= LAST_TRY or (tries >= SINGLE_TRIES and sent > batch.sent_before)


def suspect(oldest: Batch) -> list[Batch]:
    """A connection ended without any acknowledgement while `oldest` was first on its way: what takes its place."""
    oldest.silent_ends += 1
    if oldest.silent_ends < SILENT_ENDS or len(oldest.devices) == 1:
        return [oldest]
    apart = oldest.by_device()
    for batch in apart:
        batch.silent_ends = SILENT_ENDS - 1  # each is the next one's first at most once more without waiting
    return apart


def wait_s(batch: Batch) -> float:
    """How long a suspected batch waits after a connection has come up; 0 for all others."""
    excess = batch.silent_ends - SILENT_ENDS
    return min(WAIT_MAX_S, WAIT_MIN_S * 2.0 ** min(excess, 16)) if excess >= 0 else 0.0
