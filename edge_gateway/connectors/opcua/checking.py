"""What types cannot say about an `[[opcua]]` table."""

from __future__ import annotations

import importlib.util
from urllib.parse import urlsplit

from edge_gateway.connectors.opcua.compiled import MIN_EVERY_S, compile_device
from edge_gateway.connectors.opcua.settings import OpcuaSettings
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.model import Problem

_LOCAL = ("127.0.0.1", "localhost", "::1")
_MAKE_CERTIFICATE = (
    'make them with: openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=edge-gateway" '
    '-addext "subjectAltName=URI:urn:edge-gateway" -keyout key.pem -out cert.pem'
)


def check(settings: OpcuaSettings) -> list[Problem]:
    """See `ConnectorKind.check`."""
    problems: list[Problem] = []
    if settings.enabled and importlib.util.find_spec("asyncua") is None:
        problems.append(Problem((), "OPC UA needs a library; install it with: pip install 'muster[opcua]'"))
    problems += _check_address(settings) + _check_security(settings) + _check_times(settings)
    if not settings.device:
        problems.append(Problem(("device",), "no device yet; add [[opcua.device]] with device, root and telemetry"))
    for number, device in enumerate(settings.device):
        try:
            compile_device(device, number)
        except MappingProblems as error:
            problems += [Problem(("device", number, *problem.path), problem.text) for problem in error.problems]
    return problems


def _check_address(settings: OpcuaSettings) -> list[Problem]:
    try:
        parts = urlsplit(settings.connect)
        is_right = parts.scheme == "opc.tcp" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right:
        return [Problem(("connect",), "this is no address of a server; write opc.tcp://10.0.0.20:4840")]
    if parts.username is not None:
        return [Problem(("connect",), "write name and password as username and password, not into the address")]
    return []


def _check_security(settings: OpcuaSettings) -> list[Problem]:
    problems: list[Problem] = []
    is_secured = settings.security != "None"
    for field in ("certificate", "private_key", "server_certificate"):
        value = getattr(settings, field)
        if value and not is_secured:
            problems.append(Problem((field,), f'{field} goes with security = "Basic256Sha256"'))
    for field in ("certificate", "private_key"):
        if is_secured and not getattr(settings, field):
            problems.append(Problem((field,), f"security needs certificate and private_key; {_MAKE_CERTIFICATE}"))
    if is_secured and not settings.server_certificate and not settings.insecure:
        text = "name the file of the server's certificate, or say insecure = true to talk to whoever answers"
        problems.append(Problem(("server_certificate",), text))
    if settings.password and not settings.username:
        problems.append(Problem(("password",), "password goes with username"))
    is_hidden = settings.security != "None"  # in mode Sign too the password itself is encrypted
    if settings.password and not is_hidden and not settings.insecure and not _is_local(settings.connect):
        text = "the password might travel unencrypted; give security, or say insecure = true"
        problems.append(Problem(("password",), text))
    return problems


def _is_local(address: str) -> bool:
    try:
        return urlsplit(address).hostname in _LOCAL
    except ValueError:
        return False


def _check_times(settings: OpcuaSettings) -> list[Problem]:
    problems: list[Problem] = []
    for field, least_s in (("timeout", 0.1), ("publishing", MIN_EVERY_S), ("backoff_min", 0.1)):
        if getattr(settings, field) < least_s:
            problems.append(Problem((field,), f'{field} must be at least "{least_s * 1000:g} ms"'))
    if 0 < settings.every < MIN_EVERY_S:
        problems.append(Problem(("every",), f'every must be at least "{MIN_EVERY_S * 1000:g} ms"; 0 subscribes'))
    if 0 < settings.browse_every < 1:
        problems.append(Problem(("browse_every",), 'browse_every must be at least "1 s"; 0 browses only at the start'))
    if settings.backoff_max < settings.backoff_min:
        problems.append(Problem(("backoff_max",), "backoff_max must not be less than backoff_min"))
    return problems
