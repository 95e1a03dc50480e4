"""The nats-server that a supervisor starts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cloud_core.workers import own_fabric
from cloud_core.workers.own_fabric import FabricFailed, OwnFabric
from tests.conftest import need
from tests.support.asyncio_tests import asyncio_test


@asyncio_test
async def test_it_listens_on_loopback_behind_its_token(tmp_path: Path) -> None:
    """The token stands in a file of mode 0600, not in the command line; both are gone with it."""
    need("nats-server", "nats-server")
    fabric = OwnFabric(tmp_path, "the-token")
    await fabric.start()
    configuration = tmp_path / "workers-fabric.conf"
    assert configuration.stat().st_mode & 0o777 == 0o600
    assert "the-token" in configuration.read_text()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fabric.url.rsplit(":", 1)[1]))
    assert b'"auth_required":true' in await reader.readline()
    writer.close()
    await fabric.stop()
    assert not configuration.exists()


@asyncio_test
async def test_a_machine_without_nats_server_is_told_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How to install one, or name another."""
    monkeypatch.setattr(own_fabric, "PROGRAM", "no-such-program")
    with pytest.raises(FabricFailed, match=r"apt install nats-server.*\[cluster\] fabric"):
        await OwnFabric(tmp_path, "t").start()
