"""The child: loads a plug-in written as a `ConnectorKind` and runs it over the pipe.

`python -m edge_gateway.connectors.plugin.host NAME`: NAME is an entry point of the group `muster.connectors`, or
`module:ATTRIBUTE`. What the plug-in prints goes to standard error, and so to the gateway's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, Final

import msgspec

from edge_gateway.connectors.interface import Connector, ConnectorKind, Done
from edge_gateway.connectors.plugin import messages as m
from edge_gateway.model import Call, CallFailed, Health, Json, Reading, Refusal

GROUP: Final = "muster.connectors"
MAX_UNSENT_BYTES: Final = 4 * 1_048_576
MAX_UNACKNOWLEDGED: Final = 1_000
_RETRY_S: Final = 1.0


class CannotLoad(Exception):
    """There is no such plug-in, or its settings are wrong; `str()` says the fix."""


def load(name: str) -> ConnectorKind:
    """The kind of that name. Raises: CannotLoad, and whatever the plug-in's import raises."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        kind = getattr(importlib.import_module(module), attribute, None)
    else:
        found = {one.name: one for one in entry_points(group=GROUP)}
        if name not in found:
            known = f"known are {', '.join(sorted(found))}" if found else "none is installed"
            raise CannotLoad(f"there is no plug-in '{name}'; {known}. Install its package beside the gateway's")
        kind = found[name].load()
    if not isinstance(kind, ConnectorKind):
        raise CannotLoad(f"'{name}' is no ConnectorKind")
    return kind


def settings_for(kind: ConnectorKind, name: str, table: dict[str, Json]) -> Any:
    """The plug-in's own settings. Raises: CannotLoad with every mistake."""
    try:
        settings = msgspec.convert({"name": name, **table}, kind.settings)
    except msgspec.ValidationError as error:
        raise CannotLoad(f"settings: {error}") from None
    problems = kind.check(settings)
    if problems:
        told = "; ".join(".".join(map(str, ("settings", *one.path))) + f": {one.text}" for one in problems)
        raise CannotLoad(told)
    return settings


class PipedSite:
    """The `Site` that the plug-in sees."""

    def __init__(self, hello: m.Hello, write: Callable[[bytes], None], unsent_bytes: Callable[[], int]) -> None:
        self.name = hello.name
        self.wants_raw = hello.wants_raw
        self._write, self._unsent_bytes = write, unsent_bytes
        self._waiting: dict[int, Done | None] = {}
        self._last_seq = 0
        self._parent_is_congested = False
        self._room: list[Callable[[], None]] = []

    def accept(self, readings: Sequence[Reading], done: Done | None = None) -> None:
        """See `Site`."""
        line = b""
        refusal: Refusal | None = None
        if len(self._waiting) >= MAX_UNACKNOWLEDGED or self._unsent_bytes() > MAX_UNSENT_BYTES:
            refusal = Refusal(reason="the gateway is busy; try again later", retry_after_s=_RETRY_S)
        else:
            line = m.encode(m.Readings(seq=self._last_seq + 1, readings=[_plain(one) for one in readings]))
            if len(line) > m.MAX_LINE_BYTES:
                refusal = Refusal(reason="more than 1 MiB in one call of accept; hand readings over in smaller parts")
        if refusal is not None:
            if done is not None:
                done(refusal)
            return
        self._last_seq += 1
        self._waiting[self._last_seq] = done
        self._write(line)

    def settle(self, seq: int, refusal: Refusal | None) -> None:
        """The gateway's answer."""
        done = self._waiting.pop(seq, None)
        if done is not None:
            done(refusal)
        self._tell_room()

    def reject(self, source: str, payload: bytes, why: str) -> None:
        """See `Site`."""
        self._write(m.encode(m.Reject(source=source[:1_000], payload=payload[:1_000], why=why[:1_000])))

    def seen(self, device: str, type: str = "") -> None:
        """See `Site`."""
        self._write(m.encode(m.Seen(device=device, type=type)))

    def gone(self, device: str) -> None:
        """See `Site`."""
        self._write(m.encode(m.Gone(device=device)))

    def health(self, health: Health, reason: str = "") -> None:
        """See `Site`."""
        self._write(m.encode(m.HealthOrder(health=health, reason=reason[:2_000])))

    @property
    def is_congested(self) -> bool:
        """See `Site`."""
        return self._parent_is_congested or len(self._waiting) >= MAX_UNACKNOWLEDGED // 2

    def when_room(self, callback: Callable[[], None]) -> None:
        """See `Site`."""
        self._room.append(callback)
        if not self.is_congested:
            asyncio.get_running_loop().call_soon(self._tell_room)

    def congest(self, is_congested: bool) -> None:
        """The gateway's word."""
        self._parent_is_congested = is_congested
        self._tell_room()

    def _tell_room(self) -> None:
        if not self.is_congested and self._room:
            room, self._room = self._room, []
            for callback in room:
                callback()


