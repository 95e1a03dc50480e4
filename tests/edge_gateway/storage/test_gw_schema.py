"""The text that the spool executes, and where it comes from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edge_gateway.storage import schema, tables


def test_the_text_that_is_executed_is_what_the_tables_say() -> None:
    """After a change of `tables.py` its text is written anew."""
    assert Path(schema.__file__).read_text() == tables.text()


def test_the_gateway_runs_without_sqlalchemy() -> None:
    """Small machines have no room for what only compiles fixed text."""
    program = "import sys, edge_gateway.service; print('sqlalchemy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "False"
