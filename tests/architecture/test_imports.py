"""The import rule of ARCHITECTURE.md, checked on the real import graph."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("shared", "cloud_core", "edge_gateway", include_external_packages=True, cache_dir=None)


def imports_of(graph: grimp.ImportGraph, package: str) -> set[tuple[str, str]]:
    """Direct imports (importer, imported) of all modules in `package`."""
    modules = {package} | graph.find_descendants(package)
    return {(one, other) for one in modules for other in graph.find_modules_directly_imported_by(one)}


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


# package -> what of our own it may import, beside itself
ALLOWED = {
    "shared": (),
    "shared.mqtt": (),
    "cloud_core.config": (),
    "cloud_core.entropy": (),
    "cloud_core.measures": (),
    "cloud_core.proto_schemas": ("shared",),
    "cloud_core.profile_options": ("shared", "cloud_core.proto_schemas"),
    "cloud_core.model": ("shared", "cloud_core.profile_options"),
    "cloud_core.core": ("shared", "cloud_core.model", "cloud_core.entropy", "cloud_core.storage.interface",
                        "cloud_core.fabric.interface", "cloud_core.fabric.alone", "cloud_core.proto_schemas",
                        "cloud_core.measures"),
    "cloud_core.fabric": ("cloud_core.measures",),
    "cloud_core.storage": ("shared", "cloud_core.model", "cloud_core.profile_options", "cloud_core.entropy",
                           "cloud_core.measures"),
    "cloud_core.transports.mqtt": ("shared", "cloud_core.model", "cloud_core.profile_options", "cloud_core.core",
                                   "cloud_core.transports.listener"),
    "cloud_core.transports.http": ("shared", "cloud_core.model", "cloud_core.core", "cloud_core.transports.listener",
                                   "cloud_core.storage.interface", "cloud_core.measures", "cloud_core.profile_options",
                                   "cloud_core.transports.endpoints", "cloud_core.transports.proxies"),
    "cloud_core.transports.coap": ("shared", "cloud_core.model", "cloud_core.core", "cloud_core.transports.listener",
                                   "cloud_core.transports.tls"),
    "cloud_core.simulator": ("shared",),
    "cloud_core.dev_tls": ("shared", "cloud_core.secrets_file"),
    "cloud_core.transports.tls": ("shared", "cloud_core.model", "cloud_core.transports.tls_faults"),
    "cloud_core.transports.tls_faults": (),
    "cloud_core.transports.handshakes": (),
    "cloud_core.transports.endpoints": (),
    "cloud_core.transports.proxies": (),
    "cloud_core.transports.proxy_header": (),
    "cloud_core.transports.proxied": ("cloud_core.core", "cloud_core.transports.proxies",
                                      "cloud_core.transports.proxy_header"),
    "cloud_core.transports.tls_connection": ("cloud_core.model", "cloud_core.core", "cloud_core.transports.tls",
                                             "cloud_core.transports.tls_faults", "cloud_core.transports.handshakes"),
    "edge_gateway": ("shared",),
    "edge_gateway.model": (),
    "edge_gateway.settings": (),
    "edge_gateway.mapping": ("shared", "edge_gateway.model"),
    "edge_gateway.core": ("shared", "edge_gateway.model", "edge_gateway.settings", "edge_gateway.storage.interface",
                          "edge_gateway.uplink.interface", "edge_gateway.connectors.interface"),
    "edge_gateway.storage": ("shared", "edge_gateway.model", "edge_gateway.settings"),
    "edge_gateway.uplink": ("shared", "edge_gateway.model", "edge_gateway.settings"),
    "edge_gateway.connectors": ("shared", "edge_gateway.model", "edge_gateway.mapping", "edge_gateway.settings"),
    **{
        f"edge_gateway.connectors.{protocol}": (
            "shared", "edge_gateway.model", "edge_gateway.mapping", "edge_gateway.connectors.interface",
            "edge_gateway.settings",
            "edge_gateway.connectors.access",
        )
        for protocol in ("mqtt", "http", "coap", "modbus", "opcua", "line", "simulator", "plugin")
        if importlib.util.find_spec(f"edge_gateway.connectors.{protocol}")
    },
}  # fmt: skip


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_its_layer_may(graph: grimp.ImportGraph, package: str) -> None:
    """transports → core → storage → model; siblings never import each other."""
    ours = ("shared", "cloud_core", "edge_gateway")
    wrong = {
        (one, other)
        for one, other in imports_of(graph, package)
        if within(other, *ours) and not within(other, package, *ALLOWED[package])
    }
    assert not wrong


# package -> libraries that must not be reached from it
BARRED = {
    "shared": ("twisted", "klein", "aiocoap", "sqlalchemy", "paho", "httptools", "OpenSSL", "click", "requests"),
    "shared.mqtt": ("msgspec", "cryptography"),
    "edge_gateway.core": ("klein", "aiocoap", "sqlalchemy", "sqlite3", "paho", "pymodbus", "asyncua"),
    "edge_gateway.mapping": ("klein", "aiocoap", "sqlalchemy", "sqlite3", "paho", "pymodbus", "asyncua", "twisted"),
    "edge_gateway.connectors": ("sqlalchemy", "sqlite3"),
    "cloud_core.core": ("klein", "aiocoap", "sqlalchemy", "httptools", "sqlite3", "psycopg"),
    "cloud_core.storage": ("klein", "aiocoap", "httptools"),
    "cloud_core.fabric": ("klein", "aiocoap", "sqlalchemy", "httptools"),
    "cloud_core.simulator": ("twisted", "klein", "aiocoap", "sqlalchemy", "paho", "requests", "click"),
    "cloud_core.transports.mqtt": ("klein", "aiocoap", "sqlalchemy"),
    "cloud_core.transports.http": ("aiocoap", "sqlalchemy"),
    "cloud_core.transports.coap": ("klein", "sqlalchemy", "httptools"),
}


@pytest.mark.parametrize("package", BARRED)
def test_a_layer_keeps_clear_of_the_libraries_of_others(graph: grimp.ImportGraph, package: str) -> None:
    """A rule that needs a socket or a database stands in the wrong place."""
    wrong = {(one, other) for one, other in imports_of(graph, package) if within(other, *BARRED[package])}
    assert not wrong


# The extra `muster[protobuf]`: these alone, and only when a profile asks for it.
PROTOBUF_USERS = {"shared.transport_protobuf", "shared.protobuf_codec", "cloud_core.proto_schemas"}


def test_protobufs_library_is_used_by_few(graph: grimp.ImportGraph) -> None:
    """`google` and `grpc_tools` stay behind the codec."""
    users = {
        module
        for library in ("google", "grpc_tools")
        if library in graph.modules
        for module in graph.find_modules_that_directly_import(library)
    }
    assert users <= PROTOBUF_USERS


def test_the_core_starts_without_protobufs_library() -> None:
    """Importing everything imports none of it."""
    code = (
        "import sys, cloud_core.service; print([m for m in sys.modules if m.split('.')[0] in ('google', 'grpc_tools')])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr


def test_the_core_starts_without_the_clusters_library(graph: grimp.ImportGraph) -> None:
    """NATS' client is an extra, and stays within one file of the fabric."""
    users = set(graph.find_modules_that_directly_import("nats"))
    assert users == {"cloud_core.fabric.connection"}
    code = "import sys, cloud_core.service; print([m for m in sys.modules if m.split('.')[0] == 'nats'])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr


def test_nobody_takes_the_reactor_at_import(graph: grimp.ImportGraph) -> None:
    """The reactor is chosen in `__main__` and handed in."""
    sources = [path for package in ("shared", "cloud_core", "edge_gateway") for path in (ROOT / package).rglob("*.py")]
    lines = "from twisted.internet import reactor"
    takers = [path.name for path in sources if lines in path.read_text() and path.name != "__main__.py"]
    assert takers == []
