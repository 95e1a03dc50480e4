"""ThingsBoard's own Python REST client (tb-rest-client), unmodified: an operator's day."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.support.server import PASSWORD, USERNAME, CoreProcess

pytestmark = pytest.mark.filterwarnings("default")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def client(core: CoreProcess) -> Iterator[Any]:
    from tb_rest_client.rest_client import RestClient

    with RestClient(core.http) as found:
        found.login(USERNAME, PASSWORD)
        yield found


@pytest.fixture
def device(client: Any) -> Any:
    """A new device of a profile of its own."""
    from tb_rest_client.models import (
        DefaultDeviceProfileConfiguration,
        DefaultDeviceProfileTransportConfiguration,
        Device,
        DeviceProfile,
        DeviceProfileData,
    )

    number = next(_numbers)
    data = DeviceProfileData(
        configuration=DefaultDeviceProfileConfiguration(type="DEFAULT"),
        transport_configuration=DefaultDeviceProfileTransportConfiguration(type="DEFAULT"),
    )
    profile = client.save_device_profile(
        DeviceProfile(name=f"rest {number}", type="DEFAULT", transport_type="DEFAULT", profile_data=data)
    )
    assert profile.id.entity_type == "DEVICE_PROFILE" and profile.name == f"rest {number}"
    saved = client.save_device(Device(name=f"rest-{number}", label="Hall 1", device_profile_id=profile.id))
    assert saved.type == profile.name
    return saved


def commanded(core: CoreProcess, client: Any, device: Any, call: Any) -> tuple[Any, dict[str, Any]]:
    """(what the call returns, the request that the device has got over HTTP)."""
    from tb_rest_client.rest import ApiException

    token = client.get_device_credentials_by_device_id(device.id).credentials_id
    asked: list[dict[str, Any]] = []

    def serve() -> None:
        asked.append(requests.get(f"{core.http}/api/v1/{token}/rpc", params={"timeout": 20_000}, timeout=30).json())
        requests.post(f"{core.http}/api/v1/{token}/rpc/{asked[0]['id']}", json={"done": True}, timeout=30)

    device_thread = threading.Thread(target=serve, daemon=True)
    device_thread.start()
    for _ in range(100):
        try:
            result = call()
            device_thread.join(30)
            return result, asked[0]
        except ApiException as error:
            assert error.status in (504, 409), error  # it does not wait for commands yet
            threading.Event().wait(0.1)
    raise AssertionError("the device never got the command")


def test_who_is_logged_in(client: Any) -> None:
    """The client keeps its tokens fresh by itself and understands who it is."""
    before = client.get_token()
    client.refresh()
    assert client.get_token() and client.token_info["exp"] > time.time()
    assert isinstance(before, str)
    user = client.get_user()
    assert (user.email, user.authority) == (USERNAME, "TENANT_ADMIN")


def test_profiles(client: Any, device: Any) -> None:
    """The default one, its replacement, names, and a page."""
    default = client.get_default_device_profile_info()
    made = client.set_default_device_profile(device.device_profile_id)
    assert made.default and client.get_default_device_profile_info().name == device.type
    client.set_default_device_profile(default.id)
    names = {one.name for one in client.get_device_profile_names()}
    assert {default.name, device.type} <= names
    page = client.get_device_profile_infos(page_size=100, page=0, transport_type="DEFAULT")
    assert device.type in {one.name for one in page.data}
    assert client.get_device_profile_by_id(device.device_profile_id).name == device.type


def test_devices(client: Any, device: Any) -> None:
    """Saved, found by every way, and listed."""
    page = client.get_tenant_devices(page_size=10, page=0, text_search=device.name.upper(), sort_property="name")
    assert [one.name for one in page.data] == [device.name] and page.total_elements == 1
    assert client.get_device_by_id(device.id).label == "Hall 1"
    assert [one.name for one in client.get_devices_by_ids([device.id.id])] == [device.name]
    assert device.type in {one.type for one in client.get_device_types()}
    infos = client.get_tenant_device_infos(
        page_size=10, page=0, device_profile_id=device.device_profile_id, active=False
    )
    assert [(one.name, one.type, one.active) for one in infos.data] == [(device.name, device.type, False)]
    device.label = "Hall 2"
    changed = client.save_device(device)
    assert (changed.label, changed.version) == ("Hall 2", device.version + 1)


def test_a_name_that_is_taken(client: Any, device: Any) -> None:
    """Is refused as an error that says so, and made unique where that is wanted."""
    from tb_rest_client.models import Device
    from tb_rest_client.rest import ApiException

    with pytest.raises(ApiException) as refused:
        client.save_device(Device(name=device.name))
    assert refused.value.status == 400 and "already exists" in str(refused.value.body)
    other = client.save_device(
        Device(name=device.name), name_conflict_policy="UNIQUIFY", uniquify_strategy="INCREMENTAL"
    )
    assert other.name == f"{device.name}_1"


def test_credentials(client: Any, device: Any) -> None:
    credentials = client.get_device_credentials_by_device_id(device.id)
    assert credentials.credentials_type == "ACCESS_TOKEN" and len(credentials.credentials_id) == 20
    credentials.credentials_id = f"token-{uuid4()}"
    assert client.update_device_credentials(credentials).credentials_id == credentials.credentials_id


def test_attributes_and_time_series(client: Any, device: Any) -> None:
    """Written, read, aggregated and removed."""
    client.save_entity_attributes_v1(device.id, "SERVER_SCOPE", {"plant": "north"})
    client.save_entity_attributes_v2(device.id, "SHARED_SCOPE", {"limit": 42})
    found = {one.key: one.value for one in client.get_attributes_by_scope(device.id, "SERVER_SCOPE")}
    assert found["plant"] == "north"
    assert "limit" in client.get_attribute_keys_by_scope(device.id, "SHARED_SCOPE")
    packs = [{"ts": 1000 + n, "values": {"temperature": n}} for n in range(4)]
    client.save_entity_telemetry(device.id, "ANY", packs)
    assert client.get_timeseries_keys_v1(device.id) == ["temperature"]
    latest = client.get_latest_timeseries(device.id, keys="temperature")
    assert latest["temperature"][0].value == "3"
    whole = {"keys": "temperature", "start_ts": 0, "end_ts": 2000}
    history = client.get_timeseries(device.id, limit=2, **whole)
    assert [point.value for point in history["temperature"]] == ["3", "2"]
    mean = client.get_timeseries(device.id, agg="AVG", interval=2000, **whole)
    assert [point.value for point in mean["temperature"]] == ["1.5"]
    client.delete_entity_timeseries(device.id, keys="temperature", delete_all_data_for_keys=True)
    assert client.get_timeseries_keys_v1(device.id) == []


def test_commands(core: CoreProcess, client: Any, device: Any) -> None:
    """Two ways the device's answer comes back; one way its delivery is enough."""
    body = {"method": "setGpio", "params": {"pin": 7}, "timeout": 20_000}
    for call in (client.handle_two_way_device_rpc_request_v1, client.handle_two_way_device_rpc_request):
        result, asked = commanded(core, client, device, lambda call=call: call(device.id, body))
        assert asked["method"] == "setGpio"
        assert (json.loads(result) if isinstance(result, str) else result) == {"done": True}
    _, asked = commanded(core, client, device, lambda: client.handle_one_way_device_rpc_request_v1(device.id, body))
    assert asked["params"] == {"pin": 7}


def test_relations(client: Any, device: Any) -> None:
    from tb_rest_client.models import Device, EntityRelation

    other = client.save_device(Device(name=f"{device.name} part"))
    client.save_relation(EntityRelation(_from=device.id, to=other.id, type="Contains", type_group="COMMON"))
    (found,) = client.find_by_from(device.id, "Contains")
    assert found.to.id == other.id.id
    (found,) = client.find_by_to(other.id, "Contains")
    assert found.type == "Contains"


def test_a_deleted_device_is_gone(client: Any, device: Any) -> None:
    from tb_rest_client.rest import ApiException

    client.delete_device(device.id)
    with pytest.raises(ApiException) as refused:
        client.get_device_by_id(device.id)
    assert refused.value.status == 404
