"""Configuration: sources in order, all problems at once, the example file complete."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from cloud_core.config import SECTIONS, ConfigError, load
from cloud_core.fabric.addresses import addresses_of
from cloud_core.service import options_of

EXAMPLE = Path(__file__).parents[2] / "deploy" / "cloud_core" / "cloud-core.toml"


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path: Path) -> None:
    """Later sources win, key by key."""
    file = tmp_path / "c.toml"
    file.write_text("[http]\nport = 1\nbind = 'file'\n[mqtt]\nport = 1\n[coap]\nport = 1\n")
    environment = {"CLOUD_CORE__MQTT__PORT": "2", "CLOUD_CORE__COAP__PORT": "2", "PATH": "ignored"}
    config = load(file, environment, {"coap": {"port": 3}, "mqtt": {"port": None}}, data_dir=None)
    assert (config.http.port, config.mqtt.port, config.coap.port, config.http.bind) == (1, 2, 3, "file")


def test_all_problems_are_reported_together_with_a_suggestion(tmp_path: Path) -> None:
    """One sentence each; a password is never quoted."""
    file = tmp_path / "c.toml"
    file.write_text("[htp]\nport=1\n[mqtt]\nprot = 1\nport = 'x'\n[coap]\nport = 70000\n[admin]\npassword = 5\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {"CLOUD_CORE__LOG__LEVEL": "loud"}, {}, data_dir=None)
    lines = str(caught.value).splitlines()
    assert any("did you mean 'http'" in line for line in lines)
    assert any("did you mean 'port'" in line for line in lines)
    assert any(line.startswith("[mqtt] port") for line in lines)
    assert any("70000" in line for line in lines)
    assert any("[log] level" in line for line in lines)


@pytest.mark.parametrize("text", ["200", "0:1", "1:1,", "1:1 2:2", "1:x"])
def test_a_message_rate_that_is_none_is_named_with_an_example(text: str) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match=r"\[rates\] gateway_messages: .*200:1,6000:60"):
        load(None, {"CLOUD_CORE__RATES__GATEWAY_MESSAGES": text}, {}, data_dir=None)


def test_every_configured_rate_reaches_its_limit() -> None:
    """The names of the section and those of the policy belong together."""
    names = msgspec.structs.fields(SECTIONS["rates"])
    given = {field.name: f"{number}:1" for number, field in enumerate(names, 1)}
    rates = options_of(load(None, {}, {"rates": given}, data_dir=None)).rates
    kinds = (rates.device, rates.gateway, rates.sub_devices)
    reached = [limit for one in kinds for limit in (one.messages, one.telemetry_messages, one.telemetry_data_points)]
    assert reached == list(given.values())


@pytest.mark.parametrize(("section", "key"), [("presence", "flush_s"), ("gateway", "report_s")])
def test_what_is_done_again_and_again_has_a_pause(section: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[{section}\] {key}: must be more than 0"):
        load(None, {f"CLOUD_CORE__{section}__{key}".upper(): "0"}, {}, data_dir=None)


@pytest.mark.parametrize("content", [b"[http", b"\xff\xfe"], ids=["syntax", "encoding"])
def test_a_broken_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(file, {}, {}, data_dir=None)


@pytest.mark.parametrize(
    ("key", "value"), [("ack_timeout_s", "0"), ("max_waiting_per_device", "0"), ("submit_strategy", "RANDOM")]
)
def test_settings_that_let_no_command_through_are_refused(key: str, value: str) -> None:
    """At start, not when the first command is sent."""
    with pytest.raises(ConfigError, match=rf"\[rpc\] {key}"):
        load(None, {f"CLOUD_CORE__RPC__{key.upper()}": value}, {}, data_dir=None)


def test_the_example_lists_every_option_with_its_default() -> None:
    """The file in deploy/ cannot drift from the program."""
    document = tomllib.loads(EXAMPLE.read_text())
    assert document.pop("data_dir") == "data"
    expected = {name: msgspec.json.decode(msgspec.json.encode(kind())) for name, kind in SECTIONS.items()}
    assert document == expected


@pytest.mark.parametrize(
    ("section", "key"), [("http", "tls_port"), ("mqtt", "tls_port"), ("coap", "dtls_port"), ("http", "port")]
)
def test_a_port_that_is_none_is_named(section: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[{section}\] {key}: 70000 is no port"):
        load(None, {}, {section: {key: 70_000}}, data_dir=None)


def test_what_tls_needs_comes_together() -> None:
    """A certificate without its key, or the other way round, is said before anything starts."""
    with pytest.raises(ConfigError, match=r"\[tls\] private_key: is missing"):
        load(None, {}, {"tls": {"certificate": "c.pem"}}, data_dir=None)
    with pytest.raises(ConfigError, match=r"\[tls\] certificate: is missing"):
        load(None, {}, {"tls": {"private_key": "c.key"}}, data_dir=None)


def test_tls_for_development_stands_alone() -> None:
    """It would hide the real certificate."""
    with pytest.raises(ConfigError, match=r"--dev-tls"):
        load(None, {"CLOUD_CORE__TLS__CERTIFICATE": "c.pem"}, {"tls": {"development": True}}, data_dir=None)


def test_client_certificates_are_wanted_or_strict() -> None:
    with pytest.raises(ConfigError, match=r"\[tls\] client_certificates"):
        load(None, {}, {"tls": {"client_certificates": "none"}}, data_dir=None)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"SYSTEM_USERNAME": "sys@x"}, "system_password: is missing"),
        ({"SYSTEM_PASSWORD": "long-enough"}, "system_username: is missing"),
        ({"SYSTEM_USERNAME": "sys@x", "SYSTEM_PASSWORD": "short"}, "system_password: must have 8 to 200 characters"),
    ],
)
def test_a_system_administrator_has_name_and_password(values: dict[str, str], problem: str) -> None:
    """And none of the problems shows the password."""
    environment = {f"CLOUD_CORE__ADMIN__{name}": value for name, value in values.items()}
    with pytest.raises(ConfigError, match=problem) as caught:
        load(None, environment, {}, data_dir=None)
    assert "short" not in str(caught.value) and "long-enough" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres//u:s3cr3t@h/d", "postgresql://u:s3cr3t@h/d", "mysql://u:s3cr3t@h/d",
        "postgresql+psycopg://u:s3cr3t@h:port/d", "postgresql+psycopg://u:s3cr3t@h:1,i:port/d",
        "s3cr3t", "postgresql+psycopg:/h/d",
    ],
)  # fmt: skip
def test_an_address_of_no_database_is_named_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {"CLOUD_CORE__DATABASE__URL": url}, {}, data_dir=None)
    assert "[database] url" in str(caught.value) and "postgresql+psycopg://user" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///muster.db", "sqlite:////var/lib/m.db", "postgresql+psycopg://u:p#?/x@h:5432/d?sslmode=require",
        "postgresql+psycopg://u@[::1]:5432/d", "postgresql+psycopg:///d?host=/run/postgresql",
        "postgresql+psycopg://h/d", "postgresql+psycopg://u:p,/x@one:5432,two:5433/d?sslmode=require",
        "postgresql+psycopg://u@one,[::1]:5433/d", "postgresql+psycopg://u@/d?host=one:5432&host=two:5433",
    ],
)  # fmt: skip
def test_addresses_of_databases(url: str) -> None:
    assert load(None, {"CLOUD_CORE__DATABASE__URL": url}, {}, data_dir=None).database.url == url


POSTGRESQL = {"url": "postgresql+psycopg://u@h/d"}


@pytest.mark.parametrize(
    "url", ["nats://h", "nats://h:4222", "tls://user:p%40ss@h.example:4222/", "nats://token@[::1]:1, nats://h2"]
)
def test_addresses_of_a_fabric(url: str) -> None:
    """With or without login and port, several with commas."""
    config = load(None, {}, {"cluster": {"fabric": url}, "database": POSTGRESQL}, data_dir=None)
    assert config.cluster.fabric == url and config.cluster.name == "muster"
    assert addresses_of(url)


@pytest.mark.parametrize(
    "url", ["http://u:s3cret@h", "u:s3cret@h:4222", "nats://u:s3cret@", "nats://u:s3,cret@h", "nats://u:s3cret@h:port",
            "nats://u:s3cret@h/x", "nats://u:s3cret@h nats://h"],
)  # fmt: skip
def test_what_is_no_address_of_a_fabric_is_named_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\[cluster\] fabric: is no address of NATS; write nats://") as caught:
        load(None, {}, {"cluster": {"fabric": url}, "database": POSTGRESQL}, data_dir=None)
    assert "cret" not in str(caught.value)


def test_a_fabric_needs_postgresql() -> None:
    """SQLite is of one node; the sentence names what to set."""
    for database in ({}, {"url": "sqlite:///x.db"}):
        with pytest.raises(ConfigError, match=r"several nodes need one PostgreSQL; set \[database\] url"):
            load(None, {}, {"cluster": {"fabric": "nats://h"}, "database": database}, data_dir=None)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", ">", "x" * 65, "ü", "a\n"])
def test_the_name_of_a_cluster_fits_into_a_subject(name: str) -> None:
    with pytest.raises(ConfigError, match=r"\[cluster\] name: use 1 to 64 letters"):
        load(None, {}, {"cluster": {"name": name}}, data_dir=None)


def test_several_workers_need_postgresql() -> None:
    """SQLite has one writer."""
    with pytest.raises(ConfigError, match=r"\[cluster\] workers: 2 processes need PostgreSQL"):
        load(None, {}, {"cluster": {"workers": 2}}, data_dir=None)
    assert load(None, {}, {"cluster": {"workers": 2}, "database": POSTGRESQL}, data_dir=None).cluster.workers == 2


def test_proxies_are_a_list_or_a_variable_with_commas(tmp_path: Path) -> None:
    """None is trusted unless it is named."""
    file = tmp_path / "c.toml"
    file.write_text('[http]\ntrusted_proxies = ["10.0.0.0/8", "::1"]\nproxy_protocol = true\n')
    assert load(file, {}, {}, data_dir=None).http.trusted_proxies == ("10.0.0.0/8", "::1")
    given = {"CLOUD_CORE__HTTP__TRUSTED_PROXIES": "192.0.2.7, 10.0.0.0/8"}
    assert load(None, given, {}, data_dir=None).http.trusted_proxies == ("192.0.2.7", "10.0.0.0/8")
    assert load(None, {}, {}, data_dir=None).http.trusted_proxies == ()


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("HTTP__TRUSTED_PROXIES", "proxy.example", r"\[http\] trusted_proxies: 'proxy.example' is no address"),
        ("HTTP__TRUSTED_PROXIES", "0.0.0.0/0", r"\[http\] trusted_proxies: .* would let everybody choose"),
        ("HTTP__PROXY_PROTOCOL", "true", r"\[http\] proxy_protocol: says nothing without \[http\] trusted_proxies"),
        ("MQTT__PROXY_PROTOCOL", "true", r"\[mqtt\] proxy_protocol: says nothing without \[http\] trusted_proxies"),
    ],
)
def test_proxies_that_cannot_be_are_named_with_the_fix(variable: str, value: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(None, {f"CLOUD_CORE__{variable}": value}, {}, data_dir=None)
