"""Administration on the core's own machine without a login: who gets in, and who does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloud_core import local_token
from cloud_core.core.people.local_access import LocalAccess, is_loopback
from cloud_core.local_token import LocalToken, LocalTokenError
from cloud_core.model import DEFAULT_TENANT
from shared.errors import NotAuthenticated

TENANT = 1
GOOD = LocalToken("http://127.0.0.1:8080", "local-secret", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    return made


def test_the_token_stands_for_an_administrator_of_the_default_tenant() -> None:
    """From loopback, in any of its forms."""
    access = LocalAccess()
    token = access.open(TENANT)
    for address in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
        operator = access.operator(token, address, is_handed_on=False)
        assert operator is not None
        assert (operator.authority, operator.tenant_uuid, operator.tenant_id) == (
            "TENANT_ADMIN",
            DEFAULT_TENANT,
            TENANT,
        )


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "::ffff:192.0.2.1", "fe80::1%eth0", "", "localhost"])
def test_the_token_is_worth_nothing_from_elsewhere(address: str) -> None:
    """Even the right one, and in the words of a wrong one."""
    access = LocalAccess()
    token = access.open(TENANT)
    assert not is_loopback(address)
    with pytest.raises(NotAuthenticated, match="Authentication failed"):
        access.operator(token, address, is_handed_on=False)


def test_a_proxy_on_the_machine_opens_nothing() -> None:
    """It hands on what comes from elsewhere, from loopback."""
    access = LocalAccess()
    with pytest.raises(NotAuthenticated):
        access.operator(access.open(TENANT), "127.0.0.1", is_handed_on=True)


def test_a_token_of_before_or_of_nobody_is_refused() -> None:
    """Each start makes a new one; before the first and after the end there is none."""
    access = LocalAccess()
    with pytest.raises(NotAuthenticated):
        access.operator("local-", "127.0.0.1", is_handed_on=False)
    old = access.open(TENANT)
    new = access.open(TENANT)
    assert old != new and access.operator(new, "127.0.0.1", is_handed_on=False) is not None
    for wrong in (old, new[:-1], new + "x", "local-\udcff"):
        with pytest.raises(NotAuthenticated):
            access.operator(wrong, "127.0.0.1", is_handed_on=False)
    access.close()
    with pytest.raises(NotAuthenticated):
        access.operator(new, "127.0.0.1", is_handed_on=False)


def test_tokens_of_another_kind_are_left_to_others() -> None:
    """A JWT is none of this."""
    assert LocalAccess().operator("eyJhbGciOi", "127.0.0.1", is_handed_on=False) is None


def test_the_file_is_for_the_owner_alone(folder: Path) -> None:
    """Mode 0600, and it says where the core is."""
    assert local_token.write(folder, GOOD) == ""
    assert (folder / local_token.FILE).stat().st_mode & 0o777 == 0o600
    assert local_token.read(folder) == GOOD
    assert "secret" not in repr(GOOD)


def test_the_core_writes_no_file_where_others_may_write(folder: Path) -> None:
    """Somebody else could put another in its place."""
    folder.chmod(0o777)
    assert "chmod go-w" in local_token.write(folder, GOOD)
    assert list(folder.iterdir()) == []


def test_a_file_that_others_may_read_is_not_used(folder: Path) -> None:
    """Nor one in a directory that others may write to."""
    local_token.write(folder, GOOD)
    (folder / local_token.FILE).chmod(0o640)
    with pytest.raises(LocalTokenError, match="0600"):
        local_token.read(folder)
    (folder / local_token.FILE).chmod(0o600)
    folder.chmod(0o770)
    with pytest.raises(LocalTokenError, match="chmod go-w"):
        local_token.read(folder)


def test_a_link_in_the_files_place_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """It could lead to a file of somebody else."""
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    local_token.write(other, GOOD)
    os.symlink(other / local_token.FILE, folder / local_token.FILE)
    with pytest.raises(LocalTokenError, match="Cannot use"):
        local_token.read(folder)


@pytest.mark.parametrize("url", ["http://192.0.2.1:8080", "http://127.0.0.1.example:80", "http://a@example.org/", ""])
def test_a_file_that_leads_elsewhere_is_not_used(folder: Path, url: str) -> None:
    """The token goes to this machine alone."""
    local_token.write(folder, LocalToken(url, "local-x", 1))
    with pytest.raises(LocalTokenError, match="leads away"):
        local_token.read(folder)


def test_a_missing_or_damaged_file_is_said_with_the_fix(folder: Path) -> None:
    """No core there, or half a file."""
    with pytest.raises(LocalTokenError, match="No core runs") as missing:
        local_token.read(folder)
    assert missing.value.is_missing
    (folder / local_token.FILE).write_bytes(b"{")
    (folder / local_token.FILE).chmod(0o600)
    with pytest.raises(LocalTokenError, match="damaged"):
        local_token.read(folder)


def test_only_the_process_that_wrote_the_file_removes_it(folder: Path) -> None:
    """Another core may have started on the directory meanwhile."""
    local_token.write(folder, GOOD)
    local_token.remove(folder, 2)
    assert (folder / local_token.FILE).exists()
    local_token.remove(folder, 1)
    local_token.remove(folder, 1)
    assert not (folder / local_token.FILE).exists()


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
        ("192.0.2.1", None),
        ("127.evil.example", None),
    ],
)
def test_a_core_that_loopback_does_not_reach_has_no_such_door(bind: str, url: str | None) -> None:
    """It would have to accept the token from an address of the network."""
    assert local_token.url_on_loopback(bind, 80) == url
