"""The CA by command line against a running core, and what OpenSSL makes of its certificates and lists."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cloud_core.__main__ import main
from shared import certificates
from tests.conftest import need
from tests.support.pki import Pki
from tests.support.server import CoreProcess

PUBLIC_URL = "http://core.example:8080"
ROOT = Pki().root("Company")


@pytest.fixture(scope="module")
def ca_core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    """A core of these tests alone: CAs are for all profiles."""
    process = CoreProcess(tmp_path_factory.mktemp("ca") / "data", CLOUD_CORE__CA__PUBLIC_URL=PUBLIC_URL).start()
    yield process
    process.stop()


class Shell:
    """Commands in a folder of their own, logged in."""

    def __init__(self, core: CoreProcess) -> None:
        self.environment = {"CLOUD_CORE_URL": core.http, "CLOUD_CORE_TOKEN": core.jwt, "COLUMNS": "200"}

    def run(self, *arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(main, list(arguments), env=self.environment | environment)

    def out(self, *arguments: str, **environment: str) -> str:
        result = self.run(*arguments, **environment)
        assert result.exit_code == 0, result.output
        return result.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.out(*arguments, "--json"))


@pytest.fixture
def shell(ca_core: CoreProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(ca_core)


def openssl(*arguments: str, is_good: bool = True) -> str:
    done = subprocess.run(
        [need("openssl", "openssl"), *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode == 0) is is_good, done.stderr + done.stdout
    return done.stdout + done.stderr


def made(shell: Shell, name: str, *options: str) -> Path:
    """The file of a new CA's certificate."""
    shell.out("ca", "init", name, *options)
    return Path(f"{name}-ca.pem")


def revoked_by(shell: Shell, name: str) -> Path:
    shell.out("ca", "crl", name, "--out", "list.pem")
    return Path("list.pem")


def test_openssl_verifies_what_the_ca_issues(shell: Shell) -> None:
    """A chain for a TLS client; extensions as RFC 5280 wants them."""
    root = made(shell, "one")
    assert "Issued to 'SN-1' by the CA 'one'" in shell.out("ca", "issue", "SN-1", "--out", ".", "--ca", "one")
    openssl("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", str(root), "SN-1.pem")
    openssl("verify", "-purpose", "sslserver", "-CAfile", str(root), "SN-1.pem", is_good=False)
    text = openssl("x509", "-in", "SN-1.pem", "-noout", "-text")
    for expected in (
        "Subject: CN = SN-1", "Issuer: CN = one", "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Key Usage: critical\n                Digital Signature\n", "TLS Web Client Authentication",
        f"URI:{PUBLIC_URL}/api/ca/", "X509v3 Authority Key Identifier", "ASN1 OID: prime256v1",
        "ecdsa-with-SHA256",
    ):  # fmt: skip
        assert expected in text
    text = openssl("x509", "-in", str(root), "-noout", "-text")
    assert "CA:TRUE, pathlen:0" in text and "Certificate Sign, CRL Sign" in text
    shown = openssl("x509", "-in", str(root), "-noout", "-fingerprint", "-sha256").strip().partition("=")[2]
    fingerprints = {one["name"]: one["fingerprint"] for one in shell.json("ca", "list")}
    assert fingerprints["one"] == shown.replace(":", "").lower()


def test_the_key_is_made_here_and_is_for_nobody_else(shell: Shell) -> None:
    """Mode 0600; it fits the certificate; nothing is overwritten."""
    made(shell, "two", "--key-type", "P-384")
    issued = shell.json("ca", "issue", "SN-2", "--out", ".", "--ca", "two", "--days", "5", "--key-type", "P-384")
    assert Path("SN-2.key").stat().st_mode & 0o777 == 0o600
    public = openssl("pkey", "-in", "SN-2.key", "-pubout")
    assert openssl("x509", "-in", "SN-2.pem", "-noout", "-pubkey") == public
    assert (issued["keyFile"], issued["certificateFile"]) == ("SN-2.key", "SN-2.pem")
    before = Path("SN-2.key").read_bytes()
    again = shell.run("ca", "issue", "SN-2", "--out", ".", "--ca", "two")
    assert (again.exit_code, "exists already" in again.output) == (7, True)
    assert Path("SN-2.key").read_bytes() == before


