"""Credentials: identifiers by ThingsBoard's vectors, and the rules for brought ones."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.credentials import (
    MAX_CERTIFICATE_CHARS,
    MAX_PART_CHARS,
    AccessToken,
    Credentials,
    CredentialsType,
    MqttBasic,
    X509Certificate,
    check_credentials,
    credentials_id,
    credentials_type,
    sha3_id,
    strip_pem,
)
from shared.errors import InvalidCredentials

PEM = "-----BEGIN CERTIFICATE-----\r\nMIIB\nAQAB\n-----END CERTIFICATE-----\n"


def sha3(text: str) -> str:
    return hashlib.sha3_256(text.encode()).hexdigest()


def test_the_hash_is_nist_sha3_by_thingsboards_vectors() -> None:
    assert sha3_id("testHash") == "57f6600424d6553263f1f32e0117012894a36fbf07e3e9c3c556272f86b7d985"
    assert sha3_id("test_clientId|test_username") == "b9f1b0bf238dddae689babba0a210fe42bc97ddb07620b5a07d7208dd5528db2"


def test_pem_markers_and_line_breaks_do_not_count() -> None:
    assert strip_pem(PEM) == "MIIBAQAB"
    assert sha3_id(PEM) == sha3_id("MIIBAQAB")


@given(st.text())
def test_stripping_is_idempotent_on_texts_without_markers(text: str) -> None:
    if "CERTIFICATE" not in text:
        assert strip_pem(strip_pem(text)) == strip_pem(text)


@pytest.mark.parametrize(
    ("credentials", "kind", "identifier"),
    [
        (AccessToken("T"), CredentialsType.ACCESS_TOKEN, "T"),
        (MqttBasic(username="u", password="p"), CredentialsType.MQTT_BASIC, "u"),
        (MqttBasic(client_id="c"), CredentialsType.MQTT_BASIC, sha3("c")),
        (MqttBasic(client_id="c", username="u", password="p"), CredentialsType.MQTT_BASIC, sha3("c|u")),
        (X509Certificate(PEM), CredentialsType.X509_CERTIFICATE, sha3("MIIBAQAB")),
    ],
)
def test_each_kind_has_its_name_and_identifier(
    credentials: Credentials, kind: CredentialsType, identifier: str
) -> None:
    assert credentials_type(credentials) is kind
    assert credentials_id(credentials) == identifier


@pytest.mark.parametrize(
    ("credentials", "message"),
    [
        (AccessToken(""), "Device credentials id should be specified!"),
        (AccessToken("  "), "Device credentials id should be specified!"),
        (AccessToken("a\x00b"), "Access token must not contain control characters!"),
        (AccessToken("a" * (MAX_PART_CHARS + 1)), "Access token is longer than 1024 characters"),
        (MqttBasic(password="p"), "Both mqtt client id and user name are empty!"),
        (MqttBasic(client_id="c", password="p"), "Password cannot be specified along with client id"),
        (MqttBasic(client_id="c\n"), "Mqtt client id must not contain control characters!"),
        (MqttBasic(username="u\x7f"), "Mqtt user name must not contain control characters!"),
        (MqttBasic(username="u", password="\t"), "Mqtt password must not contain control characters!"),
        (X509Certificate(" "), "Certificate should be specified!"),
        (X509Certificate(PEM.replace("MIIB\nAQAB", "")), "Certificate should be specified!"),
        (X509Certificate("a\tb"), "Certificate must not contain control characters!"),
        (X509Certificate("a" * (MAX_CERTIFICATE_CHARS + 1)), "Certificate is longer than 16384 characters"),
    ],
)
def test_credentials_against_the_rules_are_refused_with_the_rule(credentials: Credentials, message: str) -> None:
    with pytest.raises(InvalidCredentials) as caught:
        check_credentials(credentials)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("brought", "stored"),
    [
        (AccessToken("T"), AccessToken("T")),
        (MqttBasic(client_id="c"), MqttBasic(client_id="c")),
        (MqttBasic(username="u"), MqttBasic(username="u")),
        (MqttBasic(client_id="c", username="u", password="p"), MqttBasic("c", "u", "p")),
        (X509Certificate(PEM), X509Certificate("MIIBAQAB")),
        (X509Certificate("testHash"), X509Certificate("testHash")),
    ],
)
def test_accepted_credentials_come_back_in_stored_form(brought: Credentials, stored: Credentials) -> None:
    assert check_credentials(brought) == stored


@pytest.mark.parametrize(
    "credentials", [AccessToken("S3CRET"), MqttBasic("c", "u", "S3CRET"), X509Certificate("S3CRET")]
)
def test_no_secret_shows_in_a_repr(credentials: Credentials) -> None:
    assert "S3CRET" not in repr(credentials)
