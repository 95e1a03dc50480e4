"""The command line against a running core: profiles, devices, gateways, attempts; with and without a login."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from cloud_core import local_token
from cloud_core.rest_client import RestClient
from tests.support.console import Console
from tests.support.pki import Pki
from tests.support.server import PASSWORD, USERNAME, CoreProcess


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    process = CoreProcess(tmp_path_factory.mktemp("cli") / "data").start()
    yield process
    process.stop()


@pytest.fixture
def console(core: CoreProcess, tmp_path: Path) -> Console:
    return Console(tmp_path, CLOUD_CORE_URL=core.http, CLOUD_CORE_TOKEN=core.jwt)


def provision(core: CoreProcess, name: str, key: dict[str, str]) -> dict[str, str]:
    answer = requests.post(f"{core.http}/api/v1/provision", json={"deviceName": name, **key}, timeout=10)
    found: dict[str, str] = answer.json()
    return found


def token_opens(core: CoreProcess, token: str) -> bool:
    sent = requests.post(f"{core.http}/api/v1/{token}/telemetry", json={"t": 1}, timeout=10)
    return sent.status_code == 200


# -- profiles -------------------------------------------------------------------------------------


def test_a_profile_is_changed_and_deleted(core: CoreProcess, console: Console) -> None:
    """What is not given stays; a dry run says the same and changes nothing; deletion asks."""
    made = console.json("profile", "create", "meters", "--reveal")
    secret = made["profileData"]["provisionConfiguration"]["provisionDeviceSecret"]
    planned = console.out("profile", "update", "meters", "--strategy", "DISABLED", "--replay", "--dry-run")
    assert "Would change" in planned and "ALLOW_CREATE_NEW_DEVICES → DISABLED" in planned
    assert console.json("profile", "show", "meters")["provisionType"] == "ALLOW_CREATE_NEW_DEVICES"
    changed = console.json("profile", "update", "meters", "--strategy", "CHECK_PRE_PROVISIONED_DEVICES",
                           "--description", "Hall 3", "--name", "water meters")  # fmt: skip
    assert changed["changes"]["description"] == [None, "Hall 3"]
    shown = console.json("profile", "show", "water meters", "--reveal")
    assert shown["profileData"]["provisionConfiguration"]["provisionDeviceSecret"] == secret
    assert (shown["provisionType"], shown["description"]) == ("CHECK_PRE_PROVISIONED_DEVICES", "Hall 3")
    code, said = console.refused("profile", "update", "water meters")
    assert (code, "Nothing would change" in said) == (2, True)
    assert console.refused("profile", "delete", "water meters", typed="n\n")[0] == 9
    assert console.refused("profile", "delete", "water meters")[0] == 9  # nobody answers
    console.out("profile", "delete", "water meters", "--dry-run")
    console.out("profile", "delete", "water meters", typed="y\n")
    code, said = console.refused("profile", "show", "water meters")
    assert (code, "profile list" in said) == (8, True)


def test_a_profile_changes_to_certificates_and_back(console: Console, tmp_path: Path) -> None:
    """Key and secret mean something else then: they are made anew, and never shown."""
    root = Pki().root("Factory")
    file = tmp_path / "ca.pem"
    file.write_text(root.pem)
    console.json("profile", "create", "chain")
    said = console.refused("profile", "update", "chain", "--strategy", "X509_CERTIFICATE_CHAIN")[1]
    assert "needs --ca" in said
    console.out("profile", "update", "chain", "--strategy", "X509_CERTIFICATE_CHAIN", "--ca", str(file))
    assert console.json("profile", "show", "chain")["provisionType"] == "X509_CERTIFICATE_CHAIN"
    assert "goes with" in console.refused("profile", "create", "other", "--ca", str(file))[1]
    console.out("profile", "update", "chain", "--strategy", "ALLOW_CREATE_NEW_DEVICES")
    configuration = console.json("profile", "show", "chain", "--reveal")["profileData"]["provisionConfiguration"]
    assert "CERTIFICATE" not in configuration["provisionDeviceSecret"]
    assert console.refused("profile", "update", "chain", "--name-pattern", "x")[0] == 2
    console.out("profile", "delete", "chain", "--yes")


def test_a_profile_with_devices_is_not_deleted(console: Console) -> None:
    """The dry run says so, and the core refuses."""
    console.json("device", "create", "D-1", "--type", "used")
    assert "1 devices have it" in console.out("profile", "delete", "used", "--dry-run")
    code, said = console.refused("profile", "delete", "used", "--yes")
    assert (code, "referenced by the devices" in said) == (4, True)


# -- devices --------------------------------------------------------------------------------------


def test_a_device_is_shown_and_deleted(core: CoreProcess, console: Console) -> None:
    """With its link, provisioning and last attempt; `--data` adds attributes and values."""
    key = core.make_profile("show")
    token = provision(core, "S-1", key)["credentialsValue"]
    assert token_opens(core, token)
    said = console.out("device", "show", "S-1", "--data")
    assert "provisioned" in said and "SUCCESS at" in said and "latest values" in said and token not in said
    shown = console.json("device", "show", "S-1")
    assert (shown["provisionState"], shown["credentialsType"]) == ("provisioned", "ACCESS_TOKEN")
    assert console.refused("device", "delete", "S-1", typed="n\n")[0] == 9
    assert console.json("device", "delete", "S-1", "--dry-run")["dryRun"] is True
    console.out("device", "delete", "S-1", "--yes")
    assert console.refused("device", "show", "S-1")[0] == 8
    assert not token_opens(core, token)


def test_credentials_are_hidden_until_revealed(core: CoreProcess, console: Console, tmp_path: Path) -> None:
    """Token and password; a certificate is none of a secret. Setting others ends the old ones."""
    console.out("device", "create", "C-1")
    assert console.json("device", "credentials", "C-1")["credentialsId"] == "••••••"
    old = console.json("device", "credentials", "C-1", "--reveal")["credentialsId"]
    assert old in console.out("device", "credentials", "--reveal", "C-1")
    assert token_opens(core, old)
    assert "Would give" in console.out("device", "credentials", "set", "C-1", "--new-token", "--dry-run")
    assert token_opens(core, old)
    new = console.json("device", "credentials", "set", "C-1", "--new-token", "--reveal")["credentialsId"]
    assert (token_opens(core, old), token_opens(core, new)) == (False, True)
    console.out("device", "credentials", "set", "C-1", "--token", "-", typed="typed-token\n")
    assert token_opens(core, "typed-token")
    said = console.out("device", "credentials", "set", "C-1", "--mqtt-username", "u", "--mqtt-password", "-",
                       typed="pa55word\n")  # fmt: skip
    assert "pa55word" not in said and "user name" in said
    assert "pa55word" in console.out("device", "credentials", "C-1", "--reveal")
    root = Pki().root("Own")
    (tmp_path / "device.pem").write_text(root.pem)
    said = console.out("device", "credentials", "set", "C-1", "--certificate", str(tmp_path / "device.pem"))
    assert "fingerprint" in said
    assert console.refused("device", "credentials", "set", "C-1")[0] == 2
    assert console.refused("device", "credentials", "set", "C-1", "--certificate", "none.pem")[0] == 7


def test_a_device_provisions_once_more_after_a_reset(core: CoreProcess, console: Console) -> None:
    """The dry run says what would stand in the way."""
    key = core.make_profile("again", "CHECK_PRE_PROVISIONED_DEVICES")
    console.out("device", "create", "R-1", "--type", "again")
    assert provision(core, "R-1", key)["status"] == "SUCCESS"
    assert provision(core, "R-1", key)["status"] != "SUCCESS"
    assert "could provision" in console.out("device", "reset-provisioning", "R-1", "--dry-run")
    assert provision(core, "R-1", key)["status"] != "SUCCESS"
    assert "may provision once more" in console.out("device", "reset-provisioning", "R-1", "--new-credentials")
    assert provision(core, "R-1", key)["status"] == "SUCCESS"
    core.make_profile("new-only")
    console.out("device", "create", "R-2", "--type", "new-only")
    assert "cannot provision now" in console.out("device", "reset-provisioning", "R-2")


def test_a_new_unit_takes_the_place_of_a_broken_one(core: CoreProcess, console: Console) -> None:
    """The new unit's token opens the old device; the old unit's opens nothing."""
    key = core.make_profile("swap")
    old, new = (provision(core, name, key)["credentialsValue"] for name in ("pump", "SN-2"))
    assert token_opens(core, old) and token_opens(core, new)
    before = console.json("device", "show", "pump")["id"]
    assert "Would let the unit 'SN-2' be 'pump'" in console.out("device", "replace", "pump", "SN-2", "--dry-run")
    assert console.refused("device", "replace", "pump", "SN-2", typed="n\n")[0] == 9
    console.out("device", "replace", "pump", "SN-2", "--yes")
    assert (token_opens(core, old), token_opens(core, new)) == (False, True)
    assert console.json("device", "show", "pump")["id"] == before
    code, said = console.refused("device", "replace", "pump", "SN-2", "--yes")
    assert (code, "let the new unit provision first" in said) == (8, True)


# -- gateways and attempts ------------------------------------------------------------------------


def test_gateways_are_shown_as_trees(core: CoreProcess, console: Console) -> None:
    """Each with its link; a device that is none has nothing behind it."""
    core.rest.post("/api/device", {"name": "gw", "type": "gws", "additionalInfo": {"gateway": True}})
    assert [one["name"] for one in console.json("gateway", "list")] == ["gw"]
    said = console.out("gateway", "list")
    assert "never seen" in said and "0 of 0" in said
    assert console.json("gateway", "show", "gw")["devices"] == []
    assert console.out("gateway", "show", "gw").startswith("gw  never seen")
    assert console.refused("gateway", "show", "nobody")[0] == 8


def test_attempts_are_listed_by_filter(core: CoreProcess, console: Console) -> None:
    """By outcome, device, profile and time; a wrong time says what to write."""
    key = core.make_profile("filter")
    for name in ("F-1", "F-1", "F-2"):
        provision(core, name, key)
    rows = console.json("provisioning", "list", "--profile", "filter")
    assert [(one["deviceName"], one["outcome"]) for one in rows] == [
        ("F-2", "SUCCESS"), ("F-1", "DEVICE_EXISTS"), ("F-1", "SUCCESS"),
    ]  # fmt: skip
    refused = console.json("provisioning", "list", "--device", "F-1", "--outcome", "REFUSED", "--since", "1h")
    assert [one["outcome"] for one in refused] == ["DEVICE_EXISTS"]
    assert console.json("provisioning", "list", "--profile", "filter", "--until", "2020-01-01") == []
    assert "2 more" in console.out("provisioning", "list", "--profile", "filter", "--limit", "1")
    said = console.out("provisioning", "explain", refused[0]["ref"])
    assert "fix" in said and "DEVICE_EXISTS" in said
    assert "30min" in console.refused("provisioning", "list", "--since", "yesterday")[1]
    assert console.refused("provisioning", "explain", "NO-SUCH")[0] == 8
    assert console.refused("provisioning", "list", "--outcome", "BANANA")[0] == 4


# -- who may --------------------------------------------------------------------------------------


def test_commands_on_the_cores_machine_need_no_login(core: CoreProcess, tmp_path: Path) -> None:
    """`--data-dir` finds the core and its token; without it the way in is said."""
    console = Console(tmp_path)
    code, said = console.refused("device", "list", "--url", core.http)
    assert (code, "--data-dir" in said and "cloud-core login" in said) == (6, True)
    console.out("device", "create", "L-1", "--data-dir", str(core.data_dir))
    rows = console.json("device", "list", "--search", "L-1", "--data-dir", str(core.data_dir))
    assert [one["name"] for one in rows] == ["L-1"]
    code, said = console.refused("device", "list", "--data-dir", str(tmp_path / "none"))
    assert (code, "No core runs" in said) == (5, True)
    assert console.refused("device", "list", "--data-dir", str(core.data_dir), "--url", core.http)[0] == 2


def test_the_local_token_opens_nothing_from_elsewhere(core: CoreProcess) -> None:
    """Through a proxy, or altered; it is an administrator's, and lies in a file of the owner alone."""
    file = core.data_dir / local_token.FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and file.stat().st_uid == os.getuid()
    found = local_token.read(core.data_dir)
    who = RestClient(found.url, found.token).get("/api/auth/user")
    assert (who["authority"], found.pid) == ("TENANT_ADMIN", core.pid)

    def status(token: str, **headers: str) -> int:
        bearer = {"X-Authorization": f"Bearer {token}"}
        return requests.get(f"{found.url}/api/auth/user", headers=bearer | headers, timeout=10).status_code

    assert status(found.token) == 200
    for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
        assert status(found.token, **{name: "127.0.0.1"}) == 401
    assert status(found.token[:-1]) == status("local-") == 401
    assert found.token not in core.log.read_text()


