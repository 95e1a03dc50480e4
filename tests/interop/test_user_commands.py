"""`cloud-core user …` against a running core."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner, Result

from cloud_core.__main__ import main
from tests.support.server import PASSWORD, USERNAME, CoreProcess


class Shell:
    """Runs the commands of somebody who has logged in."""

    def __init__(self, core: CoreProcess) -> None:
        self.core = core

    def run(self, *words: str, typed: str = "", code: int = 0) -> str:
        result: Result = CliRunner().invoke(main, list(words), input=typed)
        assert result.exit_code == code, result.output
        return str(result.output)

    def log_in(self, username: str, password: str, code: int = 0) -> None:
        self.run("login", "--url", self.core.http, "--username", username, "--password", password, code=code)


@pytest.fixture
def shell(core: CoreProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("CLOUD_CORE_TOKEN", "CLOUD_CORE_URL", "CLOUD_CORE_NEW_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    found = Shell(core)
    found.log_in(USERNAME, PASSWORD)
    return found


def test_a_user_from_the_first_day_to_the_last(shell: Shell) -> None:
    """Added, listed, given another password, logged in, deleted."""
    assert "Would add" in shell.run("user", "add", "ada@x", "--role", "VIEWER", "--dry-run")
    assert "ada@x" not in shell.run("user", "list")
    shell.run("user", "add", "ada@x", "--role", "VIEWER", typed="first-word\nfirst-word\n")
    (listed,) = json.loads(shell.run("user", "list", "--search", "ADA", "--json"))
    assert (listed["email"], listed["role"]) == ("ada@x", "VIEWER")
    told = json.loads(shell.run("user", "passwd", "ada@x", "--generate", "--reveal", "--json"))
    shell.log_in("ada@x", "first-word", code=6)
    shell.log_in("ada@x", told["password"])
    shell.run("user", "add", "eve@x", "--password", "some-word", code=4)
    shell.log_in(USERNAME, PASSWORD)
    assert "Would delete" in shell.run("user", "delete", "ada@x", "--dry-run")
    assert "Deleted" in shell.run("user", "delete", "ada@x", "--yes")
    shell.log_in("ada@x", told["password"], code=6)
    shell.run("user", "delete", "ada@x", code=8)


def test_ones_own_password_is_changed_and_the_login_goes_on(shell: Shell) -> None:
    shell.run("user", "add", "own@x", "--role", "ADMINISTRATOR", "--password", "first-word")
    shell.log_in("own@x", "first-word")
    shell.run("user", "passwd", typed="wrong-word\nnext-word\nnext-word\n", code=4)
    shell.run("user", "passwd", typed="first-word\nnext-word\nnext-word\n")
    assert "own@x" in shell.run("user", "list")
    shell.log_in("own@x", "first-word", code=6)
    shell.log_in("own@x", "next-word")


def test_a_generated_password_is_never_lost_unseen(shell: Shell) -> None:
    """Without --reveal nobody would ever know it, so nothing is done."""
    assert "--reveal" in shell.run("user", "add", "x@x", "--generate", code=2)
    assert "x@x" not in shell.run("user", "list")


def test_commands_run_with_an_api_key_too(shell: Shell, core: CoreProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a login, for scripts."""
    key = core.rest.post("/api/apiKey", {"name": "script", "role": "VIEWER"})["value"]
    monkeypatch.setenv("CLOUD_CORE_TOKEN", key)
    monkeypatch.setenv("CLOUD_CORE_URL", core.http)
    assert isinstance(json.loads(shell.run("device", "list", "--json")), list)
    shell.run("device", "create", "d", code=4)


def test_a_configured_system_administrator_makes_a_tenant(tmp_path: Path) -> None:
    """API keys and ended sessions are known after a crash."""
    system = {"CLOUD_CORE__ADMIN__SYSTEM_USERNAME": "sys@x", "CLOUD_CORE__ADMIN__SYSTEM_PASSWORD": "system-word"}
    core = CoreProcess(tmp_path / "data", **system).start()
    try:
        core.rest.login("sys@x", "system-word")
        tenant = core.rest.post("/api/tenant", {"title": "B"})
        core.rest.post(
            "/api/user",
            {"email": "b@x", "authority": "TENANT_ADMIN", "tenantId": tenant["id"], "password": "their-word"},
        )
        core.rest.login("b@x", "their-word")
        key = core.rest.post("/api/apiKey", {"name": "k", "role": "VIEWER"})["value"]
        over = core.rest.login("b@x", "their-word")
        core.rest.post("/api/auth/logout")
        core.kill()
        core.start()
        headers = {"X-Authorization": f"ApiKey {key}"}
        page = requests.get(f"{core.http}/api/tenant/devices?pageSize=1&page=0", headers=headers, timeout=10)
        assert (page.status_code, page.json()["totalElements"]) == (200, 0)
        ended = requests.get(f"{core.http}/api/auth/user", headers={"X-Authorization": f"Bearer {over}"}, timeout=10)
        assert ended.status_code == 401
    finally:
        core.stop()
