"""Lines and frames over TCP, UDP and serial ports."""

from __future__ import annotations

from edge_gateway.connectors.interface import ConnectorKind
from edge_gateway.connectors.line.connector import LineConnector
from edge_gateway.connectors.line.settings import LineSettings, check

KINDS: tuple[ConnectorKind, ...] = (
    ConnectorKind(name="line", settings=LineSettings, build=LineConnector, check=check),
)
