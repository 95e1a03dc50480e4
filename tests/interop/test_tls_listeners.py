"""TLS with clients that others wrote: openssl s_client, curl, paho; a server certificate that changes meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from tests.conftest import need
from tests.support.pki import SERVER, Ca, Leaf, Pki
from tests.support.server import PASSWORD, USERNAME, CoreProcess

WAIT_S = 15.0


class SecureCore:
    """A core with a certificate of a root of its own, and a device of a factory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pki = Pki()
        self.root: Ca = pki.root("Server Root")
        self.authority = folder / "root.pem"
        self.authority.write_text(self.root.pem)
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.renew("first")
        self.device: Leaf = pki.root("Factory").intermediate("Plant").intermediate("Line").leaf("sensor-1")
        self.device_files = self.device.write(folder)
        self.core = CoreProcess(
            folder / "data",
            CLOUD_CORE__TLS__CERTIFICATE=str(self.certificate),
            CLOUD_CORE__TLS__PRIVATE_KEY=str(self.key),
            CLOUD_CORE__LIMITS__CONNECT_TIMEOUT_S="2",
        )

    def renew(self, name: str) -> None:
        self.root.leaf(name, dns_names=("localhost",), extended_usage=(SERVER,)).write(self.folder, "server")

    def reload(self) -> None:
        os.kill(self.core.pid, signal.SIGHUP)

    @property
    def log(self) -> str:
        return self.core.log.read_text()

    def wait_for_log(self, words: str) -> str:
        """The first line with these words."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            found = [line for line in self.log.splitlines() if words in line]
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"no line with {words!r} in\n{self.log[-2000:]}")

    def connect(self, port: int, *, is_device: bool = False) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.authority))
        if is_device:
            context.load_cert_chain(*map(str, self.device_files))
        return context.wrap_socket(socket.create_connection(("localhost", port), WAIT_S), server_hostname="localhost")

    def server_name(self, port: int) -> str:
        """The common name that the server's certificate has for a new connection."""
        with self.connect(port) as sock:
            subject: Any = (sock.getpeercert() or {})["subject"]
            return str(subject[0][0][1])

    def s_client(self, port: int, *arguments: str) -> str:
        command = [need("openssl", "openssl"), "s_client", "-connect", f"localhost:{port}", *arguments]
        done = subprocess.run(
            [*command, "-CAfile", str(self.authority)], input=b"", capture_output=True, timeout=WAIT_S, check=False
        )
        return (done.stdout + done.stderr).decode(errors="replace")

    def curl(self, path: str, *arguments: str) -> tuple[int, bytes]:
        command = [need("curl", "curl"), "-s", "-w", "\n%{http_code}", "--cacert", str(self.authority), *arguments]
        url = f"https://localhost:{self.core.https_port}{path}"
        done = subprocess.run([*command, url], capture_output=True, timeout=WAIT_S, check=True)
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureCore]:
    made = SecureCore(tmp_path_factory.mktemp("tls"))
    made.core.start()
    yield made
    assert made.core.stop() == 0


@pytest.fixture
def token(secure: SecureCore) -> str:
    """Of a device that exists."""
    name = f"tls-{time.monotonic_ns()}"
    secure.core.rest.post(f"/api/device?accessToken={name}", {"name": name, "type": "default"})
    return name


# -- openssl --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("port", ["https_port", "mqtts_port"])
def test_openssl_shakes_hands_with_a_client_certificate(secure: SecureCore, version: str, port: str) -> None:
    certificate, key = secure.device_files
    said = secure.s_client(
        getattr(secure.core, port),
        version,
        "-cert",
        str(certificate),
        "-key",
        str(key),
        "-cert_chain",
        str(certificate),
    )
    assert "Verification: OK" in said
    assert "alert" not in said


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_resumes_its_session(secure: SecureCore, tmp_path: Path, version: str) -> None:
    """With a ticket, on both versions."""
    port, kept = secure.core.https_port, str(tmp_path / "session")
    request = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"  # tickets come with the answer
    command = [need("openssl", "openssl"), "s_client", "-connect", f"localhost:{port}", version, "-ign_eof"]
    said = [
        subprocess.run([*command, option, kept], input=request, capture_output=True, timeout=WAIT_S, check=False).stdout
        for option in ("-sess_out", "-sess_in")
    ]
    assert [b"\nReused, TLS" in one for one in said] == [False, True]


