"""MQTT: sub-devices that connect to the gateway, or a broker of theirs to which the gateway connects."""

from __future__ import annotations

from edge_gateway.connectors.interface import Connector, ConnectorKind, Site
from edge_gateway.connectors.mqtt.checks import check
from edge_gateway.connectors.mqtt.client import MqttClient
from edge_gateway.connectors.mqtt.listener import MqttListener
from edge_gateway.connectors.mqtt.settings import MqttSettings


def build(settings: MqttSettings, site: Site) -> Connector:
    """As `ConnectorKind.build`."""
    return MqttListener(settings, site) if settings.listen else MqttClient(settings, site)


KINDS: tuple[ConnectorKind, ...] = (ConnectorKind(name="mqtt", settings=MqttSettings, build=build, check=check),)
