"""All connectors that the gateway knows, by the name of their table in the configuration.

A kind is imported when it is looked up, that is, when the configuration has a table of it: their libraries together
take more memory and more of the start than all the rest of the gateway.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from edge_gateway.connectors.interface import ConnectorKind

_MODULES = {
    "mqtt": "edge_gateway.connectors.mqtt",
    "http": "edge_gateway.connectors.http",
    "coap": "edge_gateway.connectors.coap",
    "modbus": "edge_gateway.connectors.modbus",
    "opcua": "edge_gateway.connectors.opcua",
    "line": "edge_gateway.connectors.line",
    "simulator": "edge_gateway.connectors.simulator",
    "plugin": "edge_gateway.connectors.plugin",
}


class _Kinds(Mapping[str, ConnectorKind]):
    """To know which there are, nothing needs to be imported."""

    def __getitem__(self, name: str) -> ConnectorKind:
        kinds: tuple[ConnectorKind, ...] = importlib.import_module(_MODULES[name]).KINDS
        return next(kind for kind in kinds if kind.name == name)

    def __contains__(self, name: object) -> bool:
        return name in _MODULES

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


KINDS: Mapping[str, ConnectorKind] = _Kinds()
