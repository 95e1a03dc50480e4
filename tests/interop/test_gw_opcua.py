"""The OPC UA client against asyncua's own server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asyncua import Server, ua, uamethod
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.permission_rules import User, UserRole
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_gateway.connectors.opcua import KINDS
from edge_gateway.model import Call, CallFailed, Health
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_plc_sites import RecordingSite, running, until

OPCUA = KINDS[0]


@uamethod  # type: ignore[misc, unused-ignore]
def add(parent: Any, one: int, other: int) -> int:
    return one + other


class Plant:
    """Objects/Plant/Boiler-1 and -2 with Temp, Serial, Limit and a method Add."""

    def __init__(self, users: dict[str, str] | None = None) -> None:
        self.users = users
        self.server: Any = None
        self.port = 0
        self.nodes: dict[str, Any] = {}

    def get_user(self, iserver: Any, username: str = "", password: str = "", certificate: Any = None) -> Any:
        """As asyncua's UserManager."""
        is_known = self.users is not None and self.users.get(username) == password
        return User(role=UserRole.User) if is_known else None

    async def start(self, port: int = 0, certificate: Path | None = None, key: Path | None = None) -> None:
        self.server = Server(user_manager=self if self.users else None)
        await self.server.init()
        self.server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/plant")
        self.server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        if certificate is not None:
            self.server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
            await self.server.load_certificate(str(certificate))
            await self.server.load_private_key(str(key), format="pem")
        self.index = await self.server.register_namespace("urn:plant")
        plant = await self.server.nodes.objects.add_object(self.index, "Plant")
        self.nodes["Plant"] = plant
        for number in (1, 2):
            await self.add_boiler(f"Boiler-{number}", 20.0 + number)
        await self.server.start()
        self.port = self.server.bserver._server.sockets[0].getsockname()[1]

    async def add_boiler(self, name: str, temperature: float) -> None:
        boiler = await self.nodes["Plant"].add_object(self.index, name)
        for key, value in {
            "Temp": temperature,
            "Serial": f"SN-{name}",
            "Limit": ua.Variant(5, ua.VariantType.Int16),
        }.items():
            self.nodes[f"{name}/{key}"] = await boiler.add_variable(self.index, key, value)
        await self.nodes[f"{name}/Limit"].set_writable()
        await boiler.add_method(self.index, "Add", add, [ua.VariantType.Int64] * 2, [ua.VariantType.Int64])

    async def stop(self) -> None:
        await self.server.stop()


@contextlib.asynccontextmanager
async def plant() -> AsyncIterator[Plant]:
    served = Plant()
    await served.start()
    try:
        yield served
    finally:
        await served.stop()


BOILERS: dict[str, Any] = {
    "at": "Objects/Plant/Boiler-{n}",
    "device": "boiler {n}",
    "type": "boiler",
    "telemetry": ["Temp -> temperature", {"at": "Limit", "key": "limit", "scale": 0.1}],
    "attributes": ["Serial -> serial"],
    "rpc": {
        "setLimit": {"write": "Limit", "value": "$.params.limit"},
        "limit": {"read": "Limit"},
        "add": {"method": "Add", "args": ["$.params.a", 5]},
        "setTemp": {"write": "Temp"},
    },
    "shared": {"limit": {"write": "Limit"}},
}


def table(port: int, *devices: dict[str, Any], **more: Any) -> dict[str, Any]:
    connect = f"opc.tcp://127.0.0.1:{port}/plant"
    return {"connect": connect, "publishing": "50 ms", "timeout": "2 s", "device": list(devices), **more}


