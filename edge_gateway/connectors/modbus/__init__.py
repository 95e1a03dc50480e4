"""Modbus: the master of slaves on TCP, UDP and serial lines."""

from __future__ import annotations

from edge_gateway.connectors.interface import ConnectorKind
from edge_gateway.connectors.modbus.compiling import check
from edge_gateway.connectors.modbus.connector import ModbusConnector
from edge_gateway.connectors.modbus.settings import ModbusSettings

KINDS: tuple[ConnectorKind, ...] = (
    ConnectorKind(name="modbus", settings=ModbusSettings, build=ModbusConnector, check=check),
)
