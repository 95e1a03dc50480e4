"""How the gateway gets its own credentials: one request over MQTT, with what it proposes itself.

The gateway makes its credentials before it asks and keeps them as *proposed*. When the answer is lost it asks the
same again, which a core that replays answers in the same way; where the core says instead that the device exists
already, the proposed credentials are tried: they are what the core has stored. So a power cut at any moment locks
nobody out.

Source: wire-contract.md sections 1.1, 1.2 and 1.6.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_gateway.model import Credentials
from edge_gateway.settings import Provision
from edge_gateway.uplink.interface import Ended, Uplink

REQUEST_TOPIC = "/provision/request"
RESPONSE_TOPIC = "/provision/response"
ANSWER_TIMEOUT_S = 15.0
MAX_RETRY_AFTER_S = 3_600.0
MAX_TEXT = 500  # of the core's own words
TAKEN = frozenset({"DEVICE_EXISTS", "ALREADY_PROVISIONED"})


@dataclass(frozen=True, slots=True)
class Provisioned:
    credentials: Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """`text` is for people. `is_taken`: a device of this name has credentials, perhaps the proposed ones."""

    text: str
    is_taken: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The request may or may not have been carried out."""

    text: str


Outcome = Provisioned | Refused | Unanswered


def propose(kind: str, *, new_secret: Callable[[int], str]) -> Credentials:
    """Fresh credentials of the configured kind; `new_secret(n)` gives n random letters.

    For X509_CERTIFICATE the certificate itself is made and kept elsewhere.
    """
    if kind == "MQTT_BASIC":
        return Credentials(kind=kind, client_id=new_secret(20), username=new_secret(20), password=new_secret(32))
    if kind == "X509_CERTIFICATE":
        return Credentials(kind=kind)
    return Credentials(kind="ACCESS_TOKEN", token=new_secret(20))


def request_body(provision: Provision, name: str, proposed: Credentials, certificate_pem: str) -> bytes:
    """The JSON of the provision request."""
    body: dict[str, Any] = {
        "deviceName": name,
        "provisionDeviceKey": provision.key,
        "provisionDeviceSecret": provision.secret,
        "gateway": True,
        "credentialsType": proposed.kind,
    }
    if proposed.kind == "ACCESS_TOKEN":
        body["token"] = proposed.token
    elif proposed.kind == "MQTT_BASIC":
        body |= {"clientId": proposed.client_id, "username": proposed.username, "password": proposed.password}
    else:
        body["hash"] = certificate_pem
    return json.dumps(body).encode()


def outcome_of(payload: bytes, proposed: Credentials) -> Outcome:
    """What a provision response says. The core's credentials win over the proposed ones."""
    try:
        answer = json.loads(payload)
    except ValueError:
        return Unanswered("the core's provision response is no JSON")
    if not isinstance(answer, Mapping):
        return Unanswered("the core's provision response is no object")
    if answer.get("status") == "SUCCESS":
        return _success(answer, proposed)
    reason = str(answer.get("reason", ""))[:MAX_TEXT]
    text = str(answer.get("errorMsg") or reason or "no reason given")[:MAX_TEXT]
    after = answer.get("retryAfter")
    words = f" ({reason})" if reason else ""
    if answer.get("ref"):
        words += f"; the core's operator finds more with `cloud-core provisioning explain {answer['ref']}`"
    return Refused(
        text=f"the core refuses to provision this gateway: {text}{words}",
        # ThingsBoard gives no reason; a taken name is the likeliest of its plain failures.
        is_taken=reason in TAKEN or (not reason and answer.get("status") == "FAILURE"),
        retry_after_s=min(float(after), MAX_RETRY_AFTER_S) if isinstance(after, int | float) and after >= 0 else None,
    )


def _success(answer: Mapping[str, Any], proposed: Credentials) -> Outcome:
    kind, value = answer.get("credentialsType", "ACCESS_TOKEN"), answer.get("credentialsValue")
    if kind == "ACCESS_TOKEN" and isinstance(value, str) and value:
        return Provisioned(Credentials(kind=kind, token=value))
    if kind == "MQTT_BASIC" and isinstance(value, Mapping):
        username = value.get("userName") or value.get("username") or ""
        return Provisioned(
            Credentials(
                kind=kind,
                client_id=value.get("clientId") or "",
                username=username,
                password=value.get("password") or "",
            )
        )
    if kind == "MQTT_BASIC" or (kind == "X509_CERTIFICATE" and proposed.kind == kind):
        return Provisioned(proposed)
    return Refused(text=f"the core provisioned this gateway with {kind}, which it cannot use; change its profile")


class ProvisionAttempt:
    """One request on a connection of its own. `done` is called exactly once."""

    def __init__(
        self, *, uplink: Uplink, body: bytes, proposed: Credentials, reactor: Any, done: Callable[[Outcome], None]
    ) -> None:
        self._uplink = uplink
        self._body = body
        self._proposed = proposed
        self._outcome: Outcome = Unanswered("the core did not answer the provision request")
        self._done = done
        self._timeout = reactor.callLater(ANSWER_TIMEOUT_S, uplink.close)

    def start(self) -> None:
        self._uplink.open(self)

    def stop(self) -> None:
        self._uplink.close()

    def connected(self, *, max_packet_bytes: int, receive_maximum: int) -> None:
        self._uplink.subscribe([RESPONSE_TOPIC], lambda _codes: self._uplink.publish(REQUEST_TOPIC, self._body))

    def received(self, topic: str, payload: bytes) -> None:
        if topic == RESPONSE_TOPIC:
            self._outcome = outcome_of(payload, self._proposed)
            self._uplink.close()

    def ended(self, why: Ended, text: str) -> None:
        if self._timeout.active():
            self._timeout.cancel()
        if isinstance(self._outcome, Unanswered) and why is not Ended.CLOSED:
            self._outcome = Unanswered(text)
        self._done(self._outcome)
