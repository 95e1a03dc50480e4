"""The OPC UA connector against the server of asyncua."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.structures104 import new_struct, new_struct_field

from edge_gateway.model import Call, CallFailed, Health, Refusal
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_opcua_sites import DEADLINE_S, OpcuaSite, Plant, finished, free_port, running


@pytest.fixture(scope="module")
def server() -> Iterator[Plant]:
    one = Plant(free_port())
    finished(one.start())
    yield one
    finished(one.stop())


def table(url: str, **device: Any) -> dict[str, Any]:
    return {
        "connect": url,
        "publishing": "50 ms",
        "sampling": "10 ms",
        "timeout": "2 s",
        "backoff_min": "100 ms",
        "backoff_max": "200 ms",
        "device": [
            {
                "device": "{boiler}",
                "type": "boiler",
                "root": "Objects/Plant/{boiler}",
                "telemetry": ["Temp -> temperature"],
                **device,
            }
        ],
    }


def call(device: str, method: str, params: Any = None) -> Call:
    return Call(device=device, method=method, params=params, timeout_s=5.0)


def is_healthy(site: OpcuaSite) -> bool:
    return site.state[0] is Health.HEALTHY


@asyncio_test
async def test_one_entry_yields_a_device_for_each_fitting_node(server: Plant) -> None:
    """A browse pattern makes devices of what it finds, with names from the BrowseNames."""
    site = OpcuaSite()
    attributes = ["Serial -> serial", {"at": "ns=2;s=B1.Limit", "key": "first_limit"}]
    await server.reset("B1", "B2")
    async with running(site, **table(server.url, attributes=attributes)):
        await site.until(lambda: site.values("B2", "serial") and site.values("B1", "first_limit") and is_healthy(site))
        assert site.devices == {"B1": "boiler", "B2": "boiler"}
        assert site.values("B1", "temperature") == site.values("B2", "temperature") == [20.5]
        assert site.values("B2", "serial") == ["S-B2"]
        assert site.values("B1", "first_limit") == [5]


@asyncio_test
async def test_changes_arrive_with_the_sources_time(server: Plant) -> None:
    """A subscription brings each new value with the server's source timestamp."""
    site = OpcuaSite()
    await server.reset("B1", "B2")
    async with running(site, **table(server.url)):
        await site.until(lambda: site.values("B1", "temperature"))
        value = ua.DataValue(ua.Variant(21.5, ua.VariantType.Double))
        value.SourceTimestamp = ua.DateTime(2026, 1, 2, 3, 4, 5)
        await server.node("B1.Temp").write_value(value)
        await site.until(lambda: site.values("B1", "temperature") == [20.5, 21.5])
        assert site.readings[-1].ts_ms == 1_767_323_045_000


@asyncio_test
async def test_a_server_can_be_polled(server: Plant) -> None:
    """With `every` the nodes are read in that interval, and scaled."""
    site = OpcuaSite()
    lines = [{"at": "Limit", "key": "limit", "scale": 0.1, "every": "50 ms"}]
    await server.reset("B1")
    async with running(site, **table(server.url, telemetry=lines)):
        await site.until(lambda: len(site.values("B1", "limit")) >= 3)
        assert set(site.values("B1", "limit")) == {0.5}