@asyncio_test
async def test_one_entry_yields_every_boiler_and_changes_arrive() -> None:
    """Captures of browse names name the devices; changes come by subscription with the source's time."""
    async with plant() as served:
        site = RecordingSite(wants_raw=True)
        async with running(OPCUA, table(served.port, BOILERS), site):
            await until(lambda: len(site.latest("boiler 1")) == 3 and len(site.latest("boiler 2")) == 3)
            assert site.latest("boiler 2") == {"temperature": 22.0, "limit": 0.5, "serial": "SN-Boiler-2"}
            assert site.seen_devices == [("boiler 1", "boiler"), ("boiler 2", "boiler")]
            assert site.health_now is Health.HEALTHY
            site.readings.clear()
            when = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
            value = ua.DataValue(ua.Variant(31.5), SourceTimestamp=when.replace(tzinfo=None))
            await served.nodes["Boiler-1/Temp"].write_value(value)
            (reading,) = await until(lambda: site.readings)
        assert (reading.device, reading.telemetry) == ("boiler 1", {"temperature": 31.5})
        assert reading.ts_ms == int(when.timestamp() * 1000)
        assert reading.raw["temperature"].endswith("Double, Good")


@asyncio_test
async def test_values_of_all_types_become_json() -> None:
    """Arrays, times, bytes, texts and structures; polled by NodeId."""
    async with plant() as served:
        values = {
            "list": [1.5, 2.5], "time": datetime(2026, 5, 1, 12), "bytes": b"\x01\xff", "flag": True,
            "words": ua.LocalizedText("hot"),
            "range": ua.EUInformation("u", 3, ua.LocalizedText("°C"), ua.LocalizedText("d")),
        }  # fmt: skip
        lines = []
        for key, value in values.items():
            node = await served.nodes["Plant"].add_variable(ua.NodeId(key, served.index), key, value)
            lines.append(f"{node.nodeid.to_string()} -> {key}")
        site = RecordingSite()
        device = {"device": "plant", "every": "50 ms", "telemetry": lines}
        async with running(OPCUA, table(served.port, device), site):
            await until(lambda: len(site.readings) >= 3)
        latest = site.latest("plant")
        assert latest.pop("range") == {"NamespaceUri": "u", "UnitId": 3, "DisplayName": "°C", "Description": "d"}
        assert latest == {
            "list": [1.5, 2.5], "time": "2026-05-01T12:00:00.000Z", "bytes": "01ff", "flag": True, "words": "hot"
        }  # fmt: skip


@asyncio_test
async def test_calls_write_read_and_run_methods() -> None:
    """Values are written in the node's own type; methods get arguments in theirs; errors say what is wrong."""
    async with plant() as served:
        site = RecordingSite()
        async with running(OPCUA, table(served.port, BOILERS), site) as connector:
            await until(lambda: site.health_now is Health.HEALTHY)

            async def call(method: str, params: Any = None, device: str = "boiler 2") -> Any:
                return await connector.call(Call(device=device, method=method, params=params, timeout_s=5))

            assert await call("setLimit", {"limit": 12}) == {"success": True}
            assert await call("limit") == 12
            assert await served.nodes["Boiler-1/Limit"].read_value() == 5
            assert await call("add", {"a": 2}) == 7
            await connector.attributes_changed("boiler 2", {"limit": 99, "other": 1}, [])
            assert await served.nodes["Boiler-2/Limit"].read_value() == 99
            for method, params, words in (
                ("setLimit", {"limit": 40_000}, "out of range; Int16"),
                ("setLimit", {}, r"\$.params.limit finds nothing"),
                ("setTemp", 5, "BadUserAccessDenied|BadNotWritable"),
                ("nope", None, "known are add, limit"),
            ):
                with pytest.raises(CallFailed, match=words):
                    await call(method, params)


@asyncio_test
async def test_bad_quality_is_left_out_and_told() -> None:
    """A value of bad quality is not sent; health names the node until a good one comes."""
    async with plant() as served:
        site = RecordingSite()
        async with running(OPCUA, table(served.port, BOILERS), site) as connector:
            await until(lambda: len(site.latest("boiler 1")) == 3)
            site.readings.clear()
            temp = served.nodes["Boiler-1/Temp"]
            bad = ua.DataValue(ua.Variant(1.0), StatusCode=ua.StatusCode(ua.StatusCodes.BadSensorFailure))
            await served.server.write_attribute_value(temp.nodeid, bad)
            await until(lambda: "BadSensorFailure" in site.reason)
            assert site.health_now is Health.DEGRADED and not site.readings
            assert connector.bad_values == 1  # type: ignore[attr-defined]
            await temp.write_value(25.0)
            await until(lambda: site.health_now is Health.HEALTHY)
            assert site.latest("boiler 1") == {"temperature": 25.0}


