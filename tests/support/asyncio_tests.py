"""Tests that are coroutines, run on the reactor's asyncio loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred


def asyncio_test(test: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """Waits for the coroutine; fixtures are passed on."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        return pytest_twisted.blockon(Deferred.fromFuture(asyncio.ensure_future(test(*args, **kwargs))))

    return run
