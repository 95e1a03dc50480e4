"""What reaches a device: attribute changes, commands, firmware (M, R and O rows of section 10)."""

from __future__ import annotations

import hashlib
import threading
from uuid import uuid4

import pytest

from cloud_core.rest_client import RestError
from tests.contract.drivers import Driver, Refused
from tests.contract.operators import (
    IMAGE,
    Later,
    assign_firmware,
    attributes_of,
    command,
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


def test_a_one_way_command_is_delivered(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """REST answers 200 without a body; the device sees method and params (R2, O4)."""
    with driver.device(token) as device:
        device.listen("rpc")
        later = Later(core, name, "oneway")
        heard = device.heard()
        assert (heard["method"], heard["params"]) == ("setGpio", {"pin": 7})
        answer = later.answer()
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_reply_to_a_two_way_command_is_the_rest_answer(
    driver: Driver, core: CoreProcess, token: str, name: str
) -> None:
    """Whatever JSON the device says (R3, O4)."""
    with driver.device(token) as device:
        device.listen("rpc")
        later = Later(core, name, "twoway")
        device.reply(device.heard()["id"], {"value": [1, "two"]})
        assert later.answer().json() == {"value": [1, "two"]}


def test_a_command_for_a_device_that_is_not_there_times_out_at_once(
    driver: Driver, core: CoreProcess, token: str, name: str
) -> None:
    """504 (R1)."""
    assert command(core, name, "twoway").status_code == 504


def test_persistent_commands_wait_and_come_in_order(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """Queued while the device is away (R5, R8)."""
    ids = [command(core, name, "oneway", persistent=True, params=n).json()["rpcId"] for n in range(3)]
    with driver.device(token) as device:
        device.listen("rpc")
        assert [device.heard()["params"] for _ in range(3)] == [0, 1, 2]
    for one in ids:
        for _ in range(50):
            if core.rest.get(f"/api/rpc/persistent/{one}")["status"] == "SUCCESSFUL":
                break
            threading.Event().wait(0.1)
        assert core.rest.get(f"/api/rpc/persistent/{one}")["status"] == "SUCCESSFUL"


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
