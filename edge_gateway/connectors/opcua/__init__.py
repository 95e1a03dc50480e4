"""OPC UA: client of a server; its library is imported only where it is used."""

from __future__ import annotations

from edge_gateway.connectors.interface import Connector, ConnectorKind, Site
from edge_gateway.connectors.opcua.compiling import check
from edge_gateway.connectors.opcua.settings import OpcuaSettings


def build(settings: OpcuaSettings, site: Site) -> Connector:
    """As `ConnectorKind.build`."""
    from edge_gateway.connectors.opcua.connector import OpcuaConnector

    return OpcuaConnector(settings, site)


KINDS: tuple[ConnectorKind, ...] = (ConnectorKind(name="opcua", settings=OpcuaSettings, build=build, check=check),)
