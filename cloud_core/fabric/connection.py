"""One connection to one NATS server, from opening to its end: nats-py speaks the protocol, `NatsFabric` decides.

nats-py can connect again by itself, and is not let: it gives up for good when a server refuses a login that was good
before, and does not say at once when a connection has ended. Where its inner methods are replaced, the reason stands
beside it; the version is pinned for that.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from nats import errors
from nats.aio.client import Client

from cloud_core.fabric.addresses import Address

CONNECT_S = 3
MAX_SILENT_PINGS = 2


class ConnectFailed(Exception):
    """`str()` is the reason in few words, without secrets."""


class Connection(Client):
    """`on_arrived(subject, data)` for each message; `on_ended(why)` once, when it is of no use any more."""

    def __init__(
        self, address: Address, *, on_arrived: Callable[[str, bytes], None], on_ended: Callable[[str], None]
    ) -> None:
        super().__init__()
        self.address = address
        self._on_arrived = on_arrived
        self._on_ended: Callable[[str], None] | None = on_ended
        self._why = ""

    async def open(self, subjects: Iterable[str], *, name: str, ping_s: float, tls: ssl.SSLContext | None) -> None:
        """Connects and subscribes. Raises: ConnectFailed; another try needs another `Connection`."""
        try:
            await asyncio.wait_for(self._open(subjects, name, ping_s, tls), 2 * CONNECT_S)
        except asyncio.CancelledError:
            await self._give_up()
            raise
        except Exception as error:  # a peer that is no NATS server may say anything
            await self._give_up()
            raise ConnectFailed(_reason(error)) from None
        if self.is_closed:
            raise ConnectFailed(self._why or "it was closed at once")

    async def _open(self, subjects: Iterable[str], name: str, ping_s: float, tls: ssl.SSLContext | None) -> None:
        address = self.address
        options: dict[str, Any] = {"tls": tls} if tls is not None else {}
        options["ping_interval"] = ping_s  # nats-py sleeps for it, and says that it is an int
        await self.connect(
            str(address), user=address.user, password=address.password, token=address.token, name=name, no_echo=True,
            allow_reconnect=False, error_cb=self._noted, connect_timeout=CONNECT_S,
            max_outstanding_pings=MAX_SILENT_PINGS, **options,
        )  # fmt: skip
        for subject in subjects:
            await self.subscribe(subject, cb=_never)

    async def _give_up(self) -> None:
        self._on_ended = None
        await self.close()

    async def _select_next_server(self) -> None:
        """The one there is, once: nats-py would try again and again, and keep the reason to itself."""
        server = self._server_pool[0]
        await self._connect_to_server(server)
        self._current_server = server

    def _connect_command(self) -> bytes:
        """The password goes out with this; nats-py would send it in the clear if the server, or who says so, asks."""
        if self.address.is_secure and not self._server_info.get("tls_required"):
            raise errors.SecureConnRequiredError
        return super()._connect_command()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Delivers here, and queues nothing.

        nats-py would queue by subject, which mixes up the order of a sender's messages, and drop above a limit. So the
        connection itself holds senders back, and the server cuts it where it is too slow, which is noticed.
        """
        self._on_arrived(subject.decode("utf-8", "replace"), data)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        """Says so at once, and lets nothing linger.

        With a peer that does not read, or whose certificate is refused, nats-py would wait for an end that never comes.
        """
        said, self._on_ended = self._on_ended, None
        self._pending.clear()
        self._pending_data_size = 0
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        self._transport = None
        if said is not None:
            said(self._why or (_reason(self._err) if self._err is not None else "it was closed"))
        await super()._close(status, do_cbs)

    async def _noted(self, error: Exception) -> None:
        """What nats-py says of a connection; a login that may not publish or subscribe is of no use."""
        self._why = _reason(error)
        if "permissions violation" in self._why.lower() and self._on_ended is not None:
            await self._close(Client.CLOSED)


async def _never(_message: object) -> None:
    """nats-py wants a callback for each subject; `Connection` delivers without."""


def _reason(error: Exception) -> str:
    """In few words; nats-py knows neither user nor password when it speaks of an address."""
    if isinstance(error, asyncio.TimeoutError):
        return "it does not answer"
    if isinstance(error, errors.SecureConnRequiredError):
        return "it speaks no TLS, which tls:// asks for"
    text = str(error).removeprefix("nats: ").strip("'")
    return text or type(error).__name__
