"""One connection to a server; what goes wrong on the way is told in words that name the fix."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509

from edge_gateway.connectors.opcua.compiling import Draft
from edge_gateway.connectors.opcua.library import CertProperties, Client, UaError, policies, ua
from edge_gateway.connectors.opcua.settings import OpcuaSettings

T = TypeVar("T")
_logger = logging.getLogger(__name__)

_HINTS = {
    "BadIdentityTokenRejected": "the server refuses user and password; check `user` and `password`",
    "BadIdentityTokenInvalid": "the server wants another kind of login; check `user` and `password`",
    "BadUserAccessDenied": "the server refuses the user; check `user` and `password`",
    "BadCertificateUntrusted": "the server does not trust our certificate; trust it there",
    "BadSecurityChecksFailed": "the server does not trust our certificate; trust it there, then check `certificate`",
    "BadSecurityPolicyRejected": "the server does not offer this security; check `security` and `mode`",
    "BadCertificateUriInvalid": "the application URI in our certificate is wrong; make a new certificate",
    "BadTooManySessions": "the server has no session left; close other clients",
}


class Lost(Exception):
    """There is no connection, or none any more."""


class Session:
    """Opened and closed once."""

    def __init__(self, settings: OpcuaSettings, draft: Draft) -> None:
        self._settings, self._draft = settings, draft
        self.client: Any = None
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Raises: Lost."""
        settings = self._settings
        self.client = Client(settings.connect, timeout=self._draft.timeout_s, watchdog_intervall=self._draft.timeout_s)
        self.client.connection_lost_callback = self._connection_lost
        if settings.user:
            self.client.set_user(settings.user)
            self.client.set_password(settings.password)
        try:
            async with asyncio.timeout(self._draft.timeout_s * 5):
                await self._secure()
                await self.client.connect()
        except (OSError, TimeoutError, UaError, ValueError) as error:
            raise Lost(f"{settings.connect}: {in_words(error)}") from error
        await self._learn_types()

    async def _secure(self) -> None:
        settings = self._settings
        if settings.security == "none":
            return
        for path in (settings.certificate, settings.private_key, settings.server_certificate):
            if path and not Path(path).is_file():
                raise ValueError(f"there is no file {path}")
        if uri := _application_uri(Path(settings.certificate)):
            self.client.application_uri = uri
        mode = ua.MessageSecurityMode.Sign if settings.mode == "sign" else ua.MessageSecurityMode.SignAndEncrypt
        await self.client.set_security(
            getattr(policies, f"SecurityPolicy{settings.security}"),
            _as_file(settings.certificate),
            _as_file(settings.private_key, settings.private_key_password),
            server_certificate=_as_file(settings.server_certificate) if settings.server_certificate else None,
            mode=mode,
        )

    async def _learn_types(self) -> None:
        """The server's own structures. Servers describe them in ways that the library cannot always follow; their
        other values are read all the same."""
        try:
            async with asyncio.timeout(self._draft.timeout_s * 2):
                await self.client.load_data_type_definitions()
        except Exception as error:
            _logger.info("%s: its own structures are not known: %s", self._settings.connect, in_words(error))

    async def _connection_lost(self, error: Exception) -> None:
        self.lose("the connection is lost; check the server and the network")

    def lose(self, why: str) -> None:
        if not self._lost.done():
            self._lost.set_result(why)

    async def ask(self, request: Awaitable[T]) -> T:
        """What the server answers. Raises: Lost, also for a time-out of the library; UaError."""
        try:
            return await request
        except (OSError, ConnectionError) as error:
            raise Lost(f"{self._settings.connect}: {in_words(error)}") from error
        except UaError as error:
            if self._lost.done() or type(error).__name__ in (
                "BadConnectionClosed",
                "BadSessionIdInvalid",
                "BadShutdown",
            ):
                raise Lost(f"{self._settings.connect}: {in_words(error)}") from error
            raise

    async def wait(self, wait_s: float | None, tasks: Sequence[asyncio.Task[None]]) -> None:
        """So long, or until the connection or one of `tasks` ends. Raises: Lost, and what a task raised."""
        waiting: set[asyncio.Future[Any]] = {self._lost, *tasks}
        done, _ = await asyncio.wait(waiting, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        if self._lost.done():
            raise Lost(f"{self._settings.connect}: {self._lost.result()}")
        for task in done:
            task.result()

    async def close(self) -> None:
        if self.client is None:
            return
        with contextlib.suppress(OSError, TimeoutError, UaError):
            async with asyncio.timeout(self._draft.timeout_s):
                await self.client.disconnect()


def _as_file(path: str, password: str = "") -> Any:
    """PEM or DER is told by the content: files are named in many ways."""
    kind = "pem" if b"-----BEGIN" in Path(path).read_bytes() else "der"
    return CertProperties(path, kind, password or None)


def _application_uri(path: Path) -> str:
    """Of our certificate: the server compares it."""
    data = path.read_bytes()
    try:
        certificate = (
            x509.load_pem_x509_certificate(data) if b"-----BEGIN" in data else x509.load_der_x509_certificate(data)
        )
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else ""


def in_words(error: BaseException) -> str:
    name = type(error).__name__
    if name in _HINTS:
        return f"{_HINTS[name]} ({name})"
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "no answer in time; check address and network"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there; check port and server"
    return f"{name}: {error}" if str(error) else name
