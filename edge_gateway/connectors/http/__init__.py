"""HTTP: devices that post to the gateway, or that the gateway polls."""

from __future__ import annotations

from edge_gateway.connectors.http.checks import check
from edge_gateway.connectors.http.listener import HttpListener
from edge_gateway.connectors.http.poller import HttpPoller
from edge_gateway.connectors.http.settings import HttpSettings
from edge_gateway.connectors.interface import Connector, ConnectorKind, Site


def build(settings: HttpSettings, site: Site) -> Connector:
    """As `ConnectorKind.build`."""
    return HttpListener(settings, site) if settings.listen else HttpPoller(settings, site)


KINDS: tuple[ConnectorKind, ...] = (ConnectorKind(name="http", settings=HttpSettings, build=build, check=check),)
