"""Provision bodies: requests in every spelling, responses byte for byte, nothing secret in a log."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import provision_protobuf
from shared.credentials import AccessToken, Credentials, CredentialsType, MqttBasic, X509Certificate
from shared.errors import (
    DeviceAlreadyExists,
    InvalidProvisionCredentials,
    MalformedRequest,
    PlatformError,
    ProvisionRefused,
    ProvisionStatus,
    RateLimited,
    RequestTooLarge,
    Unavailable,
    leaf_classes,
    status_of,
)
from shared.messages import ProvisionRequest, ProvisionResponse
from shared.payloads import (
    ProvisionEncoding,
    decode_provision,
    parse_provision_request,
    redacted_provision_request,
    refusal_response,
    render_provision_response,
)

MINIMAL = ProvisionRequest(provision_key="K", provision_secret="S")


def body(**members: object) -> bytes:
    return json.dumps({"provisionDeviceKey": "K", "provisionDeviceSecret": "S"} | members).encode()


# --- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_body", "changes"),
    [
        (body(), {}),
        (body(deviceName=" D "), {"device_name": " D "}),  # trimming is the core's
        (body(credentialsType="ACCESS_TOKEN", token="T"), {"token": "T"}),
        (
            body(credentialsType="MQTT_BASIC", clientId="c", username="u", password="p"),
            {
                "credentials_type": CredentialsType.MQTT_BASIC,
                "client_id": "c",
                "username": "u",
                "password": "p",
            },
        ),
        (
            body(credentialsType="X509_CERTIFICATE", hash="MIIB"),
            {"credentials_type": CredentialsType.X509_CERTIFICATE, "certificate": "MIIB"},
        ),
        (body(gateway=True), {"is_gateway": True}),
        (body(gateway=False, unknown={"deep": [1]}), {}),
        (body(deviceName=None, token=None, credentialsType=None, gateway=None), {}),
        (body(deviceName="", credentialsType=""), {}),
        # members of other types stand for their text
        (
            body(deviceName=5, token=True, username=False),
            {"device_name": "5", "token": "true", "username": "false"},
        ),
        (body(deviceName=1.5, password=None), {"device_name": "1.5"}),
        (body(token=10**30), {"token": "1" + "0" * 30}),
        (body(gateway="True"), {"is_gateway": True}),
        (body(gateway="yes"), {}),
        (body(gateway=1), {}),
        # the lenient forms
        (b"{provisionDeviceKey:K,provisionDeviceSecret=>'S';deviceName=1.50}", {"device_name": "1.50"}),
        (b"{provisionDeviceKey:x,provisionDeviceKey:K,provisionDeviceSecret:S,token:null}", {}),
        (b'\xef\xbb\xbf{"provisionDeviceKey":"K","provisionDeviceSecret":"S"} // end', {}),
        (b"{provisionDeviceKey:K,provisionDeviceSecret:S,deviceName:'\xff'}", {"device_name": "\ufffd"}),
    ],
)
def test_a_request_is_read_in_every_accepted_form(given_body: bytes, changes: dict[str, object]) -> None:
    expected = dataclasses.replace(MINIMAL, **changes)  # type: ignore[arg-type]  # a table of members
    assert parse_provision_request(given_body) == expected
    assert decode_provision(given_body) == (expected, ProvisionEncoding.JSON)


def test_an_empty_key_is_present_and_left_to_the_core() -> None:
    assert parse_provision_request(body(provisionDeviceKey="")).provision_key == ""


@pytest.mark.parametrize(
    ("given_body", "detail"),
    [
        (b"", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"[]", "must be a JSON object"),
        (b'"S3CRET"', "must be a JSON object"),
        (b"S3CRET", "must be a JSON object"),
        (b"{}", "provisionDeviceKey is missing; add it"),
        (b'{"provisionDeviceKey":"S3CRET"}', "provisionDeviceSecret is missing; add it"),
        (body(provisionDeviceKey=None), "provisionDeviceKey is missing"),
        (body(provisionDeviceSecret=None), "provisionDeviceSecret is missing"),
        (body(credentialsType="S3CRET"), "must be one of ACCESS_TOKEN, MQTT_BASIC, X509_CERTIFICATE"),
        (body(credentialsType="LWM2M_CREDENTIALS"), "must be one of"),
        (body(credentialsType="access_token"), "must be one of"),
        (body(token={"S3CRET": 1}), "token must be a string"),
        (body(provisionDeviceSecret=["S3CRET"]), "provisionDeviceSecret must be a string"),
        (body(gateway=["S3CRET"]), "gateway must be a string"),
        (b"{S3CRET", "not JSON: expected ':' at character 8"),
        (b"[" * 5000, "nested deeper than"),
        (body(unknown=None).replace(b"null", b"[" * 5000), "nested deeper than"),
    ],
)
def test_a_malformed_request_is_refused_with_the_fix_and_without_its_values(given_body: bytes, detail: str) -> None:
    for read in (parse_provision_request, decode_provision):
        with pytest.raises(MalformedRequest) as caught:
            read(given_body)
        assert detail in caught.value.detail
        assert "S3CRET" not in str(caught.value)


def test_a_body_above_the_limit_is_too_large() -> None:
    longest = body(deviceName="x" * (65_536 - len(body(deviceName=""))))
    assert parse_provision_request(longest)
    for read in (parse_provision_request, decode_provision):
        with pytest.raises(RequestTooLarge):
            read(longest + b" ")
    with pytest.raises(RequestTooLarge):
        parse_provision_request(body(), max_bytes=10)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_a_request_or_a_refusal(given_body: bytes) -> None:
    try:
        decode_provision(given_body)
    except MalformedRequest as refusal:
        assert refusal.detail


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(texts, texts, texts, texts, st.booleans())
def test_strict_and_lenient_reading_agree(key: str, secret: str, name: str, token: str, is_gateway: bool) -> None:
    strict = body(
        provisionDeviceKey=key, provisionDeviceSecret=secret, deviceName=name, token=token, gateway=is_gateway
    )
    request = parse_provision_request(strict)
    assert (request.provision_key, request.provision_secret, request.device_name) == (key, secret, name)
    assert parse_provision_request(b"# lenient\n" + strict) == request


def test_a_log_shows_which_members_a_request_had_and_none_of_their_values() -> None:
    request = ProvisionRequest(
        provision_key="K" * 300,
        provision_secret="S3CRET",
        device_name="D",
        credentials_type=CredentialsType.MQTT_BASIC,
        token="S3CRET",
        username="S3CRET",
        password="S3CRET",
        certificate="S3CRET",
        is_gateway=True,
    )
    assert redacted_provision_request(request) == {
        "provisionDeviceKey": "K" * 255,
        "deviceName": "D",
        "credentialsType": "MQTT_BASIC",
        "gateway": True,
        "present": ["provisionDeviceSecret", "token", "username", "password", "hash"],
    }
    assert "S3CRET" not in repr(dataclasses.replace(request, username=""))


# --- responses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("credentials", "text"),
    [
        (
            AccessToken("A1B2"),
            '{"credentialsValue":"A1B2","credentialsType":"ACCESS_TOKEN","status":"SUCCESS"}',
        ),
        (
            MqttBasic("c", "u", "p"),
            '{"credentialsValue":{"clientId":"c","userName":"u","password":"p"},'
            '"credentialsType":"MQTT_BASIC","status":"SUCCESS"}',
        ),
        (
            MqttBasic(username="u"),
            '{"credentialsValue":{"clientId":"","userName":"u","password":""},'
            '"credentialsType":"MQTT_BASIC","status":"SUCCESS"}',
        ),
        (
            X509Certificate("-----BEGIN CERTIFICATE-----\nMII\nB\n-----END CERTIFICATE-----\n"),
            '{"credentialsValue":"MIIB","credentialsType":"X509_CERTIFICATE","status":"SUCCESS"}',
        ),
    ],
)
def test_success_reads_as_thingsboards(credentials: Credentials, text: str) -> None:
    response = ProvisionResponse(status=ProvisionStatus.SUCCESS, credentials=credentials)
    assert render_provision_response(response).decode() == text


def test_success_adds_the_generated_name_and_a_warning() -> None:
    response = ProvisionResponse(
        status=ProvisionStatus.SUCCESS, credentials=AccessToken("A"), device_name="D", warning="W"
    )
    assert render_provision_response(response).decode() == (
        '{"credentialsValue":"A","credentialsType":"ACCESS_TOKEN","status":"SUCCESS","deviceName":"D","warning":"W"}'
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            InvalidProvisionCredentials(),
            '{"errorMsg":"Provision data was not found!","status":"NOT_FOUND",'
            '"reason":"INVALID_PROVISION_CREDENTIALS"}',
        ),
        (
            DeviceAlreadyExists("internal detail"),
            '{"errorMsg":"Failed to provision device!","status":"FAILURE","reason":"DEVICE_EXISTS"}',
        ),
        (
            MalformedRequest("internal detail"),
            '{"errorMsg":"Failed to provision device!","status":"FAILURE","reason":"MALFORMED_REQUEST"}',
        ),
        (
            RateLimited(retry_after_s=4.01),
            '{"errorMsg":"Failed to provision device!","status":"FAILURE","reason":"RATE_LIMITED","retryAfter":5}',
        ),
        (
            Unavailable(retry_after_s=0.0),
            '{"errorMsg":"Failed to provision device!","status":"FAILURE","reason":"UNAVAILABLE","retryAfter":0}',
        ),
    ],
)
def test_a_refusal_reads_as_thingsboards_with_the_reason_added(error: PlatformError, text: str) -> None:
    assert render_provision_response(refusal_response(error)).decode() == text
    error.ref = "R-1"
    assert msgspec.json.decode(render_provision_response(refusal_response(error)))["ref"] == "R-1"


@pytest.mark.parametrize("leaf", sorted(leaf_classes(), key=str))
def test_every_refusal_has_a_response_with_an_error_message(leaf: type[PlatformError]) -> None:
    members = msgspec.json.decode(render_provision_response(refusal_response(leaf())))
    assert members["errorMsg"] in ("Provision data was not found!", "Failed to provision device!")
    assert members["status"] == status_of(leaf())
    assert members["reason"] == leaf.reason


@pytest.mark.parametrize("leaf", sorted(leaf_classes(ProvisionRefused), key=str))
def test_the_specifications_wording_is_used_on_request(leaf: type[ProvisionRefused]) -> None:
    assert refusal_response(leaf(), seed_texts=True).error_msg == leaf.seed_text
    marked = leaf()
    marked.seed_worded = True
    assert refusal_response(marked).error_msg == leaf.seed_text


def test_an_error_message_is_never_missing() -> None:
    bare = ProvisionResponse(status=ProvisionStatus.FAILURE)
    assert render_provision_response(bare) == b'{"errorMsg":"Failed to provision device!","status":"FAILURE"}'


# --- protobuf ------------------------------------------------------------------------------------


def field(number: int, value: bytes | int) -> bytes:
    """One protobuf field with a number below 16 and a value below 128 (bytes long)."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