def test_openssl_with_an_older_version_is_refused_with_a_line_that_says_so(secure: SecureCore) -> None:
    said = secure.s_client(secure.core.mqtts_port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "protocol version" in said
    assert "update it" in secure.wait_for_log("speaks no TLS 1.2")


def test_the_session_cache_of_clients_without_tickets_costs_nothing(secure: SecureCore) -> None:
    """They shake hands anew each time."""
    said = secure.s_client(secure.core.https_port, "-tls1_2", "-no_ticket", "-reconnect")
    assert said.count("\nNew, TLSv1.2") + said.count("Reused, TLSv1.2") == 6
    assert "Reused" not in said


# -- curl -----------------------------------------------------------------------------------------


def test_curl_sends_telemetry_with_a_token(secure: SecureCore, token: str) -> None:
    assert secure.curl(f"/api/v1/{token}/telemetry", "-d", '{"t":1}') == (200, b"")
    assert secure.core.latest(token) == {"t": 1}


def test_curl_reaches_the_rest_api(secure: SecureCore) -> None:
    """klein takes the connection over from the fast front."""
    status, body = secure.curl("/api/auth/login", "-H", "content-type: application/json", "-d", '{"username":"x"}')
    assert status in (400, 401)
    assert "message" in json.loads(body)


def test_curl_gets_a_large_answer_whole(secure: SecureCore, token: str) -> None:
    """A producer's bytes pass the TLS records."""
    secure.curl(f"/api/v1/{token}/attributes", "-d", json.dumps({f"k{n}": "v" * 500 for n in range(100)}))
    status, body = secure.curl(f"/api/v1/{token}/attributes")
    assert (status, len(json.loads(body)["client"])) == (200, 100)


def test_a_package_goes_in_and_out_whole_while_the_client_dawdles(secure: SecureCore, tmp_path: Path) -> None:
    """Pauses reach through TLS to the file and back."""
    core, data = secure.core, os.urandom(20_000_000)
    core.make_profile("ota-tls")
    profile = core.rest.get("/api/deviceProfiles", pageSize=10, page=0, textSearch="ota-tls")["data"][0]
    body = {"deviceProfileId": profile["id"], "type": "FIRMWARE", "title": "large", "version": "1"}
    info = core.rest.post("/api/otaPackage", body)
    file = tmp_path / "large.bin"
    file.write_bytes(data)
    path = f"/api/otaPackage/{info['id']['id']}"
    allowed = ("-H", f"X-Authorization: Bearer {core.jwt}")
    status, _ = secure.curl(f"{path}?checksumAlgorithm=SHA256", *allowed, "-F", f"file=@{file}")
    assert status == 200
    status, received = secure.curl(f"{path}/download", *allowed, "--limit-rate", "10M")
    assert (status, received == data) == (200, True)


def test_curl_without_token_and_certificate_is_told_what_to_do(secure: SecureCore) -> None:
    status, body = secure.curl("/api/v1/telemetry", "-d", "{}")
    assert (status, "client certificate" in json.loads(body)["message"]) == (401, True)


def test_a_certificate_that_nobody_knows_is_refused_over_http(secure: SecureCore) -> None:
    certificate, key = secure.device_files
    status, _ = secure.curl("/api/v1/telemetry", "-d", "{}", "--cert", str(certificate), "--key", str(key))
    assert status == 401


def test_curl_that_does_not_know_our_ca_is_explained_in_the_log(secure: SecureCore) -> None:
    """Field engineers look there."""
    done = subprocess.run(
        [need("curl", "curl"), "-s", f"https://localhost:{secure.core.https_port}/"], timeout=WAIT_S, check=False
    )
    assert done.returncode == 60
    line = secure.wait_for_log("client refused our certificate (unknown ca)")
    assert "on the https port" in line


# -- paho -----------------------------------------------------------------------------------------


class PahoClient:
    """paho over TLS."""

    def __init__(self, secure: SecureCore, *, is_device: bool = False, version: int = 4, **options: Any) -> None:
        self.code: Any = None
        self.reason = ""
        self.answered = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTProtocolVersion(version))
        certificate, key = secure.device_files if is_device else (None, None)
        self.client.tls_set(str(secure.authority), certificate and str(certificate), key and str(key))
        if options.get("username"):
            self.client.username_pw_set(options["username"])
        self.client.on_connect = self._connected
        self.client.connect("localhost", secure.core.mqtts_port)
        self.client.loop_start()
        assert self.answered.wait(WAIT_S)

    def _connected(self, _client: Any, _data: Any, _flags: Any, code: Any, properties: Any) -> None:
        self.code, self.reason = code, getattr(properties, "ReasonString", "")
        self.answered.set()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.mark.parametrize("version", [4, 5])
def test_paho_publishes_with_a_token(secure: SecureCore, token: str, version: int) -> None:
    client = PahoClient(secure, username=token, version=version)
    assert client.code == 0
    client.client.publish("v1/devices/me/telemetry", b'{"t":2}', 1).wait_for_publish(WAIT_S)
    client.close()
    assert secure.core.latest(token) == {"t": 2}


def test_paho_with_a_certificate_that_nobody_knows_is_refused(secure: SecureCore, token: str) -> None:
    """Also with a token that would do: there is no fall-back."""
    client = PahoClient(secure, is_device=True, username=token, version=5)
    client.close()
    assert client.code.value == 0x87


def test_paho_may_provision_with_any_certificate(secure: SecureCore) -> None:
    """The user name `provision` comes first."""
    client = PahoClient(secure, is_device=True, username="provision")
    client.close()
    assert client.code == 0


# -- what changes, and what goes wrong ------------------------------------------------------------


