"""All devices of one process: their clock, their ways out, and what is counted of them."""

from __future__ import annotations

import asyncio
import random
import resource
import sys

from OpenSSL import SSL

from cloud_core.simulator import tally
from cloud_core.simulator.bodies import Secrets
from cloud_core.simulator.clock import TICK_S, Clock
from cloud_core.simulator.coap import CoapLink
from cloud_core.simulator.device import Device
from cloud_core.simulator.http import HttpLink
from cloud_core.simulator.keeping import Keeping, Kept
from cloud_core.simulator.links import Link
from cloud_core.simulator.mqtt import MqttLink
from cloud_core.simulator.network import Network, Room, Target
from cloud_core.simulator.plan import FAULT_NAMES, DevicePlan, Fault, Kind, Plan, Transport, devices
from cloud_core.simulator.signing import Signing
from cloud_core.simulator.states import FINAL, State
from cloud_core.simulator.tally import Tally

_FAULT_TEXTS = {fault: name for name, fault in FAULT_NAMES.items()}


class Fleet:
    """The share `share` of `shares` of a plan's devices. Raises: OSError, SSL.Error (a CA's file)."""

    def __init__(
        self, plan: Plan, target: Target, secrets: Secrets, *, share: int, shares: int, connections: int,
        kept: Kept, keeping: Keeping | None, loop: asyncio.AbstractEventLoop,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.secrets = secrets
        self.tally = Tally()
        self.clock = Clock(loop)
        self.room = Room(connections, loop.call_soon)
        self._keeping = keeping
        self._is_tls = target.is_tls
        self._loop = loop
        self._network = Network(target, loop, self.clock, share=share, devices=plan.devices)
        self._network.retransmitted = lambda: self.tally.count("CoAP retransmissions")
        self._signing = Signing() if any(kind is Kind.X509 for kind in plan.kinds) else None
        self._random = random.Random(f"{plan.seed}/{share}")
        self._states = dict.fromkeys(State, 0)
        self._devices = [
            Device(self, one, *kept.get(one.name, (None, ""))) for one in devices(plan, share=share, shares=shares)
        ]
        self._unsettled = self._states[State.OFF] = len(self._devices)
        self.is_over = False

    async def run(self) -> None:
        """Until `stop`, or the plan's duration is over."""
        self.clock.restart()
        for device in self._devices:
            self.clock.after(device.plan.start_s, device)
        self._loop.add_reader(self._network.watch.fileno(), self._network.watch.turn)
        try:
            while not self.is_over and self.clock.now_s < self.plan.duration_s:
                self.clock.turn()
                await asyncio.sleep(TICK_S)
        finally:
            self._loop.remove_reader(self._network.watch.fileno())
            self.is_over = True

    def stop(self) -> None:
        self.is_over = True

    def storm(self) -> None:
        """Breaks all connections at once."""
        self.tally.at_s["storm"] = self.clock.now_s
        for device in self._devices:
            if device.is_home and device.state not in FINAL:
                device.is_home = False
                self._unsettled += 1
                device.break_down()

    def snapshot(self) -> Tally:
        """The counts as they are now."""
        found = self.tally
        found.states = {state.value: count for state, count in self._states.items() if count}
        found.elapsed_s = self.clock.now_s
        found.is_home = not self._unsettled
        found.open_lines = self._network.watch.open
        # ru_maxrss counts KiB on Linux, bytes on macOS
        unit = 1 if sys.platform == "darwin" else 1024
        found.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        if self.room.was_short:
            found.limits[f"{self.room.size:,} connections at a time (--connections; open files: ulimit -n)"] = 1
        return found

    # what devices need

    def random(self) -> float:
        return self._random.random()

    def needs_line(self, plan: DevicePlan) -> bool:
        return plan.transport is not Transport.COAP

    def request(self, plan: DevicePlan) -> bytes:
        csr = self._signing.request(plan.name) if plan.kind is Kind.X509 and self._signing else ""
        return self.secrets.request(plan, csr)

    @property
    def key_pem(self) -> str:
        return self._signing.key_pem if self._signing else ""

    def link(self, device: Device) -> Link:
        """A new way to the core. Raises: OSError."""
        plan = device.plan
        if plan.transport is Transport.COAP:
            return CoapLink(self._network.coap_port(plan), device)
        kind = HttpLink if plan.transport is Transport.HTTP else MqttLink
        return kind(self._network, device, self._identity(device))

    def _identity(self, device: Device) -> SSL.Context | None:
        if device.credentials is None or not (self._is_tls and device.identity_pem):
            return None
        pem = device.identity_pem.encode()
        return self._network.identity(pem, pem)

    # what devices tell

    def mark(self, curve: str) -> None:
        self.tally.mark(curve, self.clock.now_s)

    def moved(self, device: Device, before: State) -> None:
        self._states[before] -= 1
        self._states[device.state] += 1
        if device.state in FINAL and not device.is_home:
            self._unsettled -= 1

    def attempted(self, plan: DevicePlan, *, is_again: bool) -> None:
        transport = plan.transport.value
        self.tally.attempts[transport] = self.tally.attempts.get(transport, 0) + 1
        if is_again:
            self.tally.count("retries")
        elif Fault.SLOW in plan.faults:
            self.faulted(Fault.SLOW)
        if not is_again and Fault.LOST_ANSWER in plan.faults and plan.transport is Transport.COAP:
            self.faulted(Fault.LOST_ANSWER)

    def faulted(self, fault: Fault) -> None:
        """A fault has taken place."""
        name = _FAULT_TEXTS[fault]
        self.tally.faults[name] = self.tally.faults.get(name, 0) + 1

    def limited(self, limit: str) -> None:
        self.tally.limits[limit] = self.tally.limits.get(limit, 0) + 1

    def refused(self, reason: str, *, is_expected: bool) -> None:
        into = self.tally.expected_refusals if is_expected else self.tally.refusals
        into[reason] = into.get(reason, 0) + 1

    def granted(self, device: Device, asked_s: float, powered_s: float) -> None:
        transport, now_s = device.plan.transport.value, self.clock.now_s
        self.tally.timed(self.tally.request_s, transport, now_s - asked_s)
        self.tally.timed(self.tally.provisioned_s, transport, now_s - powered_s)
        self.tally.mark(tally.PROVISIONED, now_s)
        if self._keeping is not None and device.credentials is not None:
            self._keeping.keep(device.plan.name, device.credentials, device.identity_pem)

    def acknowledged(self, device: Device, seconds: float, *, is_login: bool) -> None:
        self.tally.count("reports acknowledged")
        histograms = self.tally.login_s if is_login else self.tally.report_s
        self.tally.timed(histograms, device.plan.transport.value, seconds)
        self.mark(tally.ACKNOWLEDGED)
        if not device.is_home:
            device.is_home = True
            self._unsettled -= 1
            self.mark(tally.BACK if device.is_back else tally.HOME)