KEYS = field(3, field(1, b"K") + field(2, b"S"))


@pytest.mark.parametrize(
    ("given_body", "changes"),
    [
        (KEYS, {}),
        (field(1, b"D") + KEYS + field(5, 1), {"device_name": "D", "is_gateway": True}),
        (field(2, 0) + KEYS + field(4, field(1, field(1, b"T"))), {"token": "T"}),
        (
            field(2, 1) + KEYS + field(4, field(2, field(1, b"MIIB"))),
            {"credentials_type": CredentialsType.X509_CERTIFICATE, "certificate": "MIIB"},
        ),
        (
            field(2, 2) + KEYS + field(4, field(3, field(1, b"c") + field(2, b"u") + field(3, b"p"))),
            {
                "credentials_type": CredentialsType.MQTT_BASIC,
                "client_id": "c",
                "username": "u",
                "password": "p",
            },
        ),
        # the last of several wins; unknown fields of every wire type are skipped
        (
            field(1, b"x") + field(1, b"D") + KEYS + b"\x4d1234" + b"\x5112345678" + field(15, b""),
            {"device_name": "D"},
        ),
    ],
)
def test_a_protobuf_request_is_read_where_json_fails(given_body: bytes, changes: dict[str, object]) -> None:
    expected = dataclasses.replace(MINIMAL, **changes)  # type: ignore[arg-type]  # a table of members
    assert decode_provision(given_body) == (expected, ProvisionEncoding.PROTOBUF)
    with pytest.raises(MalformedRequest):
        parse_provision_request(given_body)


