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
    Flavour,
    Target,
    attributes_push_of,
    attributes_response_topic,
    call_response_topic,
    chunk_topic,
    command_push_of,
    command_topic,
    download_error_topic,
    operation_for_path,
    operation_for_subscribe,
    parse_device_path,
    provision_response_topic,
    target_of,
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
    target = target_of(topic)
    assert (None if target is None else target.operation) is operation


@pytest.mark.parametrize(
    ("topic", "target"),
    [
        ("v1/devices/me/attributes/request/1", Target(Operation.REQUEST_ATTRIBUTES, Flavour.V1, 1)),
        ("v1/devices/me/rpc/request/-7", Target(Operation.CALL_SERVER, Flavour.V1, -7)),
        ("v1/devices/me/rpc/response/2147483647", Target(Operation.ANSWER_RPC, Flavour.V1, 2**31 - 1)),
        ("v1/devices/me/claim", Target(Operation.CLAIM)),
        ("v2/t/p", Target(Operation.POST_TELEMETRY, Flavour.V2_PROTOBUF)),
        ("v2/a/p", Target(Operation.POST_ATTRIBUTES, Flavour.V2_PROTOBUF)),
        ("v2/a/req/3", Target(Operation.REQUEST_ATTRIBUTES, Flavour.V2, 3)),
        ("v2/a/req/j/3", Target(Operation.REQUEST_ATTRIBUTES, Flavour.V2_JSON, 3)),
        ("v2/a/req/p/3", Target(Operation.REQUEST_ATTRIBUTES, Flavour.V2_PROTOBUF, 3)),
        ("v2/r/req/4", Target(Operation.CALL_SERVER, Flavour.V2, 4)),
        ("v2/r/req/j/4", Target(Operation.CALL_SERVER, Flavour.V2_JSON, 4)),
        ("v2/r/res/p/5", Target(Operation.ANSWER_RPC, Flavour.V2_PROTOBUF, 5)),
        ("v2/fw/request/6/chunk/0", Target(Operation.DOWNLOAD, Flavour.V2, 6, 0)),
        ("v2/sw/request/6/chunk/2", Target(Operation.DOWNLOAD, Flavour.V2, 6, 2, is_software=True)),
        ("v1/gateway/rpc", Target(Operation.GATEWAY_ANSWER_RPC)),
        ("v1/gateway/unknown", None),
        ("v2/fw/request/6/chunk", None),
        ("v2/x/req/1", None),
    ],
)
def test_a_topic_with_numbers_is_taken_apart(topic: str, target: Target | None) -> None:
    """Operation, family, number of the request and of the chunk (O6's twin for MQTT)."""
    assert target_of(topic) == target


@pytest.mark.parametrize(
    "topic",
    [
        "v1/devices/me/rpc/request/", "v1/devices/me/rpc/request/x", "v1/devices/me/rpc/response/2147483648",
        "v1/devices/me/attributes/request/1/2", "v2/a/req/1.0", "v2/fw/request/a/chunk/0",
        "v2/fw/request/1/chunk/-1", "v2/r/res/j/",
    ],
)  # fmt: skip
def test_a_number_that_is_none_is_malformed(topic: str) -> None:
    """32 bits, decimal; a chunk counts from 0."""
    with pytest.raises(MalformedRequest):
        target_of(topic)


def test_answers_go_to_the_family_of_the_request() -> None:
    """With the request's number."""
    asked = [Target(Operation.REQUEST_ATTRIBUTES, flavour, 9) for flavour in Flavour]
    assert [attributes_response_topic(one) for one in asked] == [
        "v1/devices/me/attributes/response/9", "v2/a/res/9", "v2/a/res/j/9", "v2/a/res/p/9",
    ]  # fmt: skip
    assert [call_response_topic(one) for one in asked] == [
        "v1/devices/me/rpc/response/9", "v2/r/res/9", "v2/r/res/j/9", "v2/r/res/p/9",
    ]  # fmt: skip
    assert [command_topic(flavour, 9) for flavour in Flavour] == [
        "v1/devices/me/rpc/request/9", "v2/r/req/9", "v2/r/req/j/9", "v2/r/req/p/9",
    ]  # fmt: skip
    download = Target(Operation.DOWNLOAD, Flavour.V2, 1, 2, is_software=True)
    assert (chunk_topic(download), download_error_topic(download)) == ("v2/sw/response/1/chunk/2", "v2/sw/error")


@pytest.mark.parametrize(
    ("topic_filter", "attributes", "commands"),
    [
        ("v1/devices/me/attributes", Flavour.V1, None),
        ("v1/devices/me/attributes/response/+", None, None),
        ("v1/devices/me/rpc/request/+", None, Flavour.V1),
        ("v1/devices/me/rpc/response/+", None, None),
        ("v2/a", Flavour.V2, None),
        ("v2/a/j", Flavour.V2_JSON, None),
        ("v2/a/p", Flavour.V2_PROTOBUF, None),
        ("v2/r/req/+", None, Flavour.V2),
        ("v2/r/req/j/+", None, Flavour.V2_JSON),
        ("v1/devices/me/#", Flavour.V1, Flavour.V1),
        ("v1/devices/me/rpc/+/+", None, Flavour.V1),
        ("v2/fw/error", None, None),
    ],
)
def test_a_subscription_turns_on_its_pushes(
    topic_filter: str, attributes: Flavour | None, commands: Flavour | None
) -> None:
    """Exact names and wildcards."""
    assert attributes_push_of(topic_filter, "v1/devices/me/attributes") is attributes
    assert command_push_of(topic_filter) is commands


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