def test_each_start_makes_another_local_token(tmp_path: Path) -> None:
    """The one of before is worth nothing, be it from a core that was killed; the end takes the file away."""
    core = CoreProcess(tmp_path / "data").start()
    try:
        first = local_token.read(core.data_dir)
        core.kill()
        console = Console(tmp_path)
        assert console.refused("device", "list", "--data-dir", str(core.data_dir))[0] == 5
        core.start()
        second = local_token.read(core.data_dir)
        assert second.token != first.token
        bearer = {"X-Authorization": f"Bearer {first.token}"}
        assert requests.get(f"{second.url}/api/auth/user", headers=bearer, timeout=10).status_code == 401
    finally:
        core.stop()
    assert not (core.data_dir / local_token.FILE).exists()


def test_a_login_is_kept_for_the_next_commands(core: CoreProcess, tmp_path: Path) -> None:
    """In a file of the user alone; a wrong password is exit code 6."""
    console = Console(tmp_path)
    console.out("login", "--url", core.http, "--username", USERNAME, typed=f"{PASSWORD}\n")
    kept = tmp_path / "config" / "muster" / "login.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert json.loads(console.run("device", "list", "--json").stdout) is not None
    assert console.refused("login", "--url", core.http, "--username", USERNAME, typed="wrong\n")[0] == 6
    kept.write_text("{")
    assert console.refused("device", "list")[0] == 6


def test_a_core_over_https_is_trusted_by_its_ca(tmp_path: Path) -> None:
    """`--ca-file`, or the environment; without it the message names them, and no token was sent."""
    core = CoreProcess(tmp_path / "data", is_tls=True).start()
    try:
        console = Console(tmp_path, CLOUD_CORE_URL=core.https, CLOUD_CORE_TOKEN=core.jwt)
        code, said = console.refused("device", "list")
        assert (code, "--ca-file" in said) == (5, True)
        assert console.json("device", "list", "--ca-file", str(core.ca_file)) == []
        console.environment["CLOUD_CORE_CA_FILE"] = str(core.ca_file)
        assert console.json("gateway", "list") == []
        login = ("login", "--url", core.https, "--username", USERNAME)
        assert "Logged in" in console.out(*login, typed=f"{PASSWORD}\n")
        code, said = console.refused("device", "list", "--ca-file", str(tmp_path / "none.pem"))
        assert (code, "CA's file" in said) == (5, True)
    finally:
        core.stop()
