"""Modbus master: TCP, RTU over TCP and serial RTU."""

from edge_gateway.connectors.modbus.connector import KINDS

__all__ = ["KINDS"]