@pytest.mark.parametrize(
    "given_body",
    [
        field(1, b"D"),
        field(3, field(1, b"K")),
        field(3, field(2, b"S")),
        field(3, 1),
        KEYS[:-1],
        KEYS + b"\x0b",  # a group
        KEYS + b"\x08" + b"\xff" * 11,  # an endless number
        KEYS + b"\x00\x00",  # field number 0
        KEYS + field(1, b"\xff"),
        KEYS + field(1, 1),
        KEYS + field(2, b"x"),
    ],
)
def test_other_bytes_are_no_protobuf_request(given_body: bytes) -> None:
    assert provision_protobuf.read_request(given_body) is None
    with pytest.raises(MalformedRequest):
        decode_provision(given_body)


def test_a_credentials_type_that_cannot_be_provisioned_is_named_in_protobuf_too() -> None:
    with pytest.raises(MalformedRequest, match="credentialsType must be"):
        decode_provision(field(2, 3) + KEYS)


@pytest.mark.parametrize(
    ("response", "rendered"),
    [
        (ProvisionResponse(status=ProvisionStatus.FAILURE, reason="R"), field(1, 3)),
        (ProvisionResponse(status=ProvisionStatus.NOT_FOUND), field(1, 2)),
        (
            ProvisionResponse(status=ProvisionStatus.SUCCESS, credentials=AccessToken("T")),
            field(1, 1) + field(3, b"T"),
        ),
        (
            ProvisionResponse(status=ProvisionStatus.SUCCESS, credentials=X509Certificate("MIIB")),
            field(1, 1) + field(2, 1) + field(3, b"MIIB"),
        ),
        (
            ProvisionResponse(status=ProvisionStatus.SUCCESS, credentials=MqttBasic("c", "u", "p")),
            field(1, 1) + field(2, 2) + field(3, b'{"clientId":"c","userName":"u","password":"p"}'),
        ),
    ],
)
def test_a_protobuf_answer_carries_status_and_credentials(response: ProvisionResponse, rendered: bytes) -> None:
    assert render_provision_response(response, ProvisionEncoding.PROTOBUF) == rendered


