"""A bad link between a gateway and its core: cut, frozen, or deaf in one direction, when the test says so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


class CuttingProxy:
    """Forwards a TCP port to another, or to a Unix socket; runs in a thread of its own.

    `cut` resets all connections, `is_refusing` closes new ones at once, `is_frozen` forwards nothing and keeps
    everything open, `is_deaf` forwards nothing that the core says."""

    def __init__(self, target_port: int | str, listener: Callable[[int, bytes], None] | None = None) -> None:
        # `listener(connection, data)` hears what the gateway says, also what does not get through.
        self.target_port = target_port
        self._listener = listener
        self.port = 0
        self.is_refusing = self.is_frozen = self.is_deaf = False
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_ready = threading.Event()

    def start(self) -> CuttingProxy:
        self._thread.start()
        assert self._is_ready.wait(10)
        return self

    def stop(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self) -> None:
        """Resets every connection there is."""
        self._call(self._cut())

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _cut(self) -> None:
        for writer in list(self._open):
            if writer.transport.is_closing():
                continue
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
        self._open.clear()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._is_ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection counts once `cut` reaches it, or it is over."""
        if self.is_refusing:
            self.connections += 1
            writer.transport.abort()
            return
        try:
            core_reader, core_writer = await self._connect()
        except OSError:
            self.connections += 1
            writer.transport.abort()
            return
        self._open |= {writer, core_writer}
        self.connections += 1
        number = self.connections
        await asyncio.gather(self._forward(reader, core_writer, number), self._forward(core_reader, writer, None))
        self._open -= {writer, core_writer}

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target_port, str):
            return await asyncio.open_unix_connection(self.target_port)
        return await asyncio.open_connection("127.0.0.1", self.target_port)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int | None) -> None:
        """`number` of the connection for what the gateway says, None for what the core says."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                while self.is_frozen or (number is None and self.is_deaf):
                    await asyncio.sleep(0.02)
                    if writer.transport.is_closing():
                        return
                if number is not None and self._listener is not None:
                    self._listener(number, data)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
