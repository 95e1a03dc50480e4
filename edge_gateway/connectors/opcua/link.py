"""One connection to the server, and what goes wrong with it in words.

`Any` stands for asyncua's objects, whose types are partial."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from edge_gateway.connectors.opcua.library import Client, security_policies, ua, uacrypto
from edge_gateway.connectors.opcua.places import Place
from edge_gateway.connectors.opcua.settings import OpcuaSettings

_MAX_MESSAGE_BYTES: Final = 16 * 1024**2
_WATCH_S: Final = 5.0  # how often the library asks whether the server is still there
_SESSION_S: Final = 120.0
_LIMITS: Final = {"read": (11705, 500), "browse": (11710, 100), "items": (11714, 500)}
"""OperationLimits of the server, and what we ask in one request when it names no lower ones."""


class Trouble(Exception):
    """What is wrong, in words for the field."""


class Lost(Trouble):
    """The connection is over."""


@dataclass(slots=True)
class Limits:
    read: int
    browse: int
    items: int


class Link:
    """An open session."""

    def __init__(self, client: Any, settings: OpcuaSettings) -> None:
        self.client = client
        self.session = client.uaclient
        self.endpoint = settings.connect
        self.settings = settings
        self.namespaces: list[str] = []
        self.limits = Limits(*(at_most for _, at_most in _LIMITS.values()))
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def lose(self, why: str) -> None:
        """Ends the connection; `why` without the endpoint."""
        if not self.lost.done():
            self.lost.set_result(why)

    def node_id(self, place: Place) -> Any:
        """The node id that `place` names. Raises: Trouble."""
        try:
            node_id = ua.NodeId.from_string(place.node_id)
        except (ua.UaError, ValueError, TypeError):
            raise Trouble(f"'{place.text}' is no node id; write ns=2;i=5 or ns=2;s=Name") from None
        if not isinstance(node_id, ua.ExpandedNodeId):
            return node_id
        if node_id.NamespaceUri not in self.namespaces:
            known = ", ".join(self.namespaces[1:])
            raise Trouble(f"the server has no namespace '{node_id.NamespaceUri}'; it has {known}")
        return ua.NodeId(node_id.Identifier, self.namespaces.index(node_id.NamespaceUri), node_id.NodeIdType)

    async def read(self, node_ids: list[Any], attribute: Any = ua.AttributeIds.Value) -> list[Any]:
        """A DataValue for each, in requests of the server's size."""
        values: list[Any] = []
        for at in range(0, len(node_ids), self.limits.read):
            nodes = [
                ua.ReadValueId(NodeId=node_id, AttributeId=attribute)
                for node_id in node_ids[at : at + self.limits.read]
            ]
            values += await self.session.read(
                ua.ReadParameters(TimestampsToReturn=ua.TimestampsToReturn.Both, NodesToRead=nodes)
            )
        return values

    async def prepare(self) -> None:
        """Learns what the server is like: its namespaces, its limits, its own types."""
        found = await self.read([ua.NodeId(2255), *(ua.NodeId(number) for number, _ in _LIMITS.values())])
        self.namespaces = list(found[0].Value.Value or []) if not _is_bad(found[0]) else []
        for (name, (_, at_most)), value in zip(_LIMITS.items(), found[1:], strict=True):
            told = value.Value.Value if not _is_bad(value) else None
            setattr(self.limits, name, min(told, at_most) if isinstance(told, int) and told > 0 else at_most)
        # Without them structures of the server's own arrive as bytes; that is no reason not to read the rest.
        with contextlib.suppress(
            ua.UaError, TypeError, ValueError, AttributeError, RuntimeError, KeyError, SyntaxError
        ):
            await self.client.load_data_type_definitions()

    async def close(self) -> None:
        """Takes leave of the server, if it listens."""
        try:
            with contextlib.suppress(OSError, ua.UaError):  # it is gone already, or does not answer in time
                async with asyncio.timeout(self.settings.timeout):
                    await self.client.disconnect()
        finally:
            self.client.disconnect_socket()


def _is_bad(value: Any) -> bool:
    return (value.StatusCode is not None and not value.StatusCode.is_good()) or value.Value is None


async def open_link(settings: OpcuaSettings) -> Link:
    """Raises: Trouble."""
    client = Client(settings.connect, timeout=settings.timeout, watchdog_intervall=max(_WATCH_S, settings.timeout))
    client.name = client.description = f"Muster edge gateway ({settings.name})"
    client.application_uri = "urn:edge-gateway"
    client.session_timeout = int(_SESSION_S * 1000)
    client.max_messagesize = _MAX_MESSAGE_BYTES
    client.set_locale(["en"])
    if settings.username:
        client.set_user(settings.username)
        client.set_password(settings.password)
    link = Link(client, settings)

    async def on_lost(_: Exception) -> None:
        link.lose("the connection broke")

    client.connection_lost_callback = on_lost
    with told(settings):
        try:
            if settings.security != "None":
                await _secure(client, settings)
            await client.connect()
            await link.prepare()
        except BaseException:
            await link.close()
            raise
    return link


