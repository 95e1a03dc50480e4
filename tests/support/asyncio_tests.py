"""Tests that are coroutines, run in the reactor's asyncio loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred


def asyncio_test(test: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a coroutine function as a test, in the reactor's loop; pytest-twisted waits for the Deferred."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        return Deferred.fromFuture(asyncio.ensure_future(test(*args, **kwargs)))

    return run
