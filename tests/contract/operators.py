"""What an operator or a customer does over REST, for tests that look at a device from both sides."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any

import requests

from cloud_core.rest_client import RestError
from tests.support.server import CoreProcess


def telemetry_path(core: CoreProcess, name: str) -> str:
    return f"/api/plugins/telemetry/DEVICE/{core.device(name)['id']['id']}"


def attributes_of(core: CoreProcess, name: str, scope: str) -> dict[str, Any]:
    return {
        one["key"]: one["value"] for one in core.rest.get(f"{telemetry_path(core, name)}/values/attributes/{scope}")
    }


def explained_at(core: CoreProcess, reference: str) -> dict[str, Any]:
    """An attempt. What is refused before anything is decided is logged behind the answer, so it may take a moment."""
    for _ in range(50):
        try:
            found: dict[str, Any] = core.rest.get(f"/api/provisioning/attempts/{reference}")
            return found
        except RestError as error:
            if error.status != 404:
                raise
        time.sleep(0.1)
    raise AssertionError(f"nobody knows {reference}")


def command(core: CoreProcess, name: str, kind: str, **members: Any) -> requests.Response:
    url = f"{core.http}/api/rpc/{kind}/{core.device(name)['id']['id']}"
    headers = {"X-Authorization": f"Bearer {core.jwt}"}
    return requests.post(url, json={"method": "setGpio", "params": {"pin": 7}} | members, headers=headers, timeout=30)


class Later(threading.Thread):
    """A command whose answer comes when the device has done its part."""

    def __init__(self, core: CoreProcess, name: str, kind: str, **members: Any) -> None:
        super().__init__(daemon=True)
        self._call = lambda: command(core, name, kind, **members)
        self._answer: requests.Response | None = None
        self.start()

    def run(self) -> None:
        self._answer = self._call()

    def answer(self) -> requests.Response:
        self.join(30)
        assert self._answer is not None
        return self._answer


def make_customer(core: CoreProcess, name: str) -> str:
    """A customer with one user; the user's JWT."""
    customer = core.rest.post("/api/customer", {"title": f"customer of {name}"})
    email = f"{name}@customer.test"
    core.rest.post(
        "/api/user",
        {"email": email, "authority": "CUSTOMER_USER", "customerId": customer["id"], "password": "customer-password"},
    )
    login = {"username": email, "password": "customer-password"}
    token: str = requests.post(f"{core.http}/api/auth/login", json=login, timeout=30).json()["token"]
    return token


def claim(core: CoreProcess, user: str, name: str, secret: str) -> tuple[int, Any]:
    answer = requests.post(
        f"{core.http}/api/customer/device/{name}/claim", json={"secretKey": secret} if secret else {},
        headers={"X-Authorization": f"Bearer {user}"}, timeout=30,
    )  # fmt: skip
    return answer.status_code, answer.json()


IMAGE = bytes(range(256)) * 20


def assign_firmware(core: CoreProcess, name: str) -> str:
    """A package of the device's profile, assigned to it; its title."""
    device = core.device(name)
    title = f"fw-{name}"
    info = core.rest.post(
        "/api/otaPackage",
        {"type": "FIRMWARE", "title": title, "version": "1.1", "deviceProfileId": device["deviceProfileId"]},
    )
    answer = requests.post(
        f"{core.http}/api/otaPackage/{info['id']['id']}",
        params={"checksumAlgorithm": "SHA256", "checksum": hashlib.sha256(IMAGE).hexdigest()},
        files={"file": ("image.bin", IMAGE, "application/octet-stream")},
        headers={"X-Authorization": f"Bearer {core.jwt}"}, timeout=30,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    core.rest.post("/api/device", device | {"firmwareId": info["id"]})
    return title