def test_a_long_value_has_a_long_length_in_protobuf() -> None:
    response = ProvisionResponse(status=ProvisionStatus.SUCCESS, credentials=AccessToken("T" * 300))
    assert render_provision_response(response, ProvisionEncoding.PROTOBUF).endswith(b"\x1a\xac\x02" + b"T" * 300)


CSR_BODY = {"provisionDeviceKey": "k", "provisionDeviceSecret": "s", "deviceName": "d", "credentialsType": "X509_CSR"}


@pytest.mark.parametrize("is_strict", [True, False])
def test_a_signing_request_asks_for_a_certificate(is_strict: bool) -> None:
    """X509_CSR is of requests alone: what is stored in the end is a certificate."""
    body = json.dumps(CSR_BODY | {"csr": "MII="} | ({} if is_strict else {"deviceName": 1})).encode()
    request = parse_provision_request(body)
    assert (request.credentials_type, request.csr) == (CredentialsType.X509_CERTIFICATE, "MII=")
    assert not request.brings_credentials


@pytest.mark.parametrize("csr", [{}, {"csr": None}, {"csr": ""}, {"csr": " \n"}])
def test_a_signing_request_must_be_there(csr: dict[str, object]) -> None:
    """The detail says what to send."""
    with pytest.raises(MalformedRequest, match="PKCS#10"):
        parse_provision_request(json.dumps(CSR_BODY | csr).encode())


def test_a_signing_request_of_another_type_of_request_is_an_unknown_member() -> None:
    """Ignored, as ThingsBoard's server would."""
    body = json.dumps(CSR_BODY | {"csr": "MII=", "credentialsType": "ACCESS_TOKEN"}).encode()
    assert parse_provision_request(body).csr == ""


def test_the_log_names_a_signing_request_and_does_not_keep_it() -> None:
    """As every credential member."""
    redacted = redacted_provision_request(parse_provision_request(json.dumps(CSR_BODY | {"csr": "MII="}).encode()))
    assert (redacted["credentialsType"], redacted["present"]) == ("X509_CSR", ["provisionDeviceSecret", "csr"])
    assert "MII=" not in str(redacted)


def test_the_chain_of_an_issued_certificate_is_in_json_alone() -> None:
    """Protobuf has no member for it."""
    response = ProvisionResponse(
        status=ProvisionStatus.SUCCESS, credentials=X509Certificate("MII="), certificate_chain="PEM"
    )
    assert json.loads(render_provision_response(response)) == {
        "credentialsValue": "MII=", "credentialsType": "X509_CERTIFICATE", "status": "SUCCESS",
        "certificateChain": "PEM",
    }  # fmt: skip
    assert b"PEM" not in render_provision_response(response, ProvisionEncoding.PROTOBUF)
