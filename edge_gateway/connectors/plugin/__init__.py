"""Connectors of third parties, each in a process of its own. `messages` has the protocol, `template` one to copy."""

from __future__ import annotations

from edge_gateway.connectors.interface import ConnectorKind
from edge_gateway.connectors.plugin.connector import PluginConnector
from edge_gateway.connectors.plugin.settings import PluginSettings, check

KINDS: tuple[ConnectorKind, ...] = (
    ConnectorKind(name="plugin", settings=PluginSettings, build=PluginConnector, check=check),
)
