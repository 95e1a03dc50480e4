"""Reads the foreign files; each is bounded, and a broken one is a note."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_gateway.console.thingsboard_import.findings import Notes

MAX_BYTES = 16 * 1024**2


def read(path: Path, notes: Notes) -> Mapping[str, Any]:
    """The object in it; empty, with a note, when it cannot be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it has more than 16 MiB")
        document = json.loads(path.read_text("utf-8-sig"))
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no JSON: {error}"
        notes.missing(f"{path.name} cannot be read: {reason}")
        return {}
    return document
