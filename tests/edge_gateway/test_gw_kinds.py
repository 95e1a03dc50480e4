"""The registry of connectors."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

from edge_gateway import connectors
from edge_gateway.kinds import KINDS

MODULES = [module.name for module in pkgutil.iter_modules(connectors.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_every_kind_that_a_connector_exports_is_found_by_its_name(name: str) -> None:
    """A connector that nobody can configure would be dead code."""
    module = importlib.import_module(f"edge_gateway.connectors.{name}")
    for kind in getattr(module, "KINDS", ()):
        assert KINDS[kind.name] is kind


def test_an_unknown_kind_is_not_found() -> None:
    """The configuration asks before it looks up."""
    assert "modbuss" not in KINDS
    with pytest.raises(KeyError):
        KINDS["modbuss"]


def test_no_connector_is_imported_before_it_is_looked_up() -> None:
    """A gateway with one protocol pays for one."""
    program = (
        "import sys, edge_gateway.kinds as kinds\n"
        "assert 'mqtt' in kinds.KINDS and len(list(kinds.KINDS)) == len(kinds.KINDS)\n"
        "print([name for name in sys.modules if name.startswith('edge_gateway.connectors.')])\n"
        "kinds.KINDS['simulator']\n"
        "print('edge_gateway.connectors.simulator' in sys.modules, 'edge_gateway.connectors.http' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines() == ["['edge_gateway.connectors.interface']", "True False"]
