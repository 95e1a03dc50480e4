"""Whether a connector keeps the contract of `connectors.interface`; for authors of plug-ins and for our own.

    python -m edge_gateway.connectors.plugin.conformance NAME settings.toml

NAME as for the host: an entry point of `muster.connectors`, or `module:ATTRIBUTE`. The file has the connector's own
table. In a test suite: `assert not asyncio.run(check_connector(KIND, {"path": "…"}, send=…))`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_gateway.connectors.interface import Connector, ConnectorKind, Done
from edge_gateway.connectors.plugin.host import CannotLoad, load
from edge_gateway.model import Call, CallFailed, Health, Json, Reading, Refusal

Send = Callable[[Connector], Awaitable[Any]]
"""Gives the running connector one message, as its source would, and returns when the source has been told that it
arrived; raises when the source was refused."""

START_S: Final = 10.0  # to report its health
CANCEL_S: Final = 5.0  # to end
_MOMENT_S: Final = 0.5
_NO_SUCH: Final = "no_such_thing"
_IO_EVENTS = ("open", "socket.", "subprocess.", "os.listdir", "os.scandir", "os.system", "os.exec", "os.fork")
_MODULES = (".py", ".pyc", ".so")


class Watched:
    """A `Site` that records, and answers as it is told."""

    def __init__(self) -> None:
        self.name = "conformance"
        self.wants_raw = True
        self.is_congested = False
        self.healths: list[Health] = []
        self.devices: list[str] = []
        self.held: list[Done] | None = None  # a list: `done` is kept there
        self.refusal: Refusal | None = None
        self.problems: list[str] = []
        self.accepted = 0

    def accept(self, readings: Sequence[Reading], done: Done | None = None) -> None:
        self.accepted += len(readings)
        for reading in readings:
            if not isinstance(reading, Reading) or not reading.device:
                self.problems.append("accept was given what is no Reading with a device")
            else:
                self.devices.append(reading.device)
        if done is not None and self.held is not None:
            self.held.append(done)
        elif done is not None:
            done(self.refusal)

    def reject(self, source: str, payload: bytes, why: str) -> None:
        if not why:
            self.problems.append("reject must say why")

    def seen(self, device: str, type: str = "") -> None:
        self.devices.append(device)

    def gone(self, device: str) -> None:
        pass

    def health(self, health: Health, reason: str = "") -> None:
        self.healths.append(health)
        if health is Health.DEGRADED and not reason:
            self.problems.append("health(DEGRADED) must have a reason that names the fix")

    def when_room(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)


_watching: list[str] | None = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watching is None or not event.startswith(_IO_EVENTS):
        return
    if event == "open" and str(args[0]).endswith(_MODULES):
        return  # an import
    _watching.append(event)


_is_hooked = False


def _io_of(work: Callable[[], Any]) -> list[str]:
    """Which files, sockets and processes `work` touches."""
    global _watching, _is_hooked
    if not _is_hooked:
        sys.addaudithook(_audit)
        _is_hooked = True
    found: list[str] = []
    _watching = found
    try:
        work()
    finally:
        _watching = None
    return found


async def check_connector(
    kind: ConnectorKind, table: dict[str, Json], *, send: Send | None = None, start_s: float = START_S
) -> list[str]:
    """What is wrong, nothing if all is well. `table` are settings that work here; without `send` it is not checked
    that the source is told only when everything is on disk."""
    table = {"name": "conformance", **table}
    try:
        settings = msgspec.convert(table, kind.settings)
    except msgspec.ValidationError as error:
        return [f"the settings are refused: {error}"]
    found = _check_settings(kind, table, settings)
    return found or [*await _check_life(kind, settings, send, start_s)]


def _check_settings(kind: ConnectorKind, table: dict[str, Json], settings: Any) -> list[str]:
    found: list[str] = []
    try:
        msgspec.convert({**table, _NO_SUCH: 1}, kind.settings)
        found.append("settings must refuse names they do not know: class …(Settings, forbid_unknown_fields=True)")
    except msgspec.ValidationError:
        pass
    kind.check(settings)  # imports what it needs
    if touched := _io_of(lambda: kind.check(settings)):
        found.append(f"check() must not touch the world; it did: {', '.join(sorted(set(touched)))}")
    found += [f"check() finds a problem in the settings: {problem.text}" for problem in kind.check(settings)]
    if touched := _io_of(lambda: kind.build(settings, Watched())):
        found.append(f"the constructor opens nothing, run() does; it did: {', '.join(sorted(set(touched)))}")
    return found


async def _check_life(kind: ConnectorKind, settings: Any, send: Send | None, start_s: float) -> list[str]:
    site, tasks, descriptors = Watched(), asyncio.all_tasks(), _descriptors()
    connector = kind.build(settings, site)
    running = asyncio.ensure_future(connector.run())
    found: list[str] = []
    await _until(lambda: site.healths or running.done(), start_s)
    if not site.healths:
        found.append(f"run() must report health(…) within {start_s:g} s of its start")
    if not running.done():
        if send is not None:
            found += await _check_acknowledgement(connector, site, send)
        found += await _check_refusal(connector, site, send)
        found += await _check_unknown_method(connector, site)
    if running.done() and not running.cancelled():
        error = running.exception()
        found.append(f"run() ended by itself: {type(error).__name__}: {error}" if error else "run() ended by itself")
    found += await _check_end(running, tasks, descriptors)
    return found + list(dict.fromkeys(site.problems))


async def _check_acknowledgement(connector: Connector, site: Watched, send: Send) -> list[str]:
    held: list[Done] = []
    site.held = held
    sending = asyncio.ensure_future(send(connector))
    await _until(lambda: held or sending.done(), START_S)
    await asyncio.wait([sending], timeout=_MOMENT_S)
    was_early = sending.done()
    found = ["the source was told before done(None): call accept with done, and tell it there"] if was_early else []
    site.held = None
    for done in held:
        done(None)
    await asyncio.wait([sending], timeout=START_S)
    if not sending.done():
        found.append(f"the source was not told within {START_S:g} s of done(None)")
        sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    return found


async def _check_refusal(connector: Connector, site: Watched, send: Send | None) -> list[str]:
    before = site.accepted
    site.refusal = Refusal(reason="a refusal by the conformance test", retry_after_s=0.1)
    sending = asyncio.ensure_future(send(connector)) if send is not None else None
    await _until(lambda: site.accepted > before, 2 * _MOMENT_S)
    await asyncio.sleep(_MOMENT_S / 5)
    site.refusal = None
    if sending is not None:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    return []  # whether it still runs is looked at by the caller


async def _check_unknown_method(connector: Connector, site: Watched) -> list[str]:
    device = site.devices[0] if site.devices else "conformance"
    try:
        async with asyncio.timeout(CANCEL_S):
            await connector.call(Call(device=device, method=_NO_SUCH, params=None, timeout_s=CANCEL_S / 2))
    except CallFailed as error:
        return [] if str(error) else ["CallFailed must say what went wrong"]
    except TimeoutError:
        return ["call() must keep the call's timeout_s"]
    except Exception as error:
        return [f"call() of an unknown method must raise CallFailed, not {type(error).__name__}"]
    return ["call() of an unknown method must raise CallFailed and name the methods it knows"]


async def _check_end(running: asyncio.Task[None], tasks: set[Any], descriptors: set[str]) -> list[str]:
    running.cancel()
    await asyncio.wait([running], timeout=CANCEL_S)
    if not running.done():
        return [f"run() must end within {CANCEL_S:g} s of being cancelled, and let CancelledError pass"]
    if not running.cancelled():
        running.exception()
    await _until(lambda: asyncio.all_tasks() <= tasks and _descriptors() <= descriptors, _MOMENT_S)
    found = []
    if left := asyncio.all_tasks() - tasks:
        found.append(f"run() left tasks behind: {', '.join(task.get_name() for task in left)}")
    if kept := _descriptors() - descriptors:
        found.append(f"run() left {len(kept)} open descriptors behind: {', '.join(sorted(kept))}")
    return found


def _descriptors() -> set[str]:
    """The open ones with what they are, where the system tells."""
    folder = Path("/proc/self/fd")
    found = set()
    for name in os.listdir(folder) if folder.exists() else ():
        try:
            found.add(f"{name} → {os.readlink(folder / name)}")
        except OSError:  # it was the listing's own
            continue
    return found


async def _until(holds: Callable[[], Any], timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + timeout_s
    while not holds() and loop.time() < end_s:
        await asyncio.sleep(0.02)


def main(arguments: Sequence[str]) -> int:
    """The command; 0 when all is well."""
    if len(arguments) != 2:
        print("usage: python -m edge_gateway.connectors.plugin.conformance NAME settings.toml", file=sys.stderr)
        return 2
    try:
        table = tomllib.loads(Path(arguments[1]).read_text("utf-8"))
        kind = load(arguments[0])
    except (OSError, tomllib.TOMLDecodeError, CannotLoad, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    found = asyncio.run(check_connector(kind, table))
    for problem in found:
        print(f"✘ {problem}")
    if not found:
        print(f"✔ {arguments[0]} keeps the contract (acknowledgement not checked: that needs send=… in a test)")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
