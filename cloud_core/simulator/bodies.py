"""What devices write and read in bodies: provision requests and their answers, reports, replies."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass

import msgspec

from cloud_core.simulator.plan import DevicePlan, Fault, Kind
from shared.credentials import AccessToken, Credentials, MqttBasic, X509Certificate
from shared.errors import ProvisionStatus, Reason

LATER = frozenset({Reason.RATE_LIMITED.value, Reason.UNAVAILABLE.value, Reason.APPROVAL_PENDING.value})
"""Refusals after which the same request may succeed."""
TAKEN = frozenset({Reason.DEVICE_EXISTS.value, Reason.ALREADY_PROVISIONED.value})
NO_ANSWER = "no provision response"


@dataclass(frozen=True, slots=True)
class Granted:
    """Credentials; `chain` is the PEM of a certificate and its issuers."""

    credentials: Credentials
    chain: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal: `reason` as the core names it."""

    reason: str
    retry_after_s: float | None = None
    ref: str = ""


class _Basic(msgspec.Struct):
    clientId: str | None = None
    userName: str | None = None
    password: str | None = None


class _Answer(msgspec.Struct):
    status: str
    credentialsType: str | None = None
    credentialsValue: str | _Basic | None = None
    certificateChain: str | None = None
    errorMsg: str | None = None
    reason: str | None = None
    ref: str | None = None
    retryAfter: float | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def read_answer(body: bytes) -> Granted | Refused:
    """A provision response."""
    try:
        answer = _decode(body)
    except msgspec.MsgspecError:
        return Refused(NO_ANSWER)
    if answer.status != ProvisionStatus.SUCCESS.value:
        return Refused(answer.reason or answer.errorMsg or answer.status, answer.retryAfter, answer.ref or "")
    match answer.credentialsType, answer.credentialsValue:
        case "ACCESS_TOKEN", str(token):
            return Granted(AccessToken(token))
        case "MQTT_BASIC", _Basic() as basic:
            return Granted(MqttBasic(basic.clientId or "", basic.userName or "", basic.password or ""))
        case "X509_CERTIFICATE", str(certificate):
            return Granted(X509Certificate(certificate), answer.certificateChain or "")
        case _:
            return Refused(NO_ANSWER)


class Secrets:
    """The provision key and secret that devices hold, and what they derive from it for themselves."""

    __slots__ = ("_key", "_secret")

    def __init__(self, key: str, secret: str) -> None:
        self._key = key
        self._secret = secret

    def own_credentials(self, plan: DevicePlan) -> Credentials | None:
        """What the device brings: the same in every run, and nobody's guess without the provision secret."""
        if plan.kind is Kind.OWN_TOKEN:
            return AccessToken(self._derived(plan.name, "token"))
        if plan.kind is Kind.BASIC:
            return MqttBasic(plan.name, f"user-{plan.name}", self._derived(plan.name, "password"))
        return None

    def request(self, plan: DevicePlan, csr: str = "") -> bytes:
        """The provision request, the same whenever the device asks; `csr` in PEM."""
        is_wrong = Fault.WRONG_SECRET in plan.faults
        members = {
            "deviceName": plan.name,
            "provisionDeviceKey": self._key,
            "provisionDeviceSecret": self._derived(plan.name, "wrong") if is_wrong else self._secret,
        }
        match self.own_credentials(plan):
            case AccessToken(token):
                members |= {"credentialsType": "ACCESS_TOKEN", "token": token}
            case MqttBasic(client_id, username, password):
                members |= {"credentialsType": "MQTT_BASIC", "clientId": client_id, "username": username,
                            "password": password}  # fmt: skip
            case _ if csr:
                members |= {"credentialsType": "X509_CSR", "csr": csr}
        return json.dumps(members, separators=(",", ":")).encode()

    def _derived(self, name: str, purpose: str) -> str:
        return hmac.new(self._secret.encode(), f"{purpose}/{name}".encode(), hashlib.sha256).hexdigest()[:20]


def report(number: int, index: int) -> bytes:
    """Report `number` of device `index`; the core adds the time."""
    return b'{"temperature":%d.%d,"uptime":%d,"n":%d}' % (15 + index % 15, number % 10, number * 30, number)


def reply(method: str) -> bytes:
    """The answer to any command."""
    return json.dumps({"done": True, "method": method[:100]}).encode()
