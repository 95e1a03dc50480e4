"""CoAP: devices that send to us, and resources of devices that we observe."""

from __future__ import annotations

from edge_gateway.connectors.coap.listener import CoapListener
from edge_gateway.connectors.coap.observer import CoapObserver
from edge_gateway.connectors.coap.settings import CoapSettings, check
from edge_gateway.connectors.interface import Connector, ConnectorKind, Site


def _build(settings: CoapSettings, site: Site) -> Connector:
    return CoapListener(settings, site) if settings.listen else CoapObserver(settings, site)


KINDS: tuple[ConnectorKind, ...] = (ConnectorKind(name="coap", settings=CoapSettings, build=_build, check=check),)
