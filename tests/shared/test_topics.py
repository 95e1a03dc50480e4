"""Topics, filters and paths: the tables of wire-contract.md sections 2.5, 2.7, 3.1 and 4.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import MalformedRequest
from shared.operations import Operation
from shared.topics import (
    DevicePath,
    Feature,
    operation_for_path,
    operation_for_publish,
    operation_for_subscribe,
    parse_device_path,
    provision_response_topic,
)


@pytest.mark.parametrize(
    ("topic", "operation"),
    [
        ("/provision/request", Operation.PROVISION),
        ("provision/request", Operation.PROVISION),
        ("/provision", Operation.PROVISION),
        ("v1/devices/me/telemetry", Operation.POST_TELEMETRY),
        ("v2/t", Operation.POST_TELEMETRY),
        ("v2/t/j", Operation.POST_TELEMETRY),
        ("v1/devices/me/attributes", Operation.POST_ATTRIBUTES),
        ("v2/a", Operation.POST_ATTRIBUTES),
        ("v2/a/j", Operation.POST_ATTRIBUTES),
        ("provision", None),
        ("/provision/response", None),
        ("v1/devices/me/telemetry/", None),
        ("V1/devices/me/telemetry", None),
        ("", None),
    ],
)
def test_a_published_topic_names_one_operation(topic: str, operation: Operation | None) -> None:
    assert operation_for_publish(topic) is operation


@pytest.mark.parametrize(
    ("operation", "filters"),
    [
        (Operation.RECEIVE_PROVISION_RESPONSE, "/provision/response provision/response /provision"),
        (
            Operation.RECEIVE_ATTRIBUTES,
            "v1/devices/me/attributes v1/devices/me/attributes/response/+ v2/a v2/a/j v2/a/p"
            " v2/a/res/+ v2/a/res/j/+ v2/a/res/p/+",
        ),
        (
            Operation.RECEIVE_RPC,
            "v1/devices/me/rpc/request/+ v1/devices/me/rpc/response/+ v2/r/req/+ v2/r/req/j/+ v2/r/req/p/+"
            " v2/r/res/+ v2/r/res/j/+ v2/r/res/p/+",
        ),
        (
            Operation.RECEIVE_FIRMWARE,
            "v2/fw/response/+/chunk/+ v2/fw/error v2/sw/response/+/chunk/+ v2/sw/error",
        ),
        (
            Operation.RECEIVE_GATEWAY_MESSAGES,
            "v1/gateway/attributes v1/gateway/rpc v1/gateway/attributes/response",
        ),
    ],
)
def test_every_filter_that_thingsboard_grants_is_granted(operation: Operation, filters: str) -> None:
    assert {operation_for_subscribe(name) for name in filters.split()} == {operation}


@pytest.mark.parametrize(
    ("topic_filter", "operation"),
    [
        ("v2/fw/response/+", Operation.RECEIVE_FIRMWARE),
        ("v2/sw/response/+", Operation.RECEIVE_FIRMWARE),
        ("v2/fw/#", Operation.RECEIVE_FIRMWARE),
        ("v1/gateway/disconnect", Operation.RECEIVE_GATEWAY_MESSAGES),
        ("v1/gateway/+", Operation.RECEIVE_GATEWAY_MESSAGES),
        ("v1/gateway/#", Operation.RECEIVE_GATEWAY_MESSAGES),
        ("v1/devices/me/#", Operation.RECEIVE_OWN_TREE),
        ("v1/devices/me/+", Operation.RECEIVE_OWN_TREE),
        ("v1/devices/me/+/response/+", Operation.RECEIVE_OWN_TREE),
        ("v1/devices/me/attributes/#", Operation.RECEIVE_ATTRIBUTES),
        ("v1/devices/me/attributes/+/+", Operation.RECEIVE_ATTRIBUTES),
        ("v1/devices/me/rpc/#", Operation.RECEIVE_RPC),
        ("v2/r/+/+", Operation.RECEIVE_RPC),
        ("v2/a/#", Operation.RECEIVE_ATTRIBUTES),
        ("v2/#", Operation.RECEIVE_OWN_TREE),
    ],
)
def test_wildcards_under_the_devices_own_trees_are_granted_too(topic_filter: str, operation: Operation) -> None:
    assert operation_for_subscribe(topic_filter) is operation


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/devices/me/attributes",
        "v1/#",
        "v1/devices/#",
        "v1/devices/+/attributes",
        "v1/devices/me/rpc/request/1",
        "v1/devices/me/telemetry",
        "v1/devices/me/#/x",
        "v1/devices/me/a+",
        "v1/devices/me/rpc#",
        "/provision/+",
        "/provision/#",
        "provision",
        "",
    ],
)
def test_any_other_filter_is_refused(topic_filter: str) -> None:
    assert operation_for_subscribe(topic_filter) is None


@pytest.mark.parametrize(
    ("request_topic", "response_topic"),
    [
        ("/provision/request", "/provision/response"),
        ("provision/request", "provision/response"),
        ("/provision", "/provision/response"),
    ],
)
def test_the_answer_goes_to_the_form_that_was_asked_on(request_topic: str, response_topic: str) -> None:
    assert provision_response_topic(request_topic) == response_topic


@pytest.mark.parametrize(
    ("path", "parsed"),
    [
        ("api/v1/TOKEN/telemetry", DevicePath(feature=Feature.TELEMETRY, token="TOKEN")),
        ("api/v1/TOKEN/Telemetry", DevicePath(feature=Feature.TELEMETRY, token="TOKEN")),
        ("api/v1/TOKEN/attributes", DevicePath(feature=Feature.ATTRIBUTES, token="TOKEN")),
        ("api/v1/TOKEN/attributes/updates", DevicePath(feature=Feature.ATTRIBUTE_UPDATES, token="TOKEN")),
        ("api/v1/TOKEN/rpc", DevicePath(feature=Feature.RPC, token="TOKEN")),
        ("api/v1/TOKEN/rpc/17", DevicePath(feature=Feature.RPC, token="TOKEN", request_id=17)),
        ("api/v1/TOKEN/rpc/-2147483648", DevicePath(feature=Feature.RPC, token="TOKEN", request_id=-(2**31))),
        ("api/v1/TOKEN/claim", DevicePath(feature=Feature.CLAIM, token="TOKEN")),
        ("api/v1/TOKEN/firmware", DevicePath(feature=Feature.FIRMWARE, token="TOKEN")),
        ("api/v1/TOKEN/software", DevicePath(feature=Feature.SOFTWARE, token="TOKEN")),
        ("fw/TOKEN", DevicePath(feature=Feature.FIRMWARE, token="TOKEN")),
        ("sw/TOKEN", DevicePath(feature=Feature.SOFTWARE, token="TOKEN")),
        ("api/v1/provision", DevicePath(feature=Feature.PROVISION)),
        ("api/v1/PROVISION", DevicePath(feature=Feature.PROVISION)),
        ("api/v1/anything/provision", DevicePath(feature=Feature.PROVISION)),
        ("api/v1/provision/telemetry", DevicePath(feature=Feature.TELEMETRY, token="provision")),
        ("api/v1//telemetry", DevicePath(feature=Feature.TELEMETRY, token="")),
        # sessions authenticated by certificate: no token
        ("api/v1/telemetry", DevicePath(feature=Feature.TELEMETRY)),
        ("api/v1/attributes", DevicePath(feature=Feature.ATTRIBUTES)),
        ("api/v1/rpc", DevicePath(feature=Feature.RPC)),
        ("api/v1/rpc/17", DevicePath(feature=Feature.RPC, request_id=17)),
        # none
        ("api/v1", None),
        ("api", None),
        ("", None),
        ("api/v2/TOKEN/telemetry", None),
        ("api/v1/TOKEN/unknown", None),
        ("api/v1/unknown", None),
        ("api/v1/telemetry/17", None),
        ("api/v1/TOKEN/telemetry/17", None),
        ("api/v1/TOKEN/rpc/17/x", None),
        ("fw", None),
        ("fw/TOKEN/x", None),
    ],
)
def test_a_path_means_the_same_in_segments_and_in_one_piece(path: str, parsed: DevicePath | None) -> None:
    assert parse_device_path(path.split("/")) == parsed
    assert parse_device_path([path]) == parsed
    assert parse_device_path(["/" + path]) == parsed


def test_a_token_may_contain_a_slash_when_the_path_comes_in_segments() -> None:
    assert parse_device_path(["api", "v1", "a/b", "rpc"]) == DevicePath(feature=Feature.RPC, token="a/b")


@pytest.mark.parametrize("request_id", ["x", "", "1.5", "2147483648", "99999999999999999999", "٣"])
def test_an_rpc_id_must_be_a_32_bit_integer(request_id: str) -> None:
    with pytest.raises(MalformedRequest, match="32-bit integer"):
        parse_device_path(["api", "v1", "TOKEN", "rpc", request_id])


@given(st.lists(st.sampled_from(["api", "v1", "fw", "rpc", "telemetry", "provision", "7", "", "a/b"]) | st.text()))
def test_any_path_gives_a_feature_or_none_or_a_refusal(segments: list[str]) -> None:
    try:
        path = parse_device_path(segments)
    except MalformedRequest:
        return
    assert path is None or path.feature in Feature


@pytest.mark.parametrize(
    ("method", "feature", "operation"),
    [
        ("POST", Feature.PROVISION, Operation.PROVISION),
        ("POST", Feature.TELEMETRY, Operation.POST_TELEMETRY),
        ("POST", Feature.ATTRIBUTES, Operation.POST_ATTRIBUTES),
        ("GET", Feature.ATTRIBUTE_UPDATES, Operation.RECEIVE_ATTRIBUTES),
        ("GET", Feature.RPC, Operation.RECEIVE_RPC),
        ("GET", Feature.TELEMETRY, None),
        ("PUT", Feature.PROVISION, None),
    ],
)
def test_method_and_feature_name_an_operation(method: str, feature: Feature, operation: Operation | None) -> None:
    assert operation_for_path(method, DevicePath(feature=feature)) is operation
