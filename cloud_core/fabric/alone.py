"""The embedded default. It stands beside the interface, so that the core may fall back on it."""

from __future__ import annotations

from cloud_core.fabric.interface import Alone

__all__ = ["Alone"]