def test_openssl_refuses_what_is_revoked(shell: Shell) -> None:
    """By the list in PEM; another certificate of the CA stays good; the overview says it."""
    root = str(made(shell, "three"))
    for name in ("SN-3", "SN-4"):
        shell.out("ca", "issue", name, "--out", ".", "--ca", "three")
    listed = ("verify", "-crl_check", "-CAfile", root, "-CRLfile")
    openssl(*listed, str(revoked_by(shell, "three")), "SN-3.pem")
    serial = openssl("x509", "-in", "SN-3.pem", "-noout", "-serial").strip().removeprefix("serial=")
    assert "keyCompromise" in shell.out("ca", "revoke", "--serial", serial, "--reason", "keyCompromise")
    file = str(revoked_by(shell, "three"))
    assert "certificate revoked" in openssl(*listed, file, "SN-3.pem", is_good=False)
    openssl(*listed, file, "SN-4.pem")
    text = openssl("crl", "-in", file, "-noout", "-text", "-CAfile", root)
    assert "verify OK" in text and "Key Compromise" in text and "X509v3 CRL Number" in text and serial in text
    rows = [line for line in shell.out("certificates", "--search", "SN-3").splitlines() if "CN=SN-3" in line]
    assert "revoked: keyCompromise" in rows[0]


@pytest.fixture
def fresh_core(tmp_path: Path) -> Iterator[CoreProcess]:
    """With the one CA that signs for every profile."""
    process = CoreProcess(tmp_path / "data").start()
    yield process
    process.stop()


