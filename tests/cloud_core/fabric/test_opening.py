"""From a configured value to a fabric."""

from __future__ import annotations

import re
import sys

import pytest

from cloud_core.config import Cluster, Config
from cloud_core.fabric.alone import Alone
from cloud_core.fabric.messages import NAME
from cloud_core.fabric.nats import NatsFabric
from cloud_core.fabric.opening import FabricFailed, new_node_name, open_fabric
from cloud_core.service import fabric_of
from cloud_core.storage.vault import MASTER_KEY_BYTES, Vault
from tests.support.asyncio_tests import asyncio_test


@asyncio_test
async def test_without_an_address_a_node_is_alone() -> None:
    """It starts, tells nobody, has no numbers of a fabric, and stops."""
    fabric = open_fabric("", cluster="muster")
    await fabric.start()
    fabric.tell_all("news", 1)
    fabric.tell("nobody", "news", 1)
    assert isinstance(fabric, Alone) and not fabric.others and not fabric.is_away
    assert fabric.families() == []
    await fabric.stop()


@asyncio_test
async def test_a_fabric_that_was_not_started_can_be_stopped() -> None:
    """As after a start that failed before it."""
    fabric = open_fabric("nats://127.0.0.1:1", cluster="muster")
    assert fabric.is_away
    await fabric.stop()


def test_installations_with_other_keys_do_not_hear_each_other() -> None:
    """Though they use one server and the same name: their devices have the same numbers."""
    subjects = set()
    for key in (b"a" * MASTER_KEY_BYTES, b"b" * MASTER_KEY_BYTES, b"a" * MASTER_KEY_BYTES):
        fabric = fabric_of(Config(cluster=Cluster(fabric="nats://127.0.0.1:1")), Vault(key))
        assert isinstance(fabric, NatsFabric)
        assert fabric._to_all.subject.startswith("muster.muster.")
        subjects.add(fabric._to_all.subject)
    assert len(subjects) == 2


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the extra."""
    for module in ("cloud_core.fabric.nats", "cloud_core.fabric.connection"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(FabricFailed, match=r"pip install 'muster\[cluster\]'"):
        open_fabric("nats://h", cluster="muster")


def test_names_of_nodes_are_of_one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is another, and fits into a subject whatever the machine is called."""
    monkeypatch.setattr("socket.gethostname", lambda: "ü b.example" * 20)
    one, other = new_node_name(), new_node_name()
    assert one != other and re.fullmatch(NAME, one)