def _plain(reading: Reading) -> m.OneReading:
    def copy(values: Any) -> Any:
        return None if values is None else dict(values)

    return m.OneReading(
        device=reading.device,
        type=reading.type,
        ts_ms=reading.ts_ms,
        telemetry=copy(reading.telemetry),
        attributes=copy(reading.attributes),
        reports=copy(reading.reports),
        raw=copy(reading.raw),
    )


class Host:
    """Reads what the gateway says and does it."""

    def __init__(self, site: PipedSite, connector: Connector, write: Callable[[bytes], None]) -> None:
        self._site, self._connector, self._write = site, connector, write
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Returns when the gateway says stop or closes the pipe."""
        while line := await reader.readline():
            message = m.decode_to_plugin(line)
            if isinstance(message, m.Stop):
                return
            self._do(message)

    def _do(self, message: Any) -> None:
        match message:
            case m.Ping(number=number):
                self._write(m.encode(m.Pong(number=number)))
            case m.Ack(seq=seq):
                self._site.settle(seq, None)
            case m.Refuse(seq=seq, reason=reason, retry_after_s=retry_after_s):
                self._site.settle(seq, Refusal(reason=reason, retry_after_s=retry_after_s))
            case m.CallOrder(id=number):
                call = Call(
                    device=message.device, method=message.method, params=message.params, timeout_s=message.timeout_s
                )
                self._start(self._answered(number, self._connector.call(call)))
            case m.Attributes(id=number):
                changed = self._connector.attributes_changed(message.device, message.values, message.deleted)
                self._start(self._answered(number, changed))
            case m.Congested() | m.Room():
                self._site.congest(isinstance(message, m.Congested))
            case m.Raw(is_wanted=is_wanted):
                self._site.wants_raw = is_wanted

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answered(self, number: int, work: Any) -> None:
        try:
            line = m.encode(m.Result(id=number, value=await work))
            if len(line) > m.MAX_LINE_BYTES:
                raise CallFailed("the answer is longer than 1 MiB")
        except CallFailed as error:
            line = m.encode(m.Failed(id=number, error=str(error)[:4_000]))
        except Exception as error:
            traceback.print_exc()
            line = m.encode(m.Failed(id=number, error=f"the plug-in failed: {type(error).__name__}"))
        self._write(line)


async def _main(name: str, output: int) -> int:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=m.MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(output, "wb", 0))
    hello = m.decode_to_plugin(await reader.readline())
    if not isinstance(hello, m.Hello) or hello.version != m.VERSION:
        transport.write(m.encode(m.Ended(why=f"the plug-in speaks version {m.VERSION} of the protocol, not this one")))
        return 1
    transport.write(m.encode(m.Hello(version=m.VERSION, name=name)))
    site = PipedSite(hello, transport.write, transport.get_write_buffer_size)
    why = ""
    try:
        kind = load(name)
        connector = kind.build(settings_for(kind, hello.name, hello.settings), site)
        await _until_either_ends(connector, Host(site, connector, transport.write).serve(reader))
    except CannotLoad as error:
        why = str(error)
    except Exception as error:
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"
    if why:
        transport.write(m.encode(m.Ended(why=why[:4_000])))
    while transport.get_write_buffer_size():
        await asyncio.sleep(0.01)
    return 1 if why else 0


async def _until_either_ends(connector: Connector, serving: Any) -> None:
    running, served = asyncio.ensure_future(connector.run()), asyncio.ensure_future(serving)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, served.cancel)
    loop.add_signal_handler(signal.SIGINT, served.cancel)
    await asyncio.wait((running, served), return_when=asyncio.FIRST_COMPLETED)
    for task in (running, served):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    with contextlib.suppress(asyncio.CancelledError):
        await served


def main() -> None:
    """The command."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m edge_gateway.connectors.plugin.host NAME")
    output = os.dup(1)
    os.dup2(2, 1)  # what the plug-in prints must not get between the messages
    code = asyncio.run(_main(sys.argv[1], output))
    sys.stderr.flush()
    os._exit(code)  # a thread of the plug-in may hang; everything that counts is done


if __name__ == "__main__":
    main()
