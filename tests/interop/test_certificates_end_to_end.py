"""Devices that come with a certificate, from first contact to stored telemetry, by stock clients over real sockets."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import requests
from paho.mqtt.properties import Properties

from shared.certificates import fingerprint
from tests.conftest import need
from tests.support.pki import SERVER, Ca, Holder, Pki
from tests.support.server import CoreProcess

WAIT_S = 20.0
numbers = iter(range(10**6))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    process = CoreProcess(tmp_path_factory.mktemp("secure") / "data", is_tls=True).start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki()


@pytest.fixture(scope="module")
def factory(pki: Pki, secure: CoreProcess) -> Ca:
    """A production line's CA below the factory's root, whose devices one profile admits."""
    line = pki.root("Factory").intermediate("Line 1", path_length=0)
    admit(secure, "factory", line.chain[0], r"(.*)\.factory\.example")
    return line


def admit(core: CoreProcess, name: str, ca: Ca, pattern: str, *, creates: bool = True, **options: Any) -> None:
    """A profile that admits by this CA."""
    core.make_profile(
        name, "X509_CERTIFICATE_CHAIN", provisionDeviceSecret=ca.pem, certificateRegExPattern=pattern,
        allowCreateNewDevicesByX509Certificate=creates, **options,
    )  # fmt: skip


def context_with(core: CoreProcess, certificate: Path, key: Path) -> ssl.SSLContext:
    """A client that trusts the core, and would show any certificate, however weak."""
    context = ssl.create_default_context(cafile=str(core.ca_file))
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.load_cert_chain(str(certificate), str(key))
    return context


# -- one telemetry message with a client certificate, over each transport ---------------------------


def over_mqtt(core: CoreProcess, certificate: Path, key: Path, values: dict[str, Any]) -> str:
    """Empty when it was taken, else why not."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.tls_set_context(context_with(core, certificate, key))
    answered = threading.Event()
    refusal: list[str] = []

    def connected(_client: Any, _data: Any, _flags: Any, code: Any, properties: Properties | None) -> None:
        if code != 0:
            refusal.append(f"{code.value:#x} {getattr(properties, 'ReasonString', '')}")
        answered.set()

    client.on_connect = connected
    client.connect("127.0.0.1", core.mqtts_port)
    client.loop_start()
    try:
        assert answered.wait(WAIT_S), "no CONNACK"
        if not refusal:
            message = client.publish("v1/devices/me/telemetry", json.dumps(values), 1)
            message.wait_for_publish(WAIT_S)
            assert message.is_published()
        return "".join(refusal)
    finally:
        client.disconnect()
        client.loop_stop()


_LENIENT = """openssl_conf = all
[all]
ssl_conf = modules
[modules]
system_default = lenient
[lenient]
CipherString = DEFAULT@SECLEVEL=0
"""


def over_https(core: CoreProcess, certificate: Path, key: Path, values: dict[str, Any]) -> str:
    need("curl", "curl")
    lenient = certificate.with_suffix(".cnf")
    lenient.write_text(_LENIENT)  # else curl would not load a weak certificate
    done = subprocess.run(
        [
            "curl", "-sS", "--cacert", str(core.ca_file), "--cert", str(certificate), "--key", str(key), "-d",
            json.dumps(values), "-w", "\n%{http_code}", f"{core.https}/api/v1/telemetry",
        ],
        capture_output=True, text=True, timeout=WAIT_S, check=True, env=os.environ | {"OPENSSL_CONF": str(lenient)},
    )  # fmt: skip
    body, _, code = done.stdout.rpartition("\n")
    return "" if code == "200" else f"{code} {body}"


def over_coaps(core: CoreProcess, certificate: Path, key: Path, values: dict[str, Any]) -> str:
    need("coap-client-gnutls", "libcoap3-bin")
    done = subprocess.run(
        [
            "coap-client-gnutls", "-m", "post", "-B", "10", "-v", "6", "-C", str(core.ca_file), "-c", str(certificate),
            "-j", str(key), "-e", json.dumps(values), f"coaps://127.0.0.1:{core.coaps_port}/api/v1/telemetry",
        ],
        capture_output=True, text=True, timeout=WAIT_S, check=False,
    )  # fmt: skip
    text = done.stdout + done.stderr
    return "" if "2.01" in text else text


Send = Callable[[CoreProcess, Path, Path, dict[str, Any]], str]
each_transport = pytest.mark.parametrize("send", [over_mqtt, over_https, over_coaps])


