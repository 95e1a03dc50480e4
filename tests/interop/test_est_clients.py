"""Stock clients and our own CA over TLS: EST with curl, MQTT with mosquitto's client, EST over CoAP with libcoap's."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud_core.__main__ import main
from shared import certificates
from tests.conftest import need
from tests.support.authorities import from_pkcs7
from tests.support.server import CoreProcess


@pytest.fixture(scope="module")
def tls_core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    process = CoreProcess(tmp_path_factory.mktemp("est") / "data", CLOUD_CORE__TLS__DEVELOPMENT="true").start()
    process.rest.post("/api/ca", {"name": "plant"})
    yield process
    process.stop()


class Device:
    """Files in a folder of its own, and stock tools."""

    def __init__(self, core: CoreProcess) -> None:
        self.core = core
        self.trusted = str(core.data_dir / "dev-tls" / "ca.pem")

    def run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def make_request(self, name: str, key: str) -> None:
        """`key`.key and `key`.csr, the latter in base64 of DER as EST wants it."""
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{key}.key")
        form = ("-outform", "DER", "-out", "csr.der")
        self.run(need("openssl", "openssl"), "req", "-new", *curve, "-subj", f"/CN={name}", *form)
        Path(f"{key}.csr").write_bytes(base64.encodebytes(Path("csr.der").read_bytes()))

    def est(self, path: str, *options: str) -> list[x509.Certificate]:
        url = f"https://127.0.0.1:{self.core.https_port}/.well-known/est/{path}"  # type: ignore[attr-defined, unused-ignore]
        answer = self.run(need("curl", "curl"), "-sS", "-f", "--cacert", self.trusted, *options, url)
        return from_pkcs7(base64.b64decode(answer))

    def enrol(self, path: str, key: str, *options: str) -> x509.Certificate:
        """The certificate of the answer, which is kept as `key`.pem."""
        headers = ("-H", "Content-Type: application/pkcs10", "-H", "Content-Transfer-Encoding: base64")
        (leaf,) = self.est(path, *headers, "--data-binary", f"@{key}.csr", *options)
        Path(f"{key}.pem").write_text(certificates.pem(leaf))
        return leaf

    def publish(self, key: str) -> None:
        """Telemetry by certificate, acknowledged."""
        self.run(need("mosquitto_pub", "mosquitto-clients"), "-h", "127.0.0.1", "-p", str(self.core.mqtts_port),  # type: ignore[attr-defined, unused-ignore]
                 "--cafile", self.trusted, "--cert", f"{key}.pem", "--key", f"{key}.key", "-i", "d", "-q", "1",
                 "-V", "5", "-t", "v1/devices/me/telemetry", "-m", json.dumps({"by": key}))  # fmt: skip


@pytest.fixture
def device(tls_core: CoreProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.chdir(tmp_path)
    return Device(tls_core)


def test_curl_enrols_renews_and_logs_in_with_both(device: Device, tls_core: CoreProcess) -> None:
    """cacerts, simpleenroll by key and secret, simplereenroll by certificate; the former one stays good for a while."""
    profile = tls_core.make_profile("est")
    (authority,) = device.est("cacerts")
    device.make_request("SN-1", "old")
    secret = f"{profile['provisionDeviceKey']}:{profile['provisionDeviceSecret']}"
    leaf = device.enrol("est/simpleenroll", "old", "-u", secret)
    leaf.verify_directly_issued_by(authority)
    device.publish("old")
    assert tls_core.latest("SN-1") == {"by": "old"}
    device.make_request("SN-1", "new")
    renewed = device.enrol("simplereenroll", "new", "--cert", "old.pem", "--key", "old.key")
    assert certificates.common_name(renewed) == "SN-1" and renewed != leaf
    for key in ("new", "old"):
        device.publish(key)
        assert tls_core.latest("SN-1") == {"by": key}


def test_a_revoked_device_is_shut_out_everywhere(device: Device, tls_core: CoreProcess) -> None:
    """By the command line of the readme: CA, profile, certificate, login, end."""
    shell = {"CLOUD_CORE_URL": tls_core.http, "CLOUD_CORE_TOKEN": tls_core.jwt}

    def run(*arguments: str) -> None:
        result = CliRunner().invoke(main, list(arguments), env=shell)
        assert result.exit_code == 0, result.output

    run("profile", "create", "meters", "--strategy", "X509_CERTIFICATE_CHAIN", "--ca", "plant", "--name-pattern",
        "(M-.*)", "--create-devices")  # fmt: skip
    run("ca", "issue", "M-1", "--out", ".", "--ca", "plant")
    device.publish("M-1")
    assert tls_core.latest("M-1") == {"by": "M-1"}
    run("ca", "revoke", "--device", "M-1", "--reason", "keyCompromise")
    with pytest.raises(AssertionError):
        device.publish("M-1")
    device.make_request("M-1", "next")
    with pytest.raises(AssertionError, match="401"):
        device.enrol("simplereenroll", "next", "--cert", "M-1.pem", "--key", "M-1.key")


def test_libcoap_renews_over_dtls(device: Device, tls_core: CoreProcess) -> None:
    """/sren in binary, by the certificate of the session; the answer is larger than one message may be or not."""
    CliRunner().invoke(main, ["ca", "issue", "C-1", "--out", ".", "--ca", "plant"],
                       env={"CLOUD_CORE_URL": tls_core.http, "CLOUD_CORE_TOKEN": tls_core.jwt})  # fmt: skip
    tls_core.rest.post("/api/deviceProfile", {
        "name": "coaps", "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": "X509_CERTIFICATE_CHAIN",
        "profileData": {"configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"},
                        "provisionConfiguration": {
                            "type": "X509_CERTIFICATE_CHAIN", "certificateRegExPattern": "(C-.*)",
                            "allowCreateNewDevicesByX509Certificate": True, "certificateAuthority": "plant",
                            "provisionDeviceSecret": tls_core.rest.get("/api/ca/plant")["certificateChain"]}},
    })  # fmt: skip
    device.make_request("C-1", "next")
    url = f"coaps://127.0.0.1:{tls_core.coaps_port}/.well-known/est/sren"  # type: ignore[attr-defined, unused-ignore]
    client = need("coap-client-openssl", "libcoap3-bin")
    device.run(client, "-c", "C-1.pem", "-j", "C-1.key", "-R", device.trusted, "-m", "post", "-t", "286", "-A", "287",
               "-f", "csr.der", "-o", "next.der", "-B", "15", url)  # fmt: skip
    leaf = x509.load_der_x509_certificate(Path("next.der").read_bytes())
    Path("next.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    assert certificates.common_name(leaf) == "C-1"
    device.publish("next")