@asyncio_test
async def test_a_value_is_written_in_the_nodes_own_type(server: Plant) -> None:
    """A call and a shared attribute write an Int16 as Int16 and an array as an array; what does not fit is refused."""
    site = OpcuaSite()
    device = {
        "rpc": {
            "set": {"write": "Limit", "value": "$.params.v"},
            "get": {"read": "Limit"},
            "levels": {"write": "Levels"},
            "heat": {"write": "Temp"},
        },
        "shared": {"limit": {"write": "Limit"}},
    }
    await server.reset("B1")
    async with running(site, **table(server.url, **device)) as connector:
        await site.until(lambda: is_healthy(site))
        assert await connector.call(call("B1", "set", {"v": 7})) == {"success": True}
        written = await server.node("B1.Limit").read_data_value()
        assert (written.Value.Value, written.Value.VariantType) == (7, ua.VariantType.Int16)
        assert await connector.call(call("B1", "get")) == 7
        await connector.call(call("B1", "levels", [3, 4.5]))
        assert await server.node("B1.Levels").read_value() == [3.0, 4.5]
        await connector.attributes_changed("B1", {"limit": 9, "other": 1}, [])
        assert await server.node("B1.Limit").read_value() == 9
        with pytest.raises(CallFailed, match="out of range; Int16 goes from -32768 to 32767"):
            await connector.call(call("B1", "set", {"v": 70_000}))
        with pytest.raises(CallFailed, match="the node's access level"):
            await connector.call(call("B1", "heat", 1))
        with pytest.raises(CallFailed, match="does not know the method 'fly'; it knows get, heat, levels, set"):
            await connector.call(call("B1", "fly"))
        with pytest.raises(CallFailed, match="has no device 'B9' now"):
            await connector.call(call("B9", "get"))


@asyncio_test
async def test_a_method_is_called_with_its_own_types(server: Plant) -> None:
    """Arguments come from paths, or by name or order from params; the output is the answer."""
    site = OpcuaSite()
    rpc = {
        "add": {"method": "Add", "object": ".", "args": ["$.params.x", 2]},
        "plain": {"method": "Add"},
    }
    await server.reset("B1")
    async with running(site, **table(server.url, rpc=rpc)) as connector:
        await site.until(lambda: is_healthy(site))
        assert await connector.call(call("B1", "add", {"x": 40})) == 42
        assert await connector.call(call("B1", "plain", {"b": 1, "a": 2})) == 3
        assert await connector.call(call("B1", "plain", [5, 6])) == 11
        with pytest.raises(CallFailed, match=r"takes 2 arguments \(a, b\), not 1"):
            await connector.call(call("B1", "plain", [5]))
        with pytest.raises(CallFailed, match="argument 'b' is missing in params"):
            await connector.call(call("B1", "plain", {"a": 2}))


@asyncio_test
async def test_bad_quality_is_left_out_and_told(server: Plant) -> None:
    """A value of bad quality is no reading: it is counted, and the node named until it is good again."""
    site = OpcuaSite()
    await server.reset("B1")
    async with running(site, **table(server.url)):
        await site.until(lambda: site.values("B1", "temperature"))
        bad = ua.DataValue(ua.Variant(99.0, ua.VariantType.Double))
        bad.StatusCode = ua.StatusCode(ua.StatusCodes.BadSensorFailure)
        await server.node("B1.Temp").write_value(bad)
        await site.until(lambda: site.state[0] is Health.DEGRADED)
        assert "B1/Temp (ns=2;s=B1.Temp): bad quality: BadSensorFailure" in site.state[1]
        assert [why for _, _, why in site.rejected] == ["bad quality: BadSensorFailure"]
        await server.node("B1.Temp").write_value(22.5)
        await site.until(lambda: is_healthy(site))
        assert site.values("B1", "temperature") == [20.5, 22.5]


@asyncio_test
async def test_a_restarted_server_is_found_again() -> None:
    """After a loss the connector connects again, browses and subscribes; meanwhile its devices are gone."""
    site, port = OpcuaSite(), free_port()
    first = await Plant(port).start("B1")
    async with running(site, **table(first.url)) as connector:
        await site.until(lambda: site.values("B1", "temperature"))
        await first.stop()
        await site.until(lambda: not site.devices and site.state[0] is Health.DEGRADED)
        with pytest.raises(CallFailed, match=f"there is no connection to {first.url}"):
            await connector.call(call("B1", "get"))
        await site.until(lambda: "nobody listens there" in site.state[1])
        second = await Plant(port).start("B1", "B2", B1=30.0)
        try:
            await site.until(lambda: is_healthy(site) and 30.0 in site.values("B1", "temperature"))
            assert site.devices == {"B1": "boiler", "B2": "boiler"}
            await second.node("B1.Temp").write_value(31.0)
            await site.until(lambda: site.values("B1", "temperature")[-1] == 31.0)
        finally:
            await second.stop()


