"""Topics and filters: the tables of wire-contract.md sections 2.5 and 2.7."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import MalformedRequest
from shared.messages import PackageKind
from shared.mqtt.filters import matches
from shared.operations import Operation
from shared.topics import (
    DeviceTopic,
    Flavour,
    PushFlavours,
    attributes_answer_topic,
    attributes_topic,
    call_answer_topic,
    chunk_topic,
    command_topic,
    operation_for_subscribe,
    package_error_topic,
    parse_topic,
    provision_response_topic,
    push_flavours,
)

V1, V2, V2_JSON, V2_PROTOBUF = Flavour


@pytest.mark.parametrize(
    ("topic", "operation", "flavour"),
    [
        ("/provision/request", Operation.PROVISION, V1),
        ("provision/request", Operation.PROVISION, V1),
        ("/provision", Operation.PROVISION, V1),
        ("v1/devices/me/telemetry", Operation.POST_TELEMETRY, V1),
        ("v2/t", Operation.POST_TELEMETRY, V2),
        ("v2/t/j", Operation.POST_TELEMETRY, V2_JSON),
        ("v2/t/p", Operation.POST_TELEMETRY, V2_PROTOBUF),
        ("v1/devices/me/attributes", Operation.POST_ATTRIBUTES, V1),
        ("v2/a", Operation.POST_ATTRIBUTES, V2),
        ("v2/a/j", Operation.POST_ATTRIBUTES, V2_JSON),
        ("v2/a/p", Operation.POST_ATTRIBUTES, V2_PROTOBUF),
        ("v1/devices/me/claim", Operation.CLAIM, V1),
        ("v1/gateway/connect", Operation.GATEWAY_CONNECT, V1),
        ("v1/gateway/disconnect", Operation.GATEWAY_DISCONNECT, V1),
        ("v1/gateway/telemetry", Operation.GATEWAY_TELEMETRY, V1),
        ("v1/gateway/attributes", Operation.GATEWAY_ATTRIBUTES, V1),
        ("v1/gateway/attributes/request", Operation.GATEWAY_REQUEST_ATTRIBUTES, V1),
        ("v1/gateway/rpc", Operation.GATEWAY_ANSWER_RPC, V1),
        ("v1/gateway/claim", Operation.GATEWAY_CLAIM, V1),
    ],
)
def test_a_published_topic_names_one_operation(topic: str, operation: Operation, flavour: Flavour) -> None:
    assert parse_topic(topic) == DeviceTopic(operation, flavour)


@pytest.mark.parametrize(
    ("prefix", "operation", "flavour"),
    [
        ("v1/devices/me/attributes/request", Operation.REQUEST_ATTRIBUTES, V1),
        ("v2/a/req", Operation.REQUEST_ATTRIBUTES, V2),
        ("v2/a/req/j", Operation.REQUEST_ATTRIBUTES, V2_JSON),
        ("v2/a/req/p", Operation.REQUEST_ATTRIBUTES, V2_PROTOBUF),
        ("v1/devices/me/rpc/response", Operation.ANSWER_RPC, V1),
        ("v2/r/res", Operation.ANSWER_RPC, V2),
        ("v2/r/res/j", Operation.ANSWER_RPC, V2_JSON),
        ("v2/r/res/p", Operation.ANSWER_RPC, V2_PROTOBUF),
        ("v1/devices/me/rpc/request", Operation.CALL_SERVER, V1),
        ("v2/r/req", Operation.CALL_SERVER, V2),
        ("v2/r/req/j", Operation.CALL_SERVER, V2_JSON),
        ("v2/r/req/p", Operation.CALL_SERVER, V2_PROTOBUF),
    ],
)
def test_a_topic_with_an_id_says_which_request_it_is(prefix: str, operation: Operation, flavour: Flavour) -> None:
    for request_id in (0, 7, -1, 2**31 - 1, -(2**31)):
        assert parse_topic(f"{prefix}/{request_id}") == DeviceTopic(operation, flavour, request_id)


@pytest.mark.parametrize("request_id", ["", "x", "1.5", "2147483648", "-2147483649", "99999999999999999999", "٣", "+1"])
@pytest.mark.parametrize("prefix", ["v1/devices/me/attributes/request", "v1/devices/me/rpc/response", "v2/r/req/j"])
def test_an_id_that_is_no_32_bit_integer_is_a_malformed_request(prefix: str, request_id: str) -> None:
    with pytest.raises(MalformedRequest, match="32-bit integer"):
        parse_topic(f"{prefix}/{request_id}")


@pytest.mark.parametrize(("name", "kind"), [("fw", PackageKind.FIRMWARE), ("sw", PackageKind.SOFTWARE)])
def test_a_download_names_request_and_chunk(name: str, kind: PackageKind) -> None:
    assert parse_topic(f"v2/{name}/request/3/chunk/17") == DeviceTopic(Operation.DOWNLOAD, V2, 3, 17, kind)


@pytest.mark.parametrize("topic", ["v2/fw/request/x/chunk/0", "v2/fw/request/1/chunk/-1", "v2/sw/request/-1/chunk/0"])
def test_a_download_counts_from_zero(topic: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_topic(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "provision",
        "/provision/response",
        "v1/devices/me/telemetry/",
        "V1/devices/me/telemetry",
        "v1/devices/me/attributes/response/1",
        "v1/devices/me/rpc/request/1/2",
        "v1/devices/me/rpc",
        "v2/fw/request/1",
        "v2/fw/response/1/chunk/1",
        "v2/xw/request/1/chunk/1",
        "v1/gateway/unknown",
        "v1/gateway/rpc/1",
        "",
    ],
)
def test_any_other_topic_is_none(topic: str) -> None:
    assert parse_topic(topic) is None


@given(
    st.text()
    | st.lists(
        st.sampled_from(["v1", "v2", "devices", "me", "attributes", "request", "rpc", "fw", "chunk", "1", "x"])
    ).map("/".join)
)
def test_any_topic_gives_a_target_or_none_or_a_refusal(topic: str) -> None:
    try:
        target = parse_topic(topic)
    except MalformedRequest:
        return
    assert target is None or target.operation in Operation


@pytest.mark.parametrize(
    ("topic_filter", "attributes", "commands"),
    [
        ("v1/devices/me/attributes", V1, None),
        ("v2/a", V2, None),
        ("v2/a/j", V2_JSON, None),
        ("v2/a/p", V2_PROTOBUF, None),
        ("v1/devices/me/rpc/request/+", None, V1),
        ("v2/r/req/+", None, V2),
        ("v2/r/req/j/+", None, V2_JSON),
        ("v2/r/req/p/+", None, V2_PROTOBUF),
        ("v1/devices/me/attributes/response/+", None, None),
        ("v1/devices/me/rpc/response/+", None, None),
        ("v2/a/res/+", None, None),
        ("v2/fw/response/+/chunk/+", None, None),
        ("v1/gateway/attributes", None, None),
        # wildcards
        ("v1/devices/me/#", V1, V1),
        ("v1/devices/me/+", V1, None),
        ("v1/devices/me/attributes/#", V1, None),
        ("v1/devices/me/rpc/#", None, V1),
        ("v2/#", V2, V2),
        ("v2/+", V2, None),
        ("v2/a/+", V2_JSON, None),
        ("v2/r/+/+", None, V2),
        ("v2/r/req/+/+", None, V2_JSON),
    ],
)
def test_a_subscription_turns_on_the_pushes_that_it_selects(
    topic_filter: str, attributes: Flavour | None, commands: Flavour | None
) -> None:
    assert push_flavours(topic_filter) == PushFlavours(attributes, commands)


@pytest.mark.parametrize("flavour", Flavour)
def test_what_is_sent_matches_a_filter_of_its_flavour(flavour: Flavour) -> None:
    """A client that subscribed in one flavour gets everything in that flavour."""
    filters = {
        V1: "v1/devices/me/attributes v1/devices/me/attributes/response/+ v1/devices/me/rpc/request/+"
        " v1/devices/me/rpc/response/+",
        V2: "v2/a v2/a/res/+ v2/r/req/+ v2/r/res/+",
        V2_JSON: "v2/a/j v2/a/res/j/+ v2/r/req/j/+ v2/r/res/j/+",
        V2_PROTOBUF: "v2/a/p v2/a/res/p/+ v2/r/req/p/+ v2/r/res/p/+",
    }[flavour].split()
    sent = [
        attributes_topic(flavour),
        attributes_answer_topic(flavour, -3),
        command_topic(flavour, 12),
        call_answer_topic(flavour, 5),
    ]
    assert all(matches(*pair) for pair in zip(filters, sent, strict=True))


def test_packages_have_topics_of_their_kind() -> None:
    assert chunk_topic(PackageKind.FIRMWARE, 1, 2) == "v2/fw/response/1/chunk/2"
    assert chunk_topic(PackageKind.SOFTWARE, 1, 2) == "v2/sw/response/1/chunk/2"
    assert package_error_topic(PackageKind.FIRMWARE) == "v2/fw/error"
    assert package_error_topic(PackageKind.SOFTWARE) == "v2/sw/error"


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
    ("topic_filter", "operation"),
    [
        ("v1/devices/me/rpc/response/1", Operation.RECEIVE_RPC),
        ("v1/devices/me/attributes/response/12", Operation.RECEIVE_ATTRIBUTES),
        ("v2/a/res/1", Operation.RECEIVE_ATTRIBUTES),
        ("v2/r/res/j/1", Operation.RECEIVE_RPC),
        ("v1/devices/me/rpc/request/1", None),
        ("v1/devices/me/rpc/response/x", None),
        ("v1/devices/me/claim/response/1", None),
        ("v2/r/req/1", None),
    ],
)
def test_the_topic_of_one_answer_is_granted(topic_filter: str, operation: Operation | None) -> None:
    """For clients that make a single request, such as mosquitto_rr; what is no answer stays refused."""
    assert operation_for_subscribe(topic_filter) is operation