def attempts(core: CoreProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = core.rest.get("/api/provisioning/attempts")
    return found


def attempt_about(core: CoreProcess, device: Holder) -> dict[str, Any]:
    """The line of the log that names this certificate; it is written behind the answer."""
    serial = f"{device.certificate.serial_number:x}"
    ends = time.monotonic() + WAIT_S
    while time.monotonic() < ends:
        found = [one for one in attempts(core) if one["request"].get("serial") == serial]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("the log says nothing of this certificate")


@each_transport
@pytest.mark.parametrize("shown", ["leaf alone", "whole chain"])
def test_a_factory_certificate_is_all_a_device_needs(
    secure: CoreProcess, factory: Ca, tmp_path: Path, send: Send, shown: str
) -> None:
    """It is created under the name in its certificate, logged in, and its telemetry is stored (X2, X4)."""
    if shown == "leaf alone":
        need_line = factory.chain[0]  # the profile knows the root only, so the line must be shown or signed by the root
        device = need_line.leaf(f"one-{next(numbers)}.factory.example")
    else:
        device = factory.leaf(f"one-{next(numbers)}.factory.example")
    name = device.certificate.subject.rfc4514_string().removeprefix("CN=").removesuffix(".factory.example")
    files = device.write(tmp_path)
    assert send(secure, *files, {"temperature": 21.5}) == ""
    assert secure.latest(name) == {"temperature": 21.5}
    assert secure.device(name)["type"] == "factory"
    assert send(secure, *files, {"temperature": 22.5}) == ""
    made = [one for one in attempts(secure) if one["deviceName"] == name]
    assert [one["outcome"] for one in made] == ["SUCCESS"], "only the first time is an attempt"


@each_transport
def test_a_registered_certificate_logs_in(secure: CoreProcess, pki: Pki, tmp_path: Path, send: Send) -> None:
    """Self-signed, put in by an operator; no CA is asked for."""
    name = f"pinned-{next(numbers)}"
    device = pki.self_signed(name)
    secure.rest.post(
        "/api/device-with-credentials",
        {
            "device": {"name": name, "type": "default"},
            "credentials": {"credentialsType": "X509_CERTIFICATE", "credentialsValue": device.pem},
        },
    )
    assert send(secure, *device.write(tmp_path), {"a": 1}) == ""
    assert secure.latest(name) == {"a": 1}


@each_transport
def test_a_fingerprint_is_enough(secure: CoreProcess, pki: Pki, tmp_path: Path, send: Send) -> None:
    """As the specification sends it in `hash`: SHA-256 of the certificate, here with colons."""
    name = f"print-{next(numbers)}"
    device = pki.self_signed(name)
    profile = secure.make_profile(f"prints-{name}")
    digest = fingerprint(device.der)
    request = profile | {"deviceName": name, "credentialsType": "X509_CERTIFICATE", "hash": digest.hex(":").upper()}
    answer = requests.post(f"{secure.http}/api/v1/provision", json=request, timeout=WAIT_S).json()
    assert answer["status"] == "SUCCESS"
    assert send(secure, *device.write(tmp_path), {"a": 1}) == ""
    assert secure.latest(name) == {"a": 1}


def _bad(pki: Pki, factory: Ca, name: str, why: str) -> Holder:
    """A device whose chain is bad in one way."""
    day, root = timedelta(days=1), factory.chain[0]
    common_name = f"{name}.factory.example"
    impostor = pki.root("Factory")
    match why:
        case "expired":
            return factory.leaf(common_name, not_after=pki.now - day)
        case "not yet valid":
            return factory.leaf(common_name, not_before=pki.now + day)
        case "expired issuer":
            return root.intermediate("Old line", not_after=pki.now - day).leaf(common_name)
        case "CA flag missing":
            return root.intermediate("No CA", is_ca=False).leaf(common_name)
        case "path length exceeded":
            return factory.intermediate("Below line 1").leaf(common_name)
        case "wrong usage":
            return factory.leaf(common_name, extended_usage=[SERVER])
        case "leaf signing a leaf":
            return factory.leaf("sibling.factory.example").leaf(common_name)
        case "self-signed":
            return pki.self_signed(common_name)
        case "another CA with the same name":
            return impostor.leaf(common_name)
        case "cross-signed by a stranger":
            return pki.root("Stranger").cross_sign(pki.root("Line 9")).leaf(common_name)
        case "weak key":
            return factory.leaf(common_name, key="rsa1024")
        case "SHA-1":
            return factory.leaf(common_name, hash="sha1")
        case _:
            return pki.chain_of_length(12).issuer.leaf(common_name)  # type: ignore[union-attr]


BAD = {
    "expired": "EXPIRED", "not yet valid": "NOT_YET_VALID", "expired issuer": "EXPIRED", "CA flag missing": "NOT_A_CA",
    "path length exceeded": "PATH_TOO_LONG", "wrong usage": "WRONG_USAGE", "leaf signing a leaf": "NOT_A_CA",
    "self-signed": "SELF_SIGNED", "another CA with the same name": "UNKNOWN_ISSUER",
    "cross-signed by a stranger": "UNKNOWN_ISSUER", "weak key": "WEAK_KEY", "SHA-1": "WEAK_SIGNATURE",
    "giant chain": "CHAIN_TOO_LONG",
}  # fmt: skip


@each_transport
@pytest.mark.parametrize("why", BAD)
def test_a_bad_chain_is_refused_and_explained(
    secure: CoreProcess, pki: Pki, factory: Ca, tmp_path: Path, send: Send, why: str
) -> None:
    """No device, and a line in the provisioning log that names the fault and the fix."""
    name = f"bad-{next(numbers)}"
    device = _bad(pki, factory, name, why)
    refusal = send(secure, *device.write(tmp_path), {"a": 1})
    assert refusal != ""
    line = attempt_about(secure, device)
    assert (line["outcome"], line["stage"]) == ("UNTRUSTED_CERTIFICATE", BAD[why]), line
    assert line["ref"] and line["detail"] and line["fix"]
    with pytest.raises(Exception, match="404"):
        secure.device(name)
