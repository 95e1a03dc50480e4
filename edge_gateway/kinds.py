"""All connectors that the gateway knows, by the name of their table in the configuration."""

from __future__ import annotations

from edge_gateway.connectors.coap import KINDS as COAP
from edge_gateway.connectors.http import KINDS as HTTP
from edge_gateway.connectors.interface import ConnectorKind
from edge_gateway.connectors.line import KINDS as LINE
from edge_gateway.connectors.modbus import KINDS as MODBUS
from edge_gateway.connectors.mqtt import KINDS as MQTT
from edge_gateway.connectors.opcua import KINDS as OPCUA
from edge_gateway.connectors.plugin import KINDS as PLUGIN
from edge_gateway.connectors.simulator import KINDS as SIMULATOR

KINDS: dict[str, ConnectorKind] = {
    kind.name: kind for kinds in (MQTT, HTTP, COAP, MODBUS, OPCUA, LINE, SIMULATOR, PLUGIN) for kind in kinds
}
