"""What a finished run comes to: whether all got in that should, and the figures that every report shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloud_core.simulator import tally as curves
from cloud_core.simulator.plan import Plan, Profile, digest
from cloud_core.simulator.states import State
from cloud_core.simulator.tally import LATENCIES, Failure, Tally

_WAITING = (State.OFF, State.POWERED, State.PROVISIONING)
_HAVE = (State.PROVISIONED, State.CONNECTING, State.ONLINE, State.ASLEEP, State.DONE)
LATENCY_TITLES = {
    "request_s": "request to answer", "provisioned_s": "power-on to credentials",
    "login_s": "login with first report", "report_s": "report to acknowledgement",
}  # fmt: skip
_LATENCY_MEMBERS = {
    "request_s": "provisionRequest", "provisioned_s": "powerOnToCredentials", "login_s": "loginAndReport",
    "report_s": "report",
}  # fmt: skip
assert set(LATENCIES) == set(LATENCY_TITLES) == set(_LATENCY_MEMBERS)


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended, and its plan."""

    plan: Plan
    tally: Tally
    target: str
    processes: int
    is_interrupted: bool = False
    started_at: str = ""  # ISO 8601, UTC

    @property
    def provisioned(self) -> int:
        """Devices that have credentials."""
        return sum(self.tally.states.get(state, 0) for state in _HAVE)

    @property
    def unfinished(self) -> int:
        """Devices that had not come through when the run ended."""
        if self.tally.is_home:
            return 0
        waiting = sum(self.tally.states.get(state, 0) for state in _WAITING)
        return max(1, waiting)

    @property
    def failures(self) -> list[Failure]:
        """At most a hundred; `failed` says how many there are."""
        return self.tally.failures

    @property
    def failed(self) -> int:
        return self.tally.counts.get("failed", 0)

    @property
    def is_good(self) -> bool:
        """No permanent failure, and nobody left outside; who ends a run early leaves devices outside by choice."""
        return not self.failed and (self.is_interrupted or not self.unfinished)

    @property
    def all_provisioned_s(self) -> float | None:
        """When the last device got its credentials; None while some are waiting."""
        if any(self.tally.states.get(state, 0) for state in _WAITING):
            return None
        return self.tally.at_s.get(curves.PROVISIONED)

    def sentence(self) -> str:
        """The result in one line."""
        expected = self.tally.states.get(State.REFUSED, 0)
        known = self.tally.states.get(State.KNOWN, 0)
        parts = [f"{self.provisioned:,} of {self.plan.devices - expected:,} devices are provisioned"]
        if self.all_provisioned_s is not None and self.provisioned:
            parts[0] += f", the last after {self.all_provisioned_s:.1f} s"
        if expected:
            parts.append(f"{expected:,} with a wrong secret were refused, as they must be")
        if known:
            parts.append(f"{known:,} were provisioned in an earlier run whose credentials are not at hand (--state)")
        parts.append(f"{self.failed:,} failed for good" if self.failed else "no permanent failure")
        if self.unfinished:
            why = "ended early" if self.is_interrupted else "time is up"
            parts.append(f"{why}, and some had not come through")
        return "; ".join(parts) + "."

    def back_s(self) -> float | None:
        """How long the storm took until the last was back; None where there was none."""
        storm_s, back_s = self.tally.at_s.get("storm"), self.tally.at_s.get(curves.BACK)
        if self.plan.profile is not Profile.RECONNECT_STORM or storm_s is None or back_s is None:
            return None
        return back_s - storm_s

    def summary(self) -> dict[str, Any]:
        """The report as JSON."""
        tally = self.tally
        return {
            "good": self.is_good, "result": self.sentence(), "interrupted": self.is_interrupted,
            "startedAt": self.started_at, "seconds": round(tally.elapsed_s, 2), "target": self.target,
            "plan": {
                "digest": digest(self.plan), "seed": self.plan.seed, "devices": self.plan.devices,
                "profile": self.plan.profile.value, "rampSeconds": self.plan.ramp_s, "mix": dict(self.plan.mix),
                "credentials": dict(self.plan.kinds), "faults": self.plan.faults, "processes": self.processes,
            },
            "states": tally.states, "provisioned": self.provisioned, "unfinished": self.unfinished,
            "allProvisionedSeconds": _rounded(self.all_provisioned_s), "allBackSeconds": _rounded(self.back_s()),
            "attempts": tally.attempts, "counts": tally.counts, "refusals": tally.refusals,
            "expectedRefusals": tally.expected_refusals, "faultsSeen": tally.faults, "errors": tally.errors,
            "limits": tally.limits,
            "latencies": {
                _LATENCY_MEMBERS[name]: {
                    transport: histogram.summary() for transport, histogram in sorted(getattr(tally, name).items())
                }
                for name in LATENCIES
            },
            "curves": tally.curves,
            "failures": [{"device": one.name, "reason": one.reason} for one in self.failures],
            "failed": self.failed, "peakBytes": tally.peak_bytes,
        }  # fmt: skip


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
