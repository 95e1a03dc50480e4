"""The configuration: TOML and environment into one frozen tree, with every problem told at once."""

from edge_gateway.config.loading import (
    DATA_DIR_VARIABLE,
    SECTIONS,
    Config,
    ConfigError,
    ConfigProblem,
    ConnectorTable,
    load,
    shown,
)

__all__ = [
    "DATA_DIR_VARIABLE",
    "SECTIONS",
    "Config",
    "ConfigError",
    "ConfigProblem",
    "ConnectorTable",
    "load",
    "shown",
]