def test_new_connections_see_a_new_certificate_and_open_sessions_stay(secure: SecureCore, token: str) -> None:
    """By SIGHUP, on both ports (X3)."""
    client = PahoClient(secure, username=token)
    before = secure.server_name(secure.core.mqtts_port)
    secure.renew("renewed")
    secure.reload()
    secure.wait_for_log("CN=renewed")
    names = {secure.server_name(port) for port in (secure.core.mqtts_port, secure.core.https_port)}
    client.client.publish("v1/devices/me/telemetry", b'{"t":3}', 1).wait_for_publish(WAIT_S)
    assert (before, names, client.client.is_connected()) == ("first", {"renewed"}, True)
    client.close()


def test_new_files_are_found_without_a_signal(secure: SecureCore) -> None:
    """Within seconds."""
    secure.renew("found")
    secure.wait_for_log("CN=found")
    assert secure.server_name(secure.core.https_port) == "found"


def test_files_that_do_not_fit_leave_the_old_ones_in_use(secure: SecureCore) -> None:
    """One line says what is wrong."""
    before, key = secure.server_name(secure.core.https_port), secure.key.read_bytes()
    secure.key.write_text(secure.device.key_pem)
    secure.reload()
    secure.wait_for_log("The new server certificate is not taken")
    assert secure.server_name(secure.core.https_port) == before
    secure.key.write_bytes(key)


def test_a_handshake_alone_leaves_nothing_behind(secure: SecureCore) -> None:
    """No device, and nothing in the provisioning log."""
    before = _devices_and_attempts(secure)
    for port in (secure.core.mqtts_port, secure.core.https_port):
        secure.connect(port, is_device=True).close()
    assert _devices_and_attempts(secure) == before


def _devices_and_attempts(secure: SecureCore) -> tuple[Any, Any]:
    rest = secure.core.rest
    devices = rest.get("/api/tenant/devices", pageSize=100, page=0)["totalElements"]
    return devices, rest.get("/api/provisioning/attempts", limit=100)


@pytest.mark.parametrize("port", ["https_port", "mqtts_port"])
def test_a_handshake_that_never_ends_is_cut_in_time(secure: SecureCore, port: str) -> None:
    """Also one of which not a byte comes."""
    for start in (b"", b"\x16\x03\x01\x01"):
        with socket.create_connection(("localhost", getattr(secure.core, port)), WAIT_S) as sock:
            sock.sendall(start)
            with pytest.raises((ConnectionResetError, EOFError)):
                if not sock.recv(1):
                    raise EOFError


def test_plain_text_on_a_tls_port_ends_at_once_with_the_fix_in_the_log(secure: SecureCore) -> None:
    with socket.create_connection(("localhost", secure.core.mqtts_port), WAIT_S) as sock:
        sock.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
        assert sock.recv(10) == b""
    assert "have it use TLS (mqtts)" in secure.wait_for_log("it speaks MQTT without TLS")
    with socket.create_connection(("localhost", secure.core.https_port), WAIT_S) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert sock.recv(10) == b""
    assert "https://" in secure.wait_for_log("it speaks HTTP without TLS")


def test_tls_on_a_plain_port_ends_at_once_with_the_fix_in_the_log(secure: SecureCore) -> None:
    for port, words in ((secure.core.mqtt_port, "(mqtts)"), (secure.core.http_port, "HTTPS port")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            secure.connect(port)
        assert "TLS" in secure.wait_for_log(words)


# -- start ----------------------------------------------------------------------------------------


def test_tls_for_development_needs_nothing(tmp_path: Path) -> None:
    """One line of the log says what clients have to trust."""
    core = CoreProcess(tmp_path / "data", CLOUD_CORE__TLS__DEVELOPMENT="true").start()
    try:
        authority = tmp_path / "data" / "dev-tls" / "ca.pem"
        assert f"have clients trust {authority}" in core.log.read_text()
        context = ssl.create_default_context(cafile=str(authority))
        for host in ("localhost", "127.0.0.1"):
            plain = socket.create_connection((host, core.https_port), WAIT_S)
            context.wrap_socket(plain, server_hostname=host).close()
    finally:
        assert core.stop() == 0


def test_a_certificate_that_cannot_be_used_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    core = CoreProcess(
        tmp_path / "data",
        CLOUD_CORE__TLS__CERTIFICATE=str(tmp_path / "none.pem"),
        CLOUD_CORE__TLS__PRIVATE_KEY=str(tmp_path / "none.key"),
    )
    with pytest.raises(AssertionError, match=r"Cannot read .*none\.pem: No such file or directory"):
        core.start()


def test_a_hang_up_without_tls_ends_nothing(tmp_path: Path) -> None:
    """Who sends it after each renewal of certificates need not know who serves TLS."""
    core = CoreProcess(tmp_path / "plain").start()
    try:
        os.kill(core.pid, signal.SIGHUP)
        assert core.rest.login(USERNAME, PASSWORD)
    finally:
        assert core.stop() == 0
