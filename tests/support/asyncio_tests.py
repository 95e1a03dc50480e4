"""Tests that are coroutines, run in the reactor's asyncio loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred


def asyncio_test(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        return pytest_twisted.blockon(Deferred.fromFuture(asyncio.ensure_future(test(*args, **kwargs))))

    return run
