"""The commands and programs that the pages show, run as they stand by the tools they name, against a real core."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
import requests

from tests.conftest import need
from tests.support.pki import Pki
from tests.support.server import PASSWORD, USERNAME, CoreProcess

WAIT_S = 30.0
TOOLS = {
    "curl": (("curl", "curl"),),
    "mosquitto": (("mosquitto_rr", "mosquitto-clients"), ("mosquitto_pub", "mosquitto-clients")),
    "coap": (("coap-client-notls", "libcoap3-bin"), ("coap-client-openssl", "libcoap3-bin")),
    "python-http": (),
    "python-mqtt": (),
}  # fmt: skip
CHAIN_WAYS = ("curl", "mosquitto", "coap", "python-mqtt")


class Pages:
    """A person with a browser, at the pages of a core."""

    def __init__(self, core: CoreProcess) -> None:
        self.core = core
        self._session = requests.Session()
        self._send("/ui/login", username=USERNAME, password=PASSWORD, next="")

    def _send(self, path: str, **fields: str) -> requests.Response:
        return self._session.post(self.core.http + path, data=fields, timeout=WAIT_S)

    def send(self, path: str, **fields: str) -> requests.Response:
        """A form; follows where it leads."""
        account = self._session.get(f"{self.core.http}/ui/account", timeout=WAIT_S).text
        found = re.search(r'name="form_token" value="(\w+)"', account)
        assert found is not None
        answer = self._send(path, form_token=found[1], **fields)
        assert answer.status_code == 200, answer.text
        return answer

    def make_profile(self, **fields: str) -> str:
        """The path of its pages."""
        made = self.send("/ui/profiles/new", go="create", **fields)
        return re.sub(r"/connect$", "", made.url.removeprefix(self.core.http))

    def snippets(self, profile: str, **query: str) -> list[str]:
        shown = self._session.get(f"{self.core.http}{profile}/connect", params=query, timeout=WAIT_S)
        return _snippets(shown.text)

    def snippets_with_secret(self, profile: str, **fields: str) -> list[str]:
        return _snippets(self.send(f"{profile}/connect/reveal", **fields).text)


def _snippets(html: str) -> list[str]:
    return [unescape(one) for one in re.findall(r"<pre [^>]*>(.*?)</pre>", html, re.S)]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    process = CoreProcess(tmp_path_factory.mktemp("snippets") / "data", is_tls=True).start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def pages(core: CoreProcess) -> Pages:
    return Pages(core)


@pytest.fixture(scope="module")
def profile(pages: Pages) -> str:
    return pages.make_profile(name="meter")


def run(folder: Path, *texts: str, program: str = "sh") -> str:
    """One shell, or one program, for all of them; what it prints."""
    file = folder / "snippet"
    file.write_text("\n".join(texts))
    done = subprocess.run([program, str(file)], cwd=folder, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, f"{texts}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def interpreter(way: str) -> str:
    return sys.executable if way.startswith("python") else "sh"


@pytest.mark.parametrize("tls", ["no", "yes"])
@pytest.mark.parametrize("way", TOOLS)
def test_a_new_device_comes_in_and_sends(
    core: CoreProcess, pages: Pages, profile: str, tmp_path: Path, way: str, tls: str
) -> None:
    """By each tool, with TLS and without: provisioned, then its telemetry is stored."""
    for program, package in TOOLS[way]:
        need(program, package)
    shutil.copy(core.ca_file, tmp_path / "ca.pem")
    name = f"it's {way} {tls}"
    texts = pages.snippets_with_secret(profile, way=way, tls=tls, name=name)
    assert run(tmp_path, *texts[:2], program=interpreter(way)).strip().endswith("sent")
    assert core.latest(name) == {"temperature": 21.5}


def test_mosquitto_hears_what_is_sent_to_the_device(
    core: CoreProcess, pages: Pages, profile: str, tmp_path: Path
) -> None:
    """The third command waits for attributes."""
    need("mosquitto_sub", "mosquitto-clients")
    provision, _, wait = pages.snippets_with_secret(profile, way="mosquitto", tls="no", name="listener")
    (tmp_path / "snippet").write_text(f"{provision}\nexec {wait}")
    with subprocess.Popen(
        ["sh", str(tmp_path / "snippet")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            device = _device_id(core, "listener")
            for number in range(100):  # until it has subscribed
                core.rest.post(f"/api/plugins/telemetry/DEVICE/{device}/SHARED_SCOPE", {"limit": number})
                active = core.rest.get(
                    f"/api/plugins/telemetry/DEVICE/{device}/values/attributes/SERVER_SCOPE", keys="active"
                )
                if number > 5 and active and active[0]["value"]:
                    break
                time.sleep(0.1)
            assert "v1/devices/me/attributes" in process.stdout.readline()
        finally:
            process.kill()


def _device_id(core: CoreProcess, name: str) -> str:
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        found = core.rest.get("/api/tenant/devices", pageSize="10", page="0", textSearch=name)
        rows = found["data"] if isinstance(found, dict) and "data" in found else []
        if rows:
            identifier: str = rows[0]["id"]["id"]
            return identifier
        time.sleep(0.1)
    raise AssertionError(f"{name} has not come in")


@pytest.mark.parametrize("way", CHAIN_WAYS)
def test_a_device_comes_in_by_its_certificate(
    core: CoreProcess, pages: Pages, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    """The openssl commands make key and certificate, the tool's one command brings the device in."""
    for program, package in (("openssl", "openssl"), *TOOLS[way]):
        need(program, package)
    factory = Pki().root(f"Factory of {way}")
    by_certificate = pages.make_profile(
        name=f"by certificate, {way}", strategy="X509_CERTIFICATE_CHAIN", pem=factory.pem, pattern=r"(.*)\.plant",
        creates="yes",
    )  # fmt: skip
    shutil.copy(core.ca_file, tmp_path / "ca.pem")
    (tmp_path / "factory-ca.pem").write_text(factory.pem)
    (tmp_path / "factory-ca.key").write_text(factory.key_pem)
    certificate, command, *_ = pages.snippets(by_certificate, way=way, name=f"{way}.plant")
    run(tmp_path, certificate)
    assert run(tmp_path, command, program=interpreter(way)).strip().endswith("sent")
    assert core.latest(way) == {"temperature": 21.5}


def test_a_key_with_a_budget_works_from_the_page_that_shows_it(core: CoreProcess, pages: Pages, tmp_path: Path) -> None:
    """The wizard's last page has the limited key in its commands; the second device finds the budget used up."""
    need("curl", "curl")
    shown = pages.send("/ui/profiles/new", go="create", name="limited", budget="1", key_name="pilot")
    first, second = _snippets(shown.text)
    assert run(tmp_path, first, second).strip().endswith("sent")
    assert core.latest("SN-001") == {"temperature": 21.5}
    refused = subprocess.run(
        ["sh", "-c", first.replace("SN-001", "SN-002")], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert '"reason":"QUOTA_EXCEEDED"' in refused.stderr


def test_the_python_program_says_why_it_was_refused(pages: Pages, profile: str, tmp_path: Path) -> None:
    """It ends with the answer's reference, and asks no more."""
    (program,) = pages.snippets(profile, way="python-http", tls="no", name="refused")
    assert "YOUR-PROVISION-SECRET" in program
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 1 and "INVALID_PROVISION_CREDENTIALS" in done.stdout and "ref" in done.stderr
