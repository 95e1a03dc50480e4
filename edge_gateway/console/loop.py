"""The event loop for commands that need one: Twisted's reactor on asyncio's plain selector loop."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
Reactor = Any  # mypy reads nothing from zope interfaces


def installed_reactor() -> Reactor:
    """The process's reactor, made and installed at the first call: asyncio's, for connectors are asyncio tasks.

    Call it before anything else: what connectors import takes whichever reactor there is, and installs another one
    where there is none.
    """
    if "twisted.internet.reactor" in sys.modules:
        return sys.modules["twisted.internet.reactor"]
    loop = asyncio.SelectorEventLoop()
    asyncio.set_event_loop(loop)
    with _without_openssl():
        from twisted.internet.asyncioreactor import AsyncioSelectorReactor
    from twisted.internet.main import installReactor

    reactor = AsyncioSelectorReactor(loop)
    installReactor(reactor)
    return reactor


@contextlib.contextmanager
def _without_openssl() -> Iterator[None]:
    """Twisted's reactor looks for OpenSSL in case somebody calls `listenSSL`, which nobody does here: connectors put
    TLS on top of TCP, and import it only then. It is 12 MB and 0.1 s of the start."""
    modules: dict[str, Any] = sys.modules
    is_there = "OpenSSL" in modules
    if not is_there:
        modules["OpenSSL"] = None  # Python's way to say that an import fails
    try:
        yield
    finally:
        if not is_there:
            del modules["OpenSSL"]


def run(work: Callable[[Reactor], Coroutine[Any, Any, T]]) -> T | None:
    """What `work` returns or raises; None when SIGINT or SIGTERM ended it: it is cancelled then, and waited for."""
    reactor = installed_reactor()
    tasks: list[asyncio.Task[T]] = []

    def begin() -> None:
        task = asyncio.get_event_loop().create_task(work(reactor))
        tasks.append(task)
        task.add_done_callback(lambda _task: reactor.callLater(0, _stop, reactor))
        reactor.addSystemEventTrigger("before", "shutdown", _cancelled, task)

    reactor.callWhenRunning(begin)
    reactor.run()
    (task,) = tasks
    return None if task.cancelled() else task.result()


def _stop(reactor: Reactor) -> None:
    if reactor.running:
        reactor.stop()


def _cancelled(task: asyncio.Task[Any]) -> Any:
    """A Deferred that fires when the task has ended."""
    task.cancel()
    return as_deferred(_ended(task))


async def _ended(task: asyncio.Task[Any]) -> None:
    await asyncio.wait([task])


def as_deferred(work: Awaitable[Any]) -> Any:
    """For Twisted's triggers; `work` runs as an asyncio task."""
    from twisted.internet.defer import Deferred

    return Deferred.fromFuture(asyncio.ensure_future(work))