@asyncio_test
async def test_a_path_that_finds_nothing_is_explained() -> None:
    """Health says where the path ends and what is there; everything else is read."""
    async with plant() as served:
        site = RecordingSite()
        wrong = {"device": "x", "at": "Objects/Plannt", "telemetry": ["Temp -> t"]}
        async with running(OPCUA, table(served.port, BOILERS, wrong), site):
            await until(lambda: site.latest("boiler 1"))
            assert site.health_now is Health.DEGRADED
            assert "there is no 'Plannt' below Objects; there are Aliases, Locations, Plant, Server" in site.reason


@asyncio_test
async def test_new_nodes_are_found_and_old_ones_leave() -> None:
    """What is added on the server appears after the next look; what is deleted has gone."""
    async with plant() as served:
        site = RecordingSite()
        async with running(OPCUA, table(served.port, BOILERS, browse_every="100 ms"), site):
            await until(lambda: site.latest("boiler 1"))
            await served.add_boiler("Boiler-3", 50.0)
            await until(lambda: site.latest("boiler 3").get("temperature") == 50.0)
            boiler = await served.nodes["Plant"].get_child(f"{served.index}:Boiler-1")
            await served.server.delete_nodes([boiler], recursive=True)
            await until(lambda: site.gone_devices == ["boiler 1"])


@asyncio_test
async def test_the_client_comes_back_after_the_server() -> None:
    """While the server is away health is FAILED with its address; then everything is subscribed again."""
    served, site = Plant(), RecordingSite()
    await served.start()
    port = served.port
    async with running(OPCUA, table(port, BOILERS), site):
        await until(lambda: site.latest("boiler 1"))
        await served.stop()
        await until(lambda: site.health_now is Health.FAILED)
        assert f"opc.tcp://127.0.0.1:{port}/plant" in site.reason
        again = Plant()
        await again.start(port)
        site.readings.clear()
        await until(lambda: site.latest("boiler 1"), 20)
        assert site.health_now is Health.HEALTHY
        site.readings.clear()
        await again.nodes["Boiler-1/Temp"].write_value(77.0)
        await until(lambda: site.latest("boiler 1").get("temperature") == 77.0)
    await again.stop()


@asyncio_test
async def test_a_congested_gateway_gets_the_newest_later() -> None:
    """Without room nothing is handed over; with room again the newest value of each node is."""
    async with plant() as served:
        site = RecordingSite()
        async with running(OPCUA, table(served.port, BOILERS), site):
            await until(lambda: len(site.latest("boiler 1")) == 3)
            site.is_congested = True
            site.readings.clear()
            for value in (30.0, 31.0, 32.0):
                await served.nodes["Boiler-1/Temp"].write_value(value)
                await asyncio.sleep(0.1)
            assert not site.readings
            site.make_room()
            assert site.latest("boiler 1") == {"temperature": 32.0}


@asyncio_test
async def test_encryption_with_certificate_and_login(tmp_path: Path) -> None:
    """Basic256Sha256 with our certificate, user and password; a wrong password is told without being quoted."""
    files = {}
    for role, usage in (("server", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)):
        files[role] = (tmp_path / f"{role}.key", tmp_path / f"{role}.der")
        await setup_self_signed_certificate(*files[role], f"urn:test:{role}", "localhost", [usage], {})
    served = Plant(users={"me": "right-one"})
    await served.start(certificate=files["server"][1], key=files["server"][0])
    secure = {
        "security": "Basic256Sha256",
        "certificate": str(files["client"][1]),
        "private_key": str(files["client"][0]),
        "user": "me",
    }
    site = RecordingSite()
    async with running(OPCUA, table(served.port, BOILERS, **secure, password="right-one"), site):
        await until(lambda: len(site.latest("boiler 1")) == 3)
        assert site.health_now is Health.HEALTHY
    site = RecordingSite()
    async with running(OPCUA, table(served.port, BOILERS, **secure, password="wrong-one"), site):
        await until(lambda: site.health_now is Health.FAILED)
    assert "check `user` and `password`" in site.reason and "wrong-one" not in site.reason
    await served.stop()
