"""Tests that are coroutines."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred


def asyncio_test(test: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a coroutine function as a test, in the reactor's loop."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        return Deferred.fromFuture(asyncio.ensure_future(test(*args, **kwargs)))  # pytest-twisted waits for it

    return run


def waited_for(awaitable: Awaitable[Any]) -> Any:
    """What a coroutine comes to, for fixtures."""
    return pytest_twisted.blockon(Deferred.fromFuture(asyncio.ensure_future(awaitable)))


async def eventually(is_so: Callable[[], Any], *, within_s: float = 10.0) -> None:
    """Lets the reactor work until something is so; fails where it never is."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    while not is_so():
        assert loop.time() < until_s, "it did not come about"
        await asyncio.sleep(0.005)