def test_a_request_of_openssl_becomes_a_certificate(
    fresh_core: CoreProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device's way with stock tools: key, request, POST; the chain verifies."""
    monkeypatch.chdir(tmp_path)
    root = str(made(Shell(fresh_core), "four"))
    profile = fresh_core.make_profile("four")
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=SN-5",
            "-keyout", "device.key", "-out", "device.csr")  # fmt: skip
    body = {"deviceName": "SN-5", "credentialsType": "X509_CSR", "csr": Path("device.csr").read_text(), **profile}
    Path("body.json").write_text(json.dumps(body))
    done = subprocess.run(
        [need("curl", "curl"), "-sS", "-d", "@body.json", f"{fresh_core.http}/api/v1/provision"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["status"] == "SUCCESS", answer
    Path("device.pem").write_text(answer["certificateChain"])
    openssl("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", root, "device.pem")


@pytest.mark.parametrize("passphrase", ["", "secret"])
def test_a_ca_of_openssl_is_taken_over(shell: Shell, passphrase: str) -> None:
    """With an encrypted key too, which is decrypted on this machine."""
    name = f"taken{len(passphrase)}"
    protection = ("-passout", f"pass:{passphrase}") if passphrase else ("-nodes",)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={name}",
            "-days", "30", "-keyout", "ca.key", "-out", "ca.pem", *protection)  # fmt: skip
    arguments = ("ca", "import", name, "--chain", "ca.pem", "--key", "ca.key")
    remote = shell.run(*arguments, CLOUD_CORE_URL="http://192.0.2.1", CLOUD_CORE_CA_PASSPHRASE=passphrase)
    assert (remote.exit_code, "unencrypted" in remote.output) == (2, True)
    if passphrase:
        wrong = shell.run(*arguments, CLOUD_CORE_CA_PASSPHRASE="wrong")
        assert (wrong.exit_code, "does not open" in wrong.output) == (7, True)
    assert f"Took over the CA '{name}'" in shell.out(*arguments, CLOUD_CORE_CA_PASSPHRASE=passphrase)
    shell.out("ca", "issue", "SN-6", "--out", ".", "--ca", name)
    openssl("verify", "-CAfile", "ca.pem", "SN-6.pem")


def test_profiles_take_a_ca_by_name_or_file(shell: Shell, ca_core: CoreProcess) -> None:
    """The core's own CA, or anybody's; with the rules of names and of making devices."""
    made(shell, "five")
    Path("company.pem").write_text(ROOT.pem)
    options = ("--strategy", "X509_CERTIFICATE_CHAIN", "--name-pattern", "(SN-.*)", "--create-devices")
    assert "'five'" in shell.out("profile", "create", "by-name", *options, "--ca", "five")
    shown = shell.json("profile", "create", "by-file", *options, "--ca", "company.pem", "--reveal")
    configuration = shown["profileData"]["provisionConfiguration"]
    assert certificates.load_all(configuration["provisionDeviceSecret"]) == [ROOT.certificate]
    assert configuration["certificateRegExPattern"] == "(SN-.*)"
    assert configuration["allowCreateNewDevicesByX509Certificate"] is True
    for wrong in (("--ca", "five"), options):
        assert shell.run("profile", "create", "wrong", *wrong).exit_code == 2
    shell.out("profile", "create", "csr", "--certificate-authority", "five", "--certificate-days", "10")


def test_a_dry_run_changes_nothing(shell: Shell, ca_core: CoreProcess) -> None:
    """Neither here nor at the core."""
    made(shell, "six")
    before = ca_core.rest.get("/api/ca"), ca_core.rest.get("/api/certificates")["totalElements"]
    Path("root.pem").write_text(ROOT.pem)
    Path("root.key").write_text(ROOT.key_pem)
    for arguments in (
        ("init", "seven"), ("issue", "SN-7", "--out", ".", "--ca", "six"), ("revoke", "--device", "SN-7"),
        ("import", "eight", "--chain", "root.pem", "--key", "root.key"),
    ):  # fmt: skip
        assert shell.out("ca", *arguments, "--dry-run").startswith("Would ")
    assert (ca_core.rest.get("/api/ca"), ca_core.rest.get("/api/certificates")["totalElements"]) == before
    assert sorted(file.name for file in Path().iterdir()) == ["root.key", "root.pem", "six-ca.pem"]


def test_what_goes_wrong_has_an_exit_code_by_cause(shell: Shell) -> None:
    """2 usage, 4 refused, 5 no answer, 6 not logged in, 7 files, 8 not there; a refused issue leaves no key behind."""
    made(shell, "nine")
    for code, arguments, environment in (
        (2, ("ca", "revoke"), {}),
        (2, ("ca", "revoke", "--device", "a", "--serial", "1"), {}),
        (8, ("ca", "revoke", "--device", "nobody"), {}),
        (8, ("ca", "issue", "x", "--out", ".", "--ca", "nobody"), {}),
        (4, ("ca", "init", "nine", "--out", "other.pem"), {}),
        (8, ("ca", "crl", "nobody"), {}),
        (5, ("ca", "list"), {"CLOUD_CORE_URL": "http://127.0.0.1:1"}),
        (6, ("certificates",), {"CLOUD_CORE_TOKEN": "", "XDG_CONFIG_HOME": "/nowhere"}),
        (7, ("ca", "init", "ten", "--out", "nowhere/ca.pem"), {}),
        (7, ("ca", "import", "x", "--chain", "missing.pem", "--key", "missing.key"), {}),
    ):
        result = shell.run(*arguments, **environment)
        assert result.exit_code == code, (arguments, result.output)
        assert result.output.count("\n") <= 4
    assert not Path("x.key").exists()


def test_every_command_has_help(shell: Shell) -> None:
    """Worth reading: what it does, in a sentence, and its options."""
    for command in ("init", "import", "list", "issue", "revoke", "crl"):
        assert len(shell.out("ca", command, "--help")) > 200
    assert "mosquitto_pub" in shell.out("ca", "--help")


def test_the_overview_shows_the_next_to_end_first(shell: Shell) -> None:
    """Devices, CAs and profiles in one table; in JSON apart."""
    made(shell, "eleven", "--years", "1")
    lines = shell.out("certificates", "--limit", "1000").splitlines()
    assert lines[0].split()[:3] == ["ENDS", "KIND", "NAME"]
    ends = [line.split()[0] for line in lines[1:] if line[:2] == "20"]
    assert ends == sorted(ends) and any("AUTHORITY" in line and "eleven" in line for line in lines)
    assert {"data", "others"} <= set(shell.json("certificates", "--within", "30"))
