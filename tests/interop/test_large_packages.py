"""A large package through the real server: real threads, real files, a real HTTP client."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import requests

from tests.support.server import PASSWORD, USERNAME, CoreProcess

SIZE_BYTES = 250_000_000
MAX_GROWTH_KIB = 160_000  # two connections to the database with 64 MiB of cache each, and a few blocks


def peak_kib(pid: int) -> int:
    """The most memory that the process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def test_a_large_package_goes_in_and_out_in_little_memory(core: CoreProcess) -> None:
    """Byte for byte; the process never holds more than a part of it."""
    core.make_profile("ota")
    token = requests.post(
        f"{core.http}/api/auth/login", json={"username": USERNAME, "password": PASSWORD}, timeout=30
    ).json()["token"]
    headers = {"X-Authorization": f"Bearer {token}"}
    profile = requests.get(
        f"{core.http}/api/deviceProfiles?pageSize=10&page=0&textSearch=ota", headers=headers, timeout=30
    ).json()["data"][0]
    body = {"deviceProfileId": profile["id"], "type": "FIRMWARE", "title": "large", "version": "1"}
    info = requests.post(f"{core.http}/api/otaPackage", json=body, headers=headers, timeout=30).json()
    data = os.urandom(SIZE_BYTES)
    before = peak_kib(core.pid)
    url = f"{core.http}/api/otaPackage/{info['id']['id']}"
    sent = requests.post(
        f"{url}?checksumAlgorithm=SHA256&checksum={hashlib.sha256(data).hexdigest()}",
        files={"file": ("large.bin", io.BytesIO(data))}, headers=headers, timeout=120,
    )  # fmt: skip
    assert (sent.status_code, sent.json()["dataSize"]) == (200, SIZE_BYTES), sent.text
    received = requests.get(f"{url}/download", headers=headers, timeout=120)
    assert received.content == data
    assert received.headers["content-disposition"] == "attachment;filename=large.bin"
    assert peak_kib(core.pid) - before < MAX_GROWTH_KIB
