"""The parent: a plug-in in a process of its own, so that one which blocks or crashes hurts nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import msgspec
from twisted.logger import Logger

from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.plugin import messages as m
from edge_gateway.connectors.plugin.settings import PluginSettings
from edge_gateway.model import Call, CallFailed, Health, Json, Reading, Refusal

log = Logger()

PING_EVERY_S: float = 10.0
SILENCE_S: float = 30.0  # without a pong for so long it is killed
_STOP_S, _TERM_S = 1.0, 2.0  # to end after stop, and after SIGTERM
_MAX_UNSENT_BYTES: Final = 4 * 1_048_576
_MAX_CALLS: Final = 1_000
_ATTRIBUTES_TIMEOUT_S: Final = 30.0
_LOG_LINES_A_SECOND: Final = 20
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", "VIRTUAL_ENV")


class PluginFailed(Exception):
    """The plug-in ended or was ended; `str()` says why."""


def environment_for(ours: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """What the child may know: nothing of ours that could be a secret."""
    return {name: ours[name] for name in _PASSED_ON if name in ours} | {"PYTHONUNBUFFERED": "1"} | dict(own)


class PluginConnector:
    """The connector."""

    def __init__(self, settings: PluginSettings, site: Site) -> None:
        self._settings, self._site = settings, site
        self._process: Process | None = None
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._last_id = 0
        self._unacknowledged = 0
        self._has_room = asyncio.Event()
        self._is_paused = False
        self._was_told_congested = False
        self._was_told_raw = site.wants_raw
        self._heard_s = 0.0
        self._last_words = ""
        self._is_greeted = False

    async def run(self) -> None:
        """See `Connector`. Raises: PluginFailed."""
        settings = self._settings
        command = settings.command or [sys.executable, "-m", "edge_gateway.connectors.plugin.host", settings.plugin]
        self._site.health(Health.STARTING)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=m.MAX_LINE_BYTES,
                env=environment_for(os.environ, settings.environment),
                start_new_session=True,
            )
        except OSError as error:
            raise PluginFailed(f"cannot start {command[0]}: {error.strerror}") from error
        self._process = process
        try:
            self._send(
                m.Hello(
                    version=m.VERSION,
                    name=self._site.name,
                    settings=settings.settings,
                    wants_raw=self._site.wants_raw,
                )
            )
            self._heard_s = time.monotonic()
            await self._attend(process)
        finally:
            await _unhurried(self._end(process))

    async def _attend(self, process: Process) -> None:
        words = asyncio.ensure_future(self._log_words(process))
        work = [asyncio.ensure_future(self._read(process)), asyncio.ensure_future(self._watch())]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done():
                    task.result()  # raises PluginFailed
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(words), _STOP_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _STOP_S)
            status = process.returncode
            ending = "closed its output" if status is None else f"ended with status {status}"
            raise PluginFailed(f"the plug-in {ending}" + (f": {self._last_words}" if self._last_words else ""))
        finally:
            for task in (*work, words):
                task.cancel()
            await asyncio.gather(*work, words, return_exceptions=True)

    async def call(self, call: Call) -> Json:
        """See `Connector`."""
        order = partial(m.CallOrder, device=call.device, method=call.method, params=call.params)
        return await self._ask(partial(order, timeout_s=call.timeout_s), call.timeout_s)

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """See `Connector`."""
        await self._ask(partial(m.Attributes, device=device, values=values, deleted=deleted), _ATTRIBUTES_TIMEOUT_S)

    async def _ask(self, order: Any, timeout_s: float) -> Json:
        if self._process is None or not self._is_greeted:
            raise CallFailed(f"the plug-in '{self._site.name}' is not running; try again later")
        if len(self._waiting) >= _MAX_CALLS:
            raise CallFailed("too many calls wait for the plug-in; try again later")
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._send(order(id=number))
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise CallFailed(f"no answer from the plug-in within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(number, None)

    # -- the pipe -------------------------------------------------------------------------------------

    def _send(self, message: Any) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            return  # its end is noticed by the reader
        if process.stdin.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            _kill(process)  # it does not read; the reader tells
            self._last_words = "it did not read what it was sent"
            return
        process.stdin.write(m.encode(message))

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                raise PluginFailed(f"the plug-in sent a line of more than {m.MAX_LINE_BYTES} bytes") from None
            if not line:
                return
            try:
                message = m.decode_from_plugin(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise PluginFailed(f"the plug-in sent what is no message ({error}): {line[:100]!r}") from None
            self._take(message)
            await self._room()

    async def _room(self) -> None:
        """Reads no further while too much waits for the disk."""
        while self._unacknowledged >= self._settings.max_unacknowledged:
            self._is_paused = True
            self._has_room.clear()
            await self._has_room.wait()
        if self._is_paused:
            self._is_paused = False
            self._heard_s = time.monotonic()

    def _take(self, message: Any) -> None:
        site = self._site
        match message:
            case m.Hello(version=version):
                if version != m.VERSION:
                    raise PluginFailed(f"the plug-in speaks version {version} of the protocol, we {m.VERSION}")
                self._is_greeted = True
            case m.Ended(why=why):
                raise PluginFailed(why[:2_000])
            case _ if not self._is_greeted:
                raise PluginFailed("the plug-in did not begin with hello")
            case m.Readings(seq=seq, readings=readings):
                self._take_readings(seq, [_reading(one) for one in readings])
            case m.Reject(source=source, payload=payload, why=why):
                site.reject(source, payload, why)
            case m.Seen(device=device, type=type):
                site.seen(device, type)
            case m.Gone(device=device):
                site.gone(device)
            case m.HealthOrder(health=health, reason=reason):
                if health in (Health.STARTING, Health.HEALTHY, Health.DEGRADED):
                    site.health(health, reason[:2_000])
            case m.Result(id=number, value=value):
                self._answer(number, value, None)
            case m.Failed(id=number, error=error):
                self._answer(number, None, CallFailed(error))
            case m.Pong():
                self._heard_s = time.monotonic()

    def _take_readings(self, seq: int, readings: list[Reading]) -> None:
        if readings:
            self._unacknowledged += 1
            self._site.accept(readings, partial(self._settled, seq))
        elif seq:
            self._send(m.Ack(seq=seq))
        if self._site.wants_raw != self._was_told_raw:
            self._was_told_raw = self._site.wants_raw
            self._send(m.Raw(is_wanted=self._was_told_raw))
        if self._site.is_congested and not self._was_told_congested:
            self._was_told_congested = True
            self._send(m.Congested())
            self._site.when_room(self._tell_room)

    def _settled(self, seq: int, refusal: Refusal | None) -> None:
        self._unacknowledged -= 1
        self._has_room.set()
        if seq and refusal is None:
            self._send(m.Ack(seq=seq))
        elif seq and refusal is not None:
            self._send(m.Refuse(seq=seq, reason=refusal.reason, retry_after_s=refusal.retry_after_s))

    def _tell_room(self) -> None:
        self._was_told_congested = False
        self._send(m.Room())

    def _answer(self, number: int, value: Json, error: CallFailed | None) -> None:
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return  # the caller has given up
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)

    # -- its life -------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Raises: PluginFailed when it answers no ping."""
        number = 0
        while True:
            await asyncio.sleep(PING_EVERY_S)
            silent_s = time.monotonic() - self._heard_s
            if silent_s > SILENCE_S and not self._is_paused:
                raise PluginFailed(f"the plug-in did not answer for {silent_s:.0f} s: it hangs; it was killed")
            number += 1
            self._send(m.Ping(number=number))

    async def _log_words(self, process: Process) -> None:
        """Its standard error to our log, so many lines a second."""
        assert process.stderr is not None
        second, lines, rest = 0, 0, b""
        while chunk := await process.stderr.read(4_096):
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) > 4_096:
                whole, rest = [*whole, rest], b""
            for line in whole:
                text = line.decode("utf-8", "replace").rstrip()[:500]
                self._last_words = text or self._last_words
                now = int(time.monotonic())
                second, lines = (now, 1) if now != second else (second, lines + 1)
                if lines <= _LOG_LINES_A_SECOND and text:
                    log.info("{name}: {line}", name=self._site.name, line=text)
                elif lines == _LOG_LINES_A_SECOND + 1:
                    log.warn("{name} says too much; the rest of this second is left out", name=self._site.name)

    async def _end(self, process: Process) -> None:
        """Asks it to stop, then insists; leaves no process of its session."""
        self._send(m.Stop())
        self._process = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(CallFailed("the plug-in ended before it answered"))
        if process.stdin is not None:
            process.stdin.close()
        for wait_s, insist in ((_STOP_S, partial(process.send_signal, signal.SIGTERM)), (_TERM_S, None)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), wait_s)
                break
            if insist is not None:
                with contextlib.suppress(ProcessLookupError):
                    insist()
        _kill(process)
        await process.wait()


async def _unhurried(work: Any) -> None:
    """Runs to its end though we are cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _kill(process: Process) -> None:
    """The process and those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _reading(one: m.OneReading) -> Reading:
    return Reading(one.device, one.type, one.ts_ms, one.telemetry, one.attributes, one.reports, one.raw)
