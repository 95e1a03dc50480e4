"""Passwords that the configuration gives: for the first start, and anew only where they are other ones."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cloud_core.rest_client import RestClient, RestError
from tests.support.server import PASSWORD, USERNAME, CoreProcess

SYSTEM, MINE = "sys@x", "a-password-of-my-own"


def log_in(core: CoreProcess, username: str, password: str) -> RestClient:
    client = RestClient(core.http)
    client.login(username, password)
    return client


def test_a_password_that_its_user_has_changed_does_not_come_back(tmp_path: Path) -> None:
    """After a restart with the same configuration; another password in it is given, as to somebody locked out."""
    given = {"CLOUD_CORE__ADMIN__SYSTEM_USERNAME": SYSTEM, "CLOUD_CORE__ADMIN__SYSTEM_PASSWORD": "of-the-file"}
    core = CoreProcess(tmp_path / "data", **given).start()
    try:
        for username, password in ((USERNAME, PASSWORD), (SYSTEM, "of-the-file")):
            body = {"currentPassword": password, "newPassword": MINE}
            log_in(core, username, password).post("/api/auth/changePassword", body)
        core.stop()
        with pytest.raises(RestError):  # logs in with the password of the configuration
            core.start()
        log_in(core, USERNAME, MINE)
        log_in(core, SYSTEM, MINE)
        for name in ("admin-configured", "system-admin-configured"):
            file = core.data_dir / name
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert "of-the-file" not in file.read_text()
        core.stop()
        core._environment |= {
            "CLOUD_CORE__ADMIN__PASSWORD": "given-anew", "CLOUD_CORE__ADMIN__SYSTEM_PASSWORD": "given-anew",
        }  # fmt: skip
        with pytest.raises(RestError):
            core.start()
        log_in(core, USERNAME, "given-anew")
        log_in(core, SYSTEM, "given-anew")
    finally:
        core.stop()
