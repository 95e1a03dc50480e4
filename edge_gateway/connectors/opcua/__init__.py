"""OPC UA: servers whose nodes we watch, write and call."""

from __future__ import annotations

from edge_gateway.connectors.interface import ConnectorKind
from edge_gateway.connectors.opcua.checking import check
from edge_gateway.connectors.opcua.connector import OpcuaConnector
from edge_gateway.connectors.opcua.settings import OpcuaSettings

KINDS: tuple[ConnectorKind, ...] = (
    ConnectorKind(name="opcua", settings=OpcuaSettings, build=OpcuaConnector, check=check),
)
