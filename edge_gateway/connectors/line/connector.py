"""Devices that send lines or frames over TCP, UDP or a serial port."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import OrderedDict
from typing import Any, Final

from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.line.framing import Framer
from edge_gateway.connectors.line.links import SerialLink, TcpLink, UdpLink, UdpPort
from edge_gateway.connectors.line.session import Map, Rules, Session
from edge_gateway.connectors.line.settings import LineSettings, Place, place_of
from edge_gateway.mapping.amounts import parse_duration, parse_size
from edge_gateway.mapping.interface import CompiledTemplate, MappingError
from edge_gateway.mapping.templates import compile_body, compile_template
from edge_gateway.model import Call, CallFailed, Health, Json

_MAX_DEVICES: Final = 20_000  # whose connection is remembered
_CONNECT_TIMEOUT_S: Final = 10.0
_BACKOFF_MAX_S: Final = 60.0
BACKOFF_MIN_S: float = 1.0


def _template(text: str) -> CompiledTemplate | None:
    return compile_template(text) if text else None


class LineConnector:
    """The connector."""

    def __init__(self, settings: LineSettings, site: Site) -> None:
        self._settings, self._site = settings, site
        self._place = place_of(settings.connect or settings.listen)
        self._silence_s = parse_duration(settings.idle_timeout)
        self._rules = Rules(
            site=site,
            maps=[Map(one) for one in settings.map],
            ack=_template(settings.ack),
            refuse=_template(settings.refuse),
            spoke=self._spoke,
            ended=self._ended,
        )
        self._calls = {
            method: (compile_body(one.write), re.compile(one.reply) if one.reply else None, parse_duration(one.timeout))
            for method, one in settings.rpc.items()
        }
        self._shared = _template(settings.shared)
        self._sessions: dict[Session, asyncio.Event] = {}
        self._senders: OrderedDict[Any, Session] = OrderedDict()  # of datagrams
        self._by_device: OrderedDict[str, Session] = OrderedDict()
        self._last_loss = ""
        self.port = 0

    async def run(self) -> None:
        """See `Connector`. Raises: OSError when the port cannot be opened."""
        try:
            if self._settings.connect:
                await self._keep_connected()
            elif self._place.scheme == "udp":
                await self._listen_udp()
            else:
                await self._listen_tcp()
        finally:
            for session in list(self._sessions):
                session.link.close()

    # -- connections ------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        backoff_s = BACKOFF_MIN_S
        while True:
            try:
                session = await self._connect(self._place)
            except (OSError, TimeoutError) as error:
                self._last_loss = _reason(error)
            else:
                self._site.health(Health.HEALTHY)
                start_s = time.monotonic()
                await self._until_over(session)
                if time.monotonic() - start_s > backoff_s:
                    backoff_s = BACKOFF_MIN_S
            self._site.health(Health.DEGRADED, f"{self._place}: {self._last_loss}; trying again")
            await asyncio.sleep(backoff_s * random.uniform(0.8, 1.2))
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)

    async def _connect(self, place: Place) -> Session:
        if place.scheme == "serial":
            link = SerialLink(place)
            session = self._session(link, place.path)
            link.start(session)
            return session
        loop = asyncio.get_running_loop()
        made: list[Session] = []

        def opened(link: TcpLink, peer: str) -> Session:
            made.append(self._session(link, peer))
            return made[0]

        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await loop.create_connection(lambda: TcpLink(opened), place.host, place.port)
        return made[0]

    async def _until_over(self, session: Session) -> None:
        """Returns when the connection ended; ends it when it is silent for too long."""
        over = self._sessions.get(session)
        while over is not None and not over.is_set():
            left_s = self._silence_s - session.silent_s if self._silence_s else None
            if left_s is not None and left_s <= 0:
                session.link.close()
                self._ended(session, f"silent for {self._silence_s:g} s")
                return
            try:
                async with asyncio.timeout(left_s):
                    await over.wait()
            except TimeoutError:
                continue

    async def _listen_tcp(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(lambda: TcpLink(self._opened), self._place.host, self._place.port)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {self._place}: {error.strerror}") from error
        self.port = server.sockets[0].getsockname()[1]
        self._site.health(Health.HEALTHY)
        try:
            while True:
                await asyncio.sleep(1.0 if self._silence_s else 3_600.0)
                self._close_silent()
        finally:
            server.close()

    def _opened(self, link: TcpLink, peer: str) -> Session | None:
        if len(self._sessions) >= self._settings.max_connections:
            text = f"more than {self._settings.max_connections} connections; raise max_connections"
            self._site.health(Health.DEGRADED, text)
            return None
        return self._session(link, peer)

    def _close_silent(self) -> None:
        for session in [one for one in self._sessions if self._silence_s and one.silent_s > self._silence_s]:
            session.link.close()

    async def _listen_udp(self) -> None:
        loop = asyncio.get_running_loop()
        address = (self._place.host, self._place.port)
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: UdpPort(lambda data, sender: self._datagram(transport, data, sender)), local_addr=address
            )
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {self._place}: {error.strerror}") from error
        self.port = transport.get_extra_info("sockname")[1]
        self._site.health(Health.HEALTHY)
        try:
            await loop.create_future()
        finally:
            transport.close()

    def _datagram(self, transport: asyncio.DatagramTransport, data: bytes, sender: Any) -> None:
        """A datagram is a message, or several; none goes on in the next."""
        session = self._senders.get(sender)
        if session is None:
            session = Session(self._rules, UdpLink(transport, sender), str(sender[0]), self._framer(), can_wait=False)
            self._senders[sender] = session
            if len(self._senders) > self._settings.max_connections:
                _, oldest = self._senders.popitem(last=False)
                oldest.lost("others have sent since")
        self._senders.move_to_end(sender)
        settings = self._settings
        ending = b"" if settings.length or settings.length_prefix else settings.delimiter.encode()
        session.datagram(data if data.endswith(ending) else data + ending)

    def _framer(self) -> Framer:
        settings = self._settings
        return Framer(
            delimiter=settings.delimiter.encode(),
            length=settings.length,
            prefix=settings.length_prefix,
            max_bytes=parse_size(settings.max_frame),
        )

    def _session(self, link: Any, peer: str) -> Session:
        session = Session(self._rules, link, peer, self._framer())
        self._sessions[session] = asyncio.Event()
        return session

    def _spoke(self, session: Session, device: str) -> None:
        earlier = self._by_device.get(device)
        if earlier is not None and earlier is not session:
            earlier.devices.discard(device)
        session.devices.add(device)
        self._by_device[device] = session
        self._by_device.move_to_end(device)
        if len(self._by_device) > _MAX_DEVICES:
            forgotten, whose = self._by_device.popitem(last=False)
            whose.devices.discard(forgotten)

    def _ended(self, session: Session, why: str) -> None:
        session.is_over = True
        self._last_loss = why
        over = self._sessions.pop(session, None)
        if over is not None:
            over.set()
        if self._settings.listen and len(self._sessions) < self._settings.max_connections:
            self._site.health(Health.HEALTHY)
        for device in session.devices:
            del self._by_device[device]
            self._site.gone(device)
        session.devices = set()

    # -- commands ---------------------------------------------------------------------------------------

    async def call(self, call: Call) -> Json:
        """See `Connector`."""
        found = self._calls.get(call.method)
        if found is None:
            known = f"it knows {', '.join(self._calls)}" if self._calls else "it has no rpc in the configuration"
            raise CallFailed(f"'{self._site.name}' has no method '{call.method}'; {known}")
        write, reply, timeout_s = found
        document = {"method": call.method, "params": call.params}
        try:
            line = write.render({"device": call.device, "method": call.method}, document).encode()
        except MappingError as error:
            raise CallFailed(str(error)) from error
        return await self._session_of(call.device).ask(line, reply, min(timeout_s, call.timeout_s))

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """See `Connector`."""
        if self._shared is None:
            return
        session = self._session_of(device)
        for key, value in values.items():
            try:
                session.write(self._shared.render({"device": device, "key": key}, {"value": value}).encode())
            except MappingError as error:
                raise CallFailed(f"{key}: {error}") from error

    def _session_of(self, device: str) -> Session:
        session = self._by_device.get(device)
        if session is None and self._settings.connect and self._sessions:
            session = next(iter(self._sessions))
        if session is None and self._settings.connect:
            raise CallFailed(f"{self._place} is not connected: {self._last_loss or 'it is starting'}")
        if session is None:
            raise CallFailed(f"{device} has no connection now; it must connect and send something first")
        return session


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_CONNECT_TIMEOUT_S:g} s"
    return getattr(error, "strerror", None) or str(error)
