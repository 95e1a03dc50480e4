"""Paths of device requests: the tables of wire-contract.md sections 3.1 and 4.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.device_paths import DevicePath, Feature, operation_for_path, parse_device_path
from shared.errors import MalformedRequest
from shared.operations import Operation


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
        ("api/v1/attributes/updates", DevicePath(feature=Feature.ATTRIBUTE_UPDATES)),
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