async def _secure(client: Any, settings: OpcuaSettings) -> None:
    certificate = await _load(settings.certificate, "certificate")
    client.application_uri = _application_uri(certificate) or client.application_uri
    if settings.server_certificate:
        await _load(settings.server_certificate, "server_certificate")
    try:
        await client.set_security(
            getattr(security_policies, f"SecurityPolicy{settings.security}"),
            settings.certificate,
            settings.private_key,
            server_certificate=settings.server_certificate or None,
            mode=getattr(ua.MessageSecurityMode, settings.mode),
        )
    except FileNotFoundError as error:
        raise Trouble(f"private_key: there is no file {error.filename}") from None
    except (ValueError, TypeError, PermissionError):
        raise Trouble(
            f"private_key: {settings.private_key} cannot be read; it must be an RSA key as .pem or .der without "
            "password, and readable for the gateway"
        ) from None


async def _load(path: str, field: str) -> x509.Certificate:
    try:
        certificate: x509.Certificate = await uacrypto.load_certificate(path)
    except FileNotFoundError:
        raise Trouble(f"{field}: there is no file {path}") from None
    except (ValueError, OSError):
        raise Trouble(f"{field}: {path} is no readable certificate; it must be a .pem or .der file") from None
    return certificate


def _application_uri(certificate: x509.Certificate) -> str:
    """Servers compare it with the client's own, so that the client takes it from there."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), "")


# --- words ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def told(settings: OpcuaSettings) -> Iterator[None]:
    """Turns what the library raises into Trouble in words."""
    try:
        yield
    except Trouble as error:
        if isinstance(error, Lost):
            raise
        raise Trouble(f"{settings.connect}: {error}") from None
    except (OSError, TimeoutError, ua.UaError) as error:
        raise Trouble(f"{settings.connect}: {in_words(error, settings)}") from None


def in_words(error: Exception, settings: OpcuaSettings) -> str:
    """What a failed request means, without the endpoint; never a secret."""
    if isinstance(error, ua.UaStatusCodeError):
        name = ua.StatusCode(error.code).name
        fix = _FIXES.get(name, ua.StatusCode(error.code).doc)
        return f"{fix.format(settings=settings)} ({name})"
    if isinstance(error, socket.gaierror):
        return "the name cannot be resolved; check connect, and the gateway's DNS"
    if isinstance(error, TimeoutError):
        return f"no answer within {settings.timeout:g} s; check address, network and firewall, or raise timeout"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there; check port and whether the OPC UA server is started"
    if isinstance(error, OSError):
        return f"the connection broke ({error.strerror or error})"
    if "No matching endpoints" in str(error):
        return (
            f'the server does not offer security = "{settings.security}"'
            + (f' with mode = "{settings.mode}"' if settings.security != "None" else "")
            + "; choose what it offers, or enable it in the server"
        )
    if "certificate mismatch" in str(error):
        return "the server's certificate is not the one in server_certificate; get its new one if it was renewed"
    return f"the server's answer is not understood ({type(error).__name__})"


_CERTIFICATE: Final = "the server does not trust our certificate; accept {settings.certificate} in its list of clients"
_LOGIN: Final = "the server refuses the login; check username and password, and the user's rights in the server"
_FIXES: Final = {
    "BadUserAccessDenied": (
        "the server refuses it to this user; check username, password, the user's rights and the node's access level"
    ),
    "BadIdentityTokenRejected": _LOGIN,
    "BadIdentityTokenInvalid": "the server refuses this kind of login; give username and password, or leave them out",
    "BadCertificateUntrusted": _CERTIFICATE,
    "BadSecurityChecksFailed": _CERTIFICATE,
    "BadCertificateUriInvalid": "our certificate lacks the subjectAltName URI:urn:edge-gateway; make a new one",
    "BadCertificateTimeInvalid": "a certificate is out of date; renew it, or set the clocks of gateway and server",
    "BadSecurityPolicyRejected": 'the server does not offer security = "{settings.security}"; choose another',
    "BadSecurityModeRejected": 'the server does not offer mode = "{settings.mode}"; choose one that it offers',
    "BadTooManySessions": "the server has too many sessions; close others, or raise its limit",
    "BadTcpEndpointUrlInvalid": "the server does not know itself by this address; write connect as the server shows it",
    "BadNodeIdUnknown": "the server does not know this node; look it up with a browser of OPC UA",
    "BadNodeIdInvalid": "the server does not take this node id; look it up with a browser of OPC UA",
    "BadNotReadable": "the server does not let us read it; give the user the right",
    "BadNotWritable": "the node cannot be written, or not by this user; change its access level or the user's rights",
    "BadTypeMismatch": "the node takes another type of value",
    "BadTooManyMonitoredItems": "the server watches no more nodes; raise its limit, or poll by every",
    "BadTooManySubscriptions": "the server takes no more subscriptions; raise its limit, or poll by every",
    "BadOutOfRange": "the server says that the value is out of range",
}