@asyncio_test
async def test_new_nodes_become_devices(server: Plant) -> None:
    """The server is browsed again and again: what is new is watched, what is missing has gone."""
    site = OpcuaSite()
    await server.reset("B1")
    async with running(site, **table(server.url), browse_every="1 s"):
        await site.until(lambda: is_healthy(site))
        await server.add_boiler("B7", 70.0)
        await site.until(lambda: site.values("B7", "temperature") == [70.0])
        await server.server.delete_nodes([server.server.get_node(ua.NodeId("B1", server.space))], recursive=True)
        await site.until(lambda: site.devices == {"B7": "boiler"})


@asyncio_test
async def test_a_missing_node_is_named_with_what_is_there(server: Plant) -> None:
    """A path that leads nowhere is told with the names that stand there; the rest works."""
    site = OpcuaSite()
    lines = ["Temp -> temperature", "Tmep -> typo", "ns=2;s=Nothing -> nothing"]
    await server.reset("B1")
    async with running(site, **table(server.url, telemetry=lines)):
        await site.until(lambda: site.values("B1", "temperature"))
        assert "B1: 'Tmep': the starting point has no 'Tmep'; did you mean 'Temp'?" in site.state[1]
        assert "the server does not know this node" in site.state[1]


@asyncio_test
async def test_values_are_kept_while_the_gateway_is_full(server: Plant) -> None:
    """A refused reading is offered again, and a full gateway is left alone until it has room."""
    site = OpcuaSite()
    site.outcomes = [Refusal(reason="full", retry_after_s=0.05)]
    await server.reset("B1")
    async with running(site, **table(server.url)):
        await site.until(lambda: site.values("B1", "temperature") == [20.5])
        site.is_congested = True
        await server.node("B1.Temp").write_value(23.0)
        await site.until(lambda: site._rooms)
        assert site.values("B1", "temperature") == [20.5]
        site.make_room()
        await site.until(lambda: site.values("B1", "temperature") == [20.5, 23.0])


@asyncio_test
async def test_too_many_nodes_and_too_great_values_are_told(server: Plant) -> None:
    """No more than max_nodes are watched, and a value above 64 KiB is rejected."""
    site = OpcuaSite()
    await server.reset("B1", "B2")
    async with running(site, **table(server.url), max_nodes=1):
        await site.until(lambda: site.values("B1", "temperature"))
        assert "more than max_nodes = 1 nodes; the rest is left out" in site.state[1]
        assert site.values("B2", "temperature") == []
    site = OpcuaSite()
    await server.reset("B1")
    await server.node("B1.Serial").write_value("x" * 70_000)
    async with running(site, **table(server.url, telemetry=["Serial -> serial"])):
        await site.until(lambda: site.rejected)
        assert "the value has 70000 bytes; at most 64 KiB are taken" in site.rejected[0][2]


@asyncio_test
async def test_structures_and_enumerations_are_told(server: Plant) -> None:
    """A structure is an object; an enumeration is its number, or its name with `as = "string"`."""
    site = OpcuaSite()
    site.wants_raw = True
    lines = [
        {"at": "i=2260", "key": "build"},
        {"at": "i=2259", "key": "state"},
        {"at": "i=2259", "key": "state_name", "as": "string", "report": "change"},
        {"at": "Levels", "key": "levels"},
    ]
    await server.reset("B1")
    async with running(site, **table(server.url, telemetry=lines)):
        await site.until(lambda: len(site.readings) and site.values("B1", "levels") and site.values("B1", "state_name"))
        assert site.values("B1", "build")[0]["ProductName"] is not None
        assert site.values("B1", "state") == [0]
        assert site.values("B1", "state_name") == ["Running"]
        assert site.values("B1", "levels") == [[1.0, 2.0]]
        named = next(one for one in site.readings if "state_name" in (one.telemetry or {}))
        assert named.reports is not None
        assert set(named.reports) == {"state_name"}
        assert named.raw is not None
        assert named.raw["state_name"] == 'i=2259 Int32 "Running"'


