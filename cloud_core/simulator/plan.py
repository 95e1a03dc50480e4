"""What a run shall be: one seed and the options decide each device's name, transport, credentials, faults and start.

Nothing here knows a clock or a socket: the same plan gives the same devices on any machine, in any number of processes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from enum import Flag, StrEnum
from typing import Any, NamedTuple, TypeVar

import msgspec

MAX_DEVICES = 1_000_000
MAX_DURATION_S = 86_400.0

N = TypeVar("N", bound=StrEnum)


class Transport(StrEnum):
    """By which a device talks."""

    MQTT = "mqtt"
    """MQTT 3.1.1."""
    MQTT5 = "mqtt5"
    HTTP = "http"
    COAP = "coap"


class Kind(StrEnum):
    """Which credentials a device asks for."""

    TOKEN = "token"
    """An access token that the core makes."""
    OWN_TOKEN = "own-token"
    """An access token that the device brings."""
    BASIC = "basic"
    """MQTT client id, user name and password that the device brings; MQTT alone."""
    X509 = "x509"
    """A certificate, by a signing request; with TLS alone, and not over CoAP."""


class Profile(StrEnum):
    """How the fleet comes and stays."""

    POWER_ON_STORM = "power-on-storm"
    """All at nearly the same time; over when everybody has reported."""
    STEADY = "steady"
    """Spread over the ramp, then reports until the duration is over."""
    RECONNECT_STORM = "reconnect-storm"
    """When everybody is in, all connections break at once; over when everybody is back."""
    FACTORY_LINE = "factory-line"
    """One after the other at an even pace; each reports once and is switched off."""


class Fault(Flag):
    """What may be wrong with a device, or with its way to the core."""

    LOST_ANSWER = 1
    """The first answer to its provision request never arrives; it asks again."""
    DUPLICATE = 2
    """Its provision request arrives twice."""
    SLOW = 4
    """Its requests come in pieces (over CoAP: answers are read late)."""
    WRONG_SECRET = 8
    """It holds a wrong provision secret, and must never get in."""
    RECONNECT = 16
    """Its connection breaks now and then."""


FAULT_NAMES = {(fault.name or "").lower().replace("_", "-"): fault for fault in Fault}
NO_FAULT = Fault(0)
_DRAWS = struct.Struct(">8I")  # transport, kind, start, and one for each fault
_ONE = float(1 << 32)


MIX = "mqtt=60,mqtt5=10,http=15,coap=15"
KINDS = "token=80,own-token=10,basic=10"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides the devices. Weights are relative; shares of faults are between 0 and 1."""

    devices: int
    seed: int = 1
    profile: Profile = Profile.POWER_ON_STORM
    mix: dict[Transport, float]
    kinds: dict[Kind, float]
    faults: dict[str, float] = {}
    ramp_s: float = 10.0
    duration_s: float = 900.0
    telemetry_every_s: float = 30.0
    give_up_s: float = 600.0
    prefix: str = "sim"
    is_tls: bool = False


class DevicePlan(NamedTuple):
    """One device of a plan."""

    number: int  # from 0
    name: str
    transport: Transport
    kind: Kind
    faults: Fault
    start_s: float


def device_plan(plan: Plan, index: int) -> DevicePlan:
    """Device `index` of the plan, counted from 0."""
    drawn = hashlib.blake2b(f"{plan.seed}/{index}".encode(), digest_size=_DRAWS.size).digest()
    draws = [number / _ONE for number in _DRAWS.unpack(drawn)]
    transport = _choose(plan.mix, draws[0])
    kind = _fitting(_choose(plan.kinds, draws[1]), transport, is_tls=plan.is_tls)
    faults = NO_FAULT
    for draw, (name, fault) in zip(draws[3:], FAULT_NAMES.items(), strict=True):
        if draw < plan.faults.get(name, 0.0):
            faults |= fault
    share = index / plan.devices if plan.profile is Profile.FACTORY_LINE else draws[2]
    name = f"{plan.prefix}-{plan.seed}-{index + 1:07d}"
    return DevicePlan(index, name, transport, kind, faults, round(share * plan.ramp_s, 3))


def devices(plan: Plan, *, share: int = 0, shares: int = 1) -> Iterator[DevicePlan]:
    """The devices of one of `shares` equal parts of the plan."""
    return (device_plan(plan, index) for index in range(share, plan.devices, shares))


def digest(plan: Plan) -> str:
    """Sixteen hexadecimal digits that are the same exactly for the same devices and times."""
    whole = hashlib.sha256(repr((plan.profile.value, plan.duration_s, plan.telemetry_every_s, plan.is_tls)).encode())
    for one in devices(plan):
        line = f"{one.name} {one.transport} {one.kind} {one.faults.value} {one.start_s:.3f}\n"
        whole.update(line.encode())
    return whole.hexdigest()[:16]


def overview(plan: Plan) -> dict[str, Any]:
    """How many devices the plan has of each kind, for people."""
    found: dict[str, Any] = {"digest": digest(plan), "devices": plan.devices, "profile": plan.profile.value}
    counts: dict[str, dict[str, int]] = {"transports": {}, "credentials": {}, "faults": {}}
    for one in devices(plan):
        names = [("transports", one.transport.value), ("credentials", one.kind.value)]
        names += [("faults", name) for name, fault in FAULT_NAMES.items() if fault in one.faults]
        for group, name in names:
            counts[group][name] = counts[group].get(name, 0) + 1
    return found | counts


def _choose(weights: Mapping[N, float], draw: float) -> N:
    """By its weight, in the order given."""
    reached, wanted = 0.0, draw * sum(weights.values())
    for choice, weight in weights.items():
        reached += weight
        if wanted < reached:
            return choice
    return list(weights)[-1]


def _fitting(kind: Kind, transport: Transport, *, is_tls: bool) -> Kind:
    """The kind of credentials that the transport can use; a token that the core makes where it cannot."""
    is_mqtt = transport in (Transport.MQTT, Transport.MQTT5)
    if kind is Kind.BASIC and not is_mqtt:
        return Kind.TOKEN
    if kind is Kind.X509 and (not is_tls or transport is Transport.COAP):
        return Kind.TOKEN
    return kind


def parse_weights(text: str, names: type[N]) -> dict[N, float]:
    """`mqtt=60,http=40` as weights, zero ones left out. Raises: ValueError with a sentence."""
    weights: dict[N, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, number = part.partition("=")
        try:
            choice = names(name.strip())
        except ValueError:
            raise ValueError(f"'{name}' is none of {', '.join(names)}.") from None
        weights[choice] = _number(number, part) if equals else 1.0
    weights = {choice: weight for choice, weight in weights.items() if weight > 0}
    if not weights:
        raise ValueError(f"'{text}' leaves nothing; write for example {next(iter(names))}=100.")
    return weights


def parse_fault(text: str) -> tuple[str, float]:
    """`slow=5%` or `slow=0.05`. Raises: ValueError with a sentence."""
    name, _, share_text = text.partition("=")
    name = name.strip()
    if name not in FAULT_NAMES:
        raise ValueError(f"'{name}' is none of {', '.join(FAULT_NAMES)}.")
    share = _number(share_text.removesuffix("%"), text) / (100 if share_text.endswith("%") else 1)
    if share > 1:
        raise ValueError(f"{text} is more than everybody; write {name}=5% or {name}=0.05.")
    return name, share


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"'{where}' needs a number behind '='.") from None
    if not 0 <= number < 1e9:
        raise ValueError(f"The number in '{where}' must be 0 or more.")
    return number
