"""The profile and the devices a figure needs, made over the REST API before the clock starts."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path

from .servers import ADMIN, Endpoint, ServerFailed

PROFILE = "benchmark"
KEY = "benchmarkkey00000001"
SECRET = "benchmarksecret00001"
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """Devices with access tokens of one length."""

    tokens_file: Path
    device_count: int


def prepare(endpoint: Endpoint, *, devices: int, tokens_file: Path, gateways: int = 0) -> Fleet:
    """One profile that lets new devices in, and `devices` with known tokens, or `gateways`. Raises: ServerFailed."""
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=TIMEOUT_S)
    try:
        answer = _post(connection, "/api/auth/login", {"username": ADMIN[0], "password": ADMIN[1]}, jwt=None)
        jwt = str(answer["token"])
        _post(connection, "/api/deviceProfile", _profile(), jwt=jwt)
        tokens = [f"benchtoken{number:010d}" for number in range(devices)]
        if tokens:
            _make_devices(connection, tokens, jwt=jwt)
        for number in range(gateways):
            tokens.append(f"benchgatew{number:010d}")
            gateway = {"name": f"gateway-{number:05d}", "type": PROFILE, "additionalInfo": {"gateway": True}}
            _post(connection, f"/api/device?accessToken={tokens[-1]}", gateway, jwt=jwt)
    finally:
        connection.close()
    tokens_file.write_text("\n".join(tokens) + "\n")
    return Fleet(tokens_file, len(tokens))


def add_authority(endpoint: Endpoint) -> None:
    """A CA that signs for the devices of every profile. Raises: ServerFailed."""
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=TIMEOUT_S)
    try:
        answer = _post(connection, "/api/auth/login", {"username": ADMIN[0], "password": ADMIN[1]}, jwt=None)
        _post(connection, "/api/ca", {"name": "benchmark"}, jwt=str(answer["token"]))
    finally:
        connection.close()


class Operator:
    """Writes shared attributes over REST, one request after the other."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Logs in. Raises: ServerFailed."""
        self._connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=TIMEOUT_S)
        credentials: dict[str, object] = {"username": ADMIN[0], "password": ADMIN[1]}
        self._jwt = str(_post(self._connection, "/api/auth/login", credentials, jwt=None)["token"])

    def device_uuids(self, count: int) -> list[str]:
        """The first devices of the tenant. Raises: ServerFailed."""
        path = f"/api/tenant/devices?pageSize={count}&page=0"
        self._connection.request("GET", path, headers={"X-Authorization": f"Bearer {self._jwt}"})
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise ServerFailed(f"GET {path} answered {response.status}: {data[:300]!r}")
        return [str(device["id"]["id"]) for device in json.loads(data)["data"]]

    def write_shared(self, uuid: str, values: dict[str, object]) -> None:
        """Raises: ServerFailed."""
        _post(self._connection, f"/api/plugins/telemetry/DEVICE/{uuid}/SHARED_SCOPE", values, jwt=self._jwt)

    def register_certificate(self, name: str, pem: str) -> None:
        """Makes a device that logs in with this certificate. Raises: ServerFailed."""
        credentials = {"credentialsType": "X509_CERTIFICATE", "credentialsValue": pem}
        body: dict[str, object] = {"device": {"name": name, "type": PROFILE}, "credentials": credentials}
        _post(self._connection, "/api/device-with-credentials", body, jwt=self._jwt)

    def admit_by_chain(self, name: str, ca_pem: str) -> None:
        """Makes a profile whose devices come in by a certificate of this CA. Raises: ServerFailed."""
        configuration = {
            "type": "X509_CERTIFICATE_CHAIN", "provisionDeviceSecret": ca_pem, "certificateRegExPattern": "(.*)",
            "allowCreateNewDevicesByX509Certificate": True,
        }  # fmt: skip
        body: dict[str, object] = _profile() | {
            "name": name, "provisionType": "X509_CERTIFICATE_CHAIN", "provisionDeviceKey": None,
            "profileData": {
                "configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"},
                "provisionConfiguration": configuration,
            },
        }  # fmt: skip
        _post(self._connection, "/api/deviceProfile", body, jwt=self._jwt)

    def close(self) -> None:
        self._connection.close()


def _make_devices(connection: http.client.HTTPConnection, tokens: list[str], *, jwt: str) -> None:
    """All in one import; one by one where there is no such call."""
    rows = "\n".join(f"bench-{number:06d},{PROFILE},{token}" for number, token in enumerate(tokens))
    columns = [{"type": "NAME"}, {"type": "TYPE"}, {"type": "ACCESS_TOKEN"}]
    mapping = {"columns": columns, "delimiter": ",", "update": False, "header": True}
    body: dict[str, object] = {"file": f"NAME,TYPE,ACCESS_TOKEN\n{rows}\n", "mapping": mapping}
    try:
        answer = _post(connection, "/api/device/bulk_import", body, jwt=jwt)
    except ServerFailed:
        for number, token in enumerate(tokens):
            device: dict[str, object] = {"name": f"bench-{number:06d}", "type": PROFILE}
            _post(connection, f"/api/device?accessToken={token}", device, jwt=jwt)
        return
    if answer.get("created") != len(tokens):
        raise ServerFailed(f"import of {len(tokens)} devices answered {str(answer)[:300]}")


def _profile() -> dict[str, object]:
    strategy = "ALLOW_CREATE_NEW_DEVICES"
    return {
        "name": PROFILE,
        "type": "DEFAULT",
        "transportType": "DEFAULT",
        "provisionType": strategy,
        "provisionDeviceKey": KEY,
        "profileData": {
            "configuration": {"type": "DEFAULT"},
            "transportConfiguration": {"type": "DEFAULT"},
            "provisionConfiguration": {"type": strategy, "provisionDeviceSecret": SECRET},
            "alarms": None,
        },
    }


def _post(
    connection: http.client.HTTPConnection, path: str, body: dict[str, object], *, jwt: str | None
) -> dict[str, object]:
    headers = {"Content-Type": "application/json"}
    if jwt is not None:
        headers["X-Authorization"] = f"Bearer {jwt}"
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    data = response.read()
    if response.status != 200:
        raise ServerFailed(f"POST {path} answered {response.status}: {data[:300]!r}")
    if not data:
        return {}
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise ServerFailed(f"POST {path} answered no object: {data[:300]!r}")
    return answer
