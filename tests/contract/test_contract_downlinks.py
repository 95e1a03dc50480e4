"""What reaches a device: attribute changes and firmware (M and O rows of section 10)."""

from __future__ import annotations

import hashlib
from uuid import uuid4

import pytest

from cloud_core.rest_client import RestError
from tests.contract.drivers import Driver, Refused
from tests.contract.operators import (
    IMAGE,
    assign_firmware,
    attributes_of,
    telemetry_path,
)
from tests.support.server import CoreProcess


def test_changes_of_shared_attributes_arrive(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """What is written as one object, what is deleted by name (M7, O3)."""
    path = f"{telemetry_path(core, name)}/SHARED_SCOPE"
    with driver.device(token) as device:
        device.listen("attributes")
        core.rest.post(path, {"a": 1, "b": {"c": [2]}})
        assert device.heard() == {"a": 1, "b": {"c": [2]}}
        if driver.name.startswith("http"):
            return  # between two long polls a change is not kept; the deletion is tested in memory
        core.rest.delete(path, keys="b")
        assert device.heard() == {"deleted": ["b"]}


def test_one_call_changes_the_attributes_of_many(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """Everybody hears of it; an unknown device among them is refused by name, and nothing is written."""
    identifier = core.device(name)["id"]["id"]
    with driver.device(token) as device:
        device.listen("attributes")
        call = {"deviceIds": [identifier], "values": {"limit": 42}}
        assert core.rest.post("/api/devices/attributes/SHARED_SCOPE", call) == {"devices": 1}
        assert device.heard() == {"limit": 42}
    unknown = {"deviceIds": [identifier, str(uuid4())], "values": {"limit": 43}}
    for wrong in (unknown, {"deviceIds": []}, {"deviceIds": ["x"], "values": {"a": 1}}, call | {"values": {}}):
        with pytest.raises(RestError):
            core.rest.post("/api/devices/attributes/SHARED_SCOPE", wrong)
    assert attributes_of(core, name, "SHARED_SCOPE") == {"limit": 42}


def test_firmware_comes_in_chunks(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """Metadata as shared attributes, bytes by number, nothing past the end."""
    title = assign_firmware(core, name)
    with driver.device(token) as device:
        told = device.attributes(shared="fw_title,fw_version,fw_size,fw_checksum,fw_checksum_algorithm")["shared"]
        assert told == {
            "fw_title": title, "fw_version": "1.1", "fw_size": len(IMAGE), "fw_checksum_algorithm": "SHA256",
            "fw_checksum": hashlib.sha256(IMAGE).hexdigest(),
        }  # fmt: skip
        chunks = [
            device.firmware(title=title, version="1.1", chunk_bytes=1000, chunk=number)
            for number in range(-(-len(IMAGE) // 1000) + 1)
        ]
    assert b"".join(chunks) == IMAGE and chunks[-1] == b""
    assert core.latest(name)["fw_state"] == "QUEUED"
    assert "fw_title" in attributes_of(core, name, "SHARED_SCOPE")


def test_without_a_package_there_is_no_firmware(driver: Driver, token: str) -> None:
    """Refused in the transport's own way."""
    with driver.device(token) as device, pytest.raises(Refused) as refusal:
        device.firmware(title="x", version="1", chunk_bytes=100, chunk=0)
    assert any(word in str(refusal.value) for word in ("404", "4.04", "NOT_FOUND"))
