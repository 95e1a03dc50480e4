"""The local port before and at its first caller."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import requests
from twisted.internet import reactor

from edge_gateway.console.local_port import LocalPort
from edge_gateway.settings import Local
from tests.support.asyncio_tests import asyncio_test
from tests.support.local_doors import DoorUnderTest


@asyncio_test
async def test_the_page_is_made_for_the_first_caller(tmp_path: Path) -> None:
    """Once; the token is there before, because the commands read it first."""
    door = DoorUnderTest(tmp_path)
    made: list[str] = []

    def serve() -> object:
        made.append("page")
        return door.serve()

    door.listening = LocalPort(settings=Local(port=0), data_dir=tmp_path, reactor=reactor, serve=serve)
    async with door:
        assert door.token and made == []
        for _ in range(2):
            assert (await door.ask("GET", "/healthz")).text == "ok\n"
        assert made == ["page"]


@asyncio_test
async def test_a_page_that_cannot_be_made_sends_the_caller_away_and_is_tried_again(tmp_path: Path) -> None:
    """A disk that was full for a moment does not close the door for good."""
    door = DoorUnderTest(tmp_path)
    broken = [OSError("no space left")]

    def serve() -> object:
        if broken:
            raise broken.pop()
        return door.serve()

    door.listening = LocalPort(settings=Local(port=0), data_dir=tmp_path, reactor=reactor, serve=serve)
    async with door:
        with pytest.raises(requests.ConnectionError):
            await door.ask("GET", "/healthz")
        assert (await door.ask("GET", "/healthz")).text == "ok\n"


def test_a_gateway_without_visitors_has_no_web_framework() -> None:
    """It would be a third of the memory."""
    program = "import sys, edge_gateway.console.running, edge_gateway.service; print('klein' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "False"
