"""Whether the core can serve: for load balancers and supervisors, without a login.

Names no reason beyond a fixed word for each, so that nothing about the installation is told to strangers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloud_core.storage.interface import Store, Tx
from shared.errors import PlatformError

FRESH_S = 1.0  # so long an answer holds: whoever asks more often costs nothing
PROBE_S = 2.0  # so long the store may take for an empty decision
FABRIC = "FABRIC"  # the core serves without it, and less promptly
STARTING, DRAINING, STORE = "STARTING", "DRAINING", "STORE_UNAVAILABLE"

Check = Callable[[], str | None]
"""The word for what is wrong; None when nothing is."""
Ready = Callable[[tuple[str, ...]], None]


class Health:
    """`checks` are asked first; then the store has to pass an empty decision through its writer."""

    def __init__(self, *, store: Store, now_s: Callable[[], float], call_later: Callable[..., Any]) -> None:
        self.checks: list[Check] = [lambda: STARTING]  # replaced by whoever starts the program
        self.degradations: list[Check] = []  # what is away and does not keep the core from serving
        self._store = store
        self._now_s = now_s
        self._call_later = call_later
        self._known: tuple[str, ...] = ()
        self._known_at_s = float("-inf")
        self._waiting: list[Ready] = []

    def reasons(self) -> tuple[str, ...]:
        """What the checks say now; without asking the store."""
        return tuple(said for check in self.checks if (said := check()) is not None)

    def degraded(self) -> tuple[str, ...]:
        """What is away; the core is ready all the same."""
        return tuple(said for check in self.degradations if (said := check()) is not None)

    def ready(self, done: Ready) -> None:
        """`done` with what is wrong, nothing when the core is ready; at most PROBE_S later."""
        reasons = self.reasons()
        if reasons:
            done(reasons)
        elif 0 <= self._now_s() - self._known_at_s < FRESH_S:
            done(self._known)
        else:
            self._waiting.append(done)
            if len(self._waiting) == 1:
                self._probe()

    def _probe(self) -> None:
        is_over = False

        def conclude(known: tuple[str, ...]) -> None:
            nonlocal is_over
            if is_over:
                return
            is_over = True
            self._known, self._known_at_s = known, self._now_s()
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done(known)

        timer = self._call_later(PROBE_S, lambda: conclude((STORE,)))

        def decided(outcome: PlatformError | None) -> None:
            if not is_over and timer is not None:
                timer.cancel()
            conclude((STORE,) if isinstance(outcome, PlatformError) else ())

        self._store.submit(_nothing, (), decided)


def _nothing(_tx: Tx) -> None:
    """An empty decision: it comes back when the writer has committed."""