@asyncio_test
async def test_a_structure_is_written_field_by_field(server: Plant) -> None:
    """An object replaces the fields that it names and leaves the others."""
    site = OpcuaSite()
    await server.reset("B1")
    [boiler] = await server.folder.get_children()
    present = ua.Argument(Name="old", ValueRank=-1)
    node = await boiler.add_variable(server.space, "Recipe", present, datatype=ua.NodeId(ua.ObjectIds.Argument))
    await node.set_writable()
    rpc = {"set": {"write": "Recipe"}, "get": {"read": "Recipe"}}
    async with running(site, **table(server.url, rpc=rpc)) as connector:
        await site.until(lambda: is_healthy(site) and site.devices)
        await connector.call(call("B1", "set", {"Name": "new"}))
        answer = await connector.call(call("B1", "get"))
        assert (answer["Name"], answer["ValueRank"]) == ("new", -1)
        with pytest.raises(CallFailed, match="the structure has no 'Nmae'"):
            await connector.call(call("B1", "set", {"Nmae": "new"}))


@asyncio_test
async def test_a_device_that_is_not_allowed_keeps_nobody_out(server: Plant) -> None:
    """What the gateway refuses of one device does not touch the others."""
    site = OpcuaSite()
    site.denied = {"B1"}
    await server.reset("B1", "B2")
    async with running(site, **table(server.url)):
        await site.until(lambda: site.values("B2", "temperature") == [20.5])
        await server.node("B2.Temp").write_value(21.0)
        await site.until(lambda: site.values("B2", "temperature") == [20.5, 21.0])
        assert site.values("B1", "temperature") == []


@asyncio_test
async def test_a_server_that_is_not_there_is_told(server: Plant) -> None:
    """Nobody at the address, or a name that nobody knows, are told with the fix, and calls say so."""
    del server
    site = OpcuaSite()
    async with running(site, **table(f"opc.tcp://127.0.0.1:{free_port()}")) as connector:
        await site.until(lambda: "nobody listens there; check port" in site.state[1])
        with pytest.raises(CallFailed, match="nobody listens there"):
            await connector.call(call("B1", "get"))
        await connector.attributes_changed("B1", {"unmapped": 1}, [])


@asyncio_test
async def test_a_server_that_does_not_answer_is_told() -> None:
    """Whoever takes the connection and says nothing is left after `timeout`, and tried again."""
    connections: list[asyncio.StreamWriter] = []
    mute = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    site = OpcuaSite()
    try:
        async with running(site, **{**table(f"opc.tcp://127.0.0.1:{port}"), "timeout": "200 ms"}):
            await site.until(lambda: "no answer within 0.2 s; check address" in site.state[1])
            async with asyncio.timeout(DEADLINE_S):
                while len(connections) < 2:
                    await asyncio.sleep(0.02)
    finally:
        mute.close()
        for writer in connections:
            writer.close()


@asyncio_test
async def test_a_servers_own_types_are_read(server: Plant) -> None:
    """A structure that only this server knows is an object; a name of the standard on it does no harm."""
    site = OpcuaSite()
    await server.reset("B1")
    [boiler] = await server.folder.get_children()
    fields = [
        new_struct_field("Speed", ua.VariantType.Double),
        new_struct_field("Name", ua.VariantType.String),
    ]
    await new_struct(server.server, server.space, "ReadValueId", fields)
    standard = ua.ReadValueId
    own = (await server.server.load_data_type_definitions())["ReadValueId"]
    await boiler.add_variable(
        server.space, "Motor", ua.Variant(own(Speed=1.5, Name="m"), ua.VariantType.ExtensionObject)
    )
    async with running(site, **table(server.url, telemetry=["Motor -> motor"])):
        await site.until(lambda: site.values("B1", "motor"))
        assert site.values("B1", "motor") == [{"Speed": 1.5, "Name": "m"}]
    assert ua.ReadValueId is standard
