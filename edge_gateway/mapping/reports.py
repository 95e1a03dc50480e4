"""Report strategies in words: `received`, `change`, `change 0.5`, `change 2%`, `1 min`, `change 0.5 | 1 min`."""

from __future__ import annotations

from edge_gateway.model import ReportRule


def parse_report(text: str) -> ReportRule:
    """Raises: ValueError whose text says the grammar."""
    raise NotImplementedError
