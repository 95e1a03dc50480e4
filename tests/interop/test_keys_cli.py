"""Provision keys, rotation, approvals and the audit by command line against a running core."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result

from cloud_core.__main__ import main
from tests.support.server import CoreProcess

WAIT_S = 20.0


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    """A core of these tests alone: they look at the whole audit."""
    process = CoreProcess(tmp_path_factory.mktemp("keys") / "data").start()
    yield process
    process.stop()


class Shell:
    """Commands as an administrator."""

    def __init__(self, core: CoreProcess) -> None:
        self.core = core
        self.environment = {"CLOUD_CORE_URL": core.http, "CLOUD_CORE_TOKEN": core.jwt, "COLUMNS": "200"}

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments), env=self.environment)

    def out(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.out(*arguments, "--json"))

    def provision(self, name: str, shown: dict[str, str]) -> tuple[str, dict[str, str]]:
        """(SUCCESS or the reason, headers) of a request over HTTP."""
        members = ("provisionDeviceKey", "provisionDeviceSecret")
        body = {"deviceName": name, **{member: shown[member] for member in members}}
        answer = requests.post(f"{self.core.http}/api/v1/provision", json=body, timeout=WAIT_S)
        decoded = answer.json()
        return decoded.get("reason") or decoded["status"], dict(answer.headers)


@pytest.fixture
def shell(core: CoreProcess) -> Shell:
    return Shell(core)


def test_keys_are_made_listed_disabled_and_deleted(shell: Shell, core: CoreProcess) -> None:
    """A key made by command line lets in what its rules say, and nobody once it is disabled."""
    core.make_profile("lines")
    keys = ("profile", "keys", "lines")
    assert "Would make" in shell.out(*keys, "add", "L3", "--dry-run")
    made = shell.json(
        *keys, "add", "L3", "--max", "1", "--name-pattern", "SN-.*", "--from", "127.0.0.0/8", "--batch", "B7"
    )
    assert [shell.provision(name, made)[0] for name in ("X-1", "SN-1", "SN-2")] == [
        "INVALID_DEVICE_NAME", "SUCCESS", "QUOTA_EXCEEDED",
    ]  # fmt: skip
    listed = shell.out(*keys, "list")
    assert "1 of 1" in listed and "B7" in listed and made["provisionDeviceKey"] not in listed
    assert "disabled" in shell.out(*keys, "disable", "L3")
    assert shell.provision("SN-1", made)[0] == "INVALID_PROVISION_CREDENTIALS"
    assert "Would delete" in shell.out(*keys, "delete", "L3", "--dry-run")
    assert "Deleted" in shell.out(*keys, "delete", "L3", "--yes")
    gone = shell.run(*keys, "disable", "L3")
    assert (gone.exit_code, "no provision key 'L3'" in gone.output) == (8, True)


def test_a_secret_is_rotated_with_overlap(shell: Shell, core: CoreProcess) -> None:
    """The old secret and the new one both work, and a secret is shown only when asked for."""
    old = core.make_profile("rotated")
    hidden = shell.out("profile", "rotate-secret", "rotated", "--overlap", "12h")
    assert "valid until" in hidden and old["provisionDeviceSecret"] not in hidden
    fresh = shell.json("profile", "rotate-secret", "rotated", "--overlap", "0", "--reveal")
    assert fresh["formerSecretValidUntil"] is None
    new = old | {"provisionDeviceSecret": fresh["provisionDeviceSecret"]}
    assert [shell.provision("R-1", one)[0] for one in (old, new)] == ["INVALID_PROVISION_CREDENTIALS", "SUCCESS"]
    assert "current" in shell.out("profile", "rotate-secret", "rotated", "--dry-run")
    assert shell.json("profile", "rotate-secret", "rotated", "--dry-run")["dryRun"] is True
    assert shell.run("profile", "rotate-secret", "rotated", "--overlap", "soon").exit_code == 2


def test_waiting_devices_are_accepted_and_rejected(shell: Shell, core: CoreProcess) -> None:
    """Devices that wait are listed; an accepted one is in with its next request, a rejected one is not."""
    shown = core.make_profile("guarded", approval="REQUIRED")
    asked = {name: shell.provision(name, shown) for name in ("G-1", "G-2")}
    assert {reason for reason, _ in asked.values()} == {"APPROVAL_PENDING"}
    assert "G-1" in shell.out("provisioning", "pending") and "G-2" in shell.out("provisioning", "pending")
    assert shell.json("provisioning", "accept", "--all", "--dry-run") == {"names": ["G-2", "G-1"], "dryRun": True}
    assert "accepted: G-1" in shell.out("provisioning", "accept", "G-1")
    assert "rejected: G-2" in shell.out("provisioning", "reject", "--search", "G-2")
    assert [shell.provision(name, shown)[0] for name in ("G-1", "G-2")] == ["SUCCESS", "PROVISIONING_DISABLED"]
    assert shell.run("provisioning", "accept", "G-9").exit_code == 8
    assert shell.run("provisioning", "accept").exit_code == 2


def test_the_audit_is_shown_and_verified(shell: Shell, core: CoreProcess) -> None:
    """The newest entries stand last, and the whole chain verifies."""
    core.make_profile("audited")
    rows = shell.json("audit", "tail", "--limit", "1")
    assert [(one["action"], one["entityName"]) for one in rows] == [("CREATED", "audited")]
    assert "LOGIN" in shell.out("audit", "tail", "--limit", "200", "--action", "login")
    assert "are intact" in shell.out("audit", "verify")
    assert shell.json("audit", "verify")["intact"] is True
