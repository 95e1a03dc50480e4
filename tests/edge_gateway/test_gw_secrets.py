"""What is kept out of sight: by every way in which a configuration is shown."""

from __future__ import annotations

import tarfile
import tomllib
from pathlib import Path

import pytest

from edge_gateway.config import ConfigError, load
from edge_gateway.config.explaining import explain
from edge_gateway.config.references import is_secret
from edge_gateway.console.masking import masked, restored
from edge_gateway.console.options import known_kinds
from tests.support.gateway_console import GatewayConsole

TEXT = """
[core]
url = "mqtt://127.0.0.1"
[local]
enabled = false
[[coap]]
name = "meters"
listen = "127.0.0.1:5683"
preset = "thingsboard"
users = { "hidden-1-device-token" = "meter-1", hidden-2-device-token = "meter-2" }
[[http]]
name = "poll"
[[http.map]]
url = "http://10.0.0.1/x?unit=3&api_key=hidden-3-query&t=1"
device = "d"
headers = { "X-API-Key" = "hidden-4-header", Cookie = "hidden-5-cookie", Accept = "application/json" }
telemetry = ["$.a -> a"]
[[http.map]]
url = "http://${HOST}/y?token=hidden-6-query"
device = "d"
telemetry = ["$.b -> b"]
[[plugin]]
name = "own"
plugin = "a:B"
environment = { DB_PWD = "hidden-7-environment", LEVEL = "info" }
settings = { accessToken = "hidden-8-camel", clientSecret = "hidden-9-camel", community = "hidden-0-snmp" }
"""


def test_check_explain_shows_no_secret(tmp_path: Path) -> None:
    """Not the access tokens that are names of a table, not those of queries, headers, environments and plug-ins."""
    path = tmp_path / "gateway.toml"
    path.write_text(TEXT)
    config = load(path, {"HOST": "h"}, kinds=known_kinds())
    shown = "\n".join(f"{line.path} = {line.value}" for line in explain(config))
    assert [line for line in shown.splitlines() if "hidden-" in line] == []
    assert 'LEVEL = "info"' in shown and "application/json" in shown and "unit=3&api_key=••••&t=1" in shown
    assert "meter-1" in shown and "http://${HOST}/y?token=••••" in shown


def test_the_local_page_shows_no_secret_and_gets_them_back() -> None:
    """An edited text means what it meant, also where names of a table were hidden."""
    shown = masked(TEXT)
    assert [line for line in shown.splitlines() if "hidden-" in line] == []
    assert tomllib.loads(restored(shown, TEXT)) == tomllib.loads(TEXT)
    edited = restored(shown.replace('"meter-2"', '"meter-two"').replace("unit=3", "unit=4"), TEXT)
    assert tomllib.loads(edited)["coap"][0]["users"] == {
        "hidden-1-device-token": "meter-1", "hidden-2-device-token": "meter-two",
    }  # fmt: skip
    assert "unit=4&api_key=hidden-3-query&t=1" in edited


def test_a_support_bundle_has_no_secret(tmp_path: Path) -> None:
    """Neither in the configuration nor in what else is collected."""
    console = GatewayConsole(tmp_path)
    console.write(TEXT.replace("[[plugin]]", "[[nothing]]"))
    log = tmp_path / "log"
    log.write_text("GET /api/v1/hidden-1-device-token/telemetry\n")
    assert console("support-bundle", str(tmp_path / "b.tar.gz"), "--log-file", str(log)).exit_code == 0
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        texts = [archive.extractfile(one).read().decode() for one in archive]  # type: ignore[union-attr]
    assert [line for text in texts for line in text.splitlines() if "hidden-" in line] == []


def test_a_problem_does_not_quote_an_access_token(tmp_path: Path) -> None:
    """The name of the table's member is a secret there too."""
    path = tmp_path / "gateway.toml"
    path.write_text(TEXT.replace('= "meter-1"', "= 1"))
    with pytest.raises(ConfigError) as error:
        load(path, {"HOST": "h"}, kinds=known_kinds())
    assert "hidden-" not in str(error.value) and "users" in str(error.value)


@pytest.mark.parametrize("name", ["X-API-Key", "apiKey", "accessToken", "DB_PASS", "client-secret", "Cookie", "pwd"])
def test_usual_names_of_secrets_are_known(name: str) -> None:
    """In any spelling."""
    assert is_secret(("plugin", 0, "settings", name))


@pytest.mark.parametrize("name", ["key", "at", "users", "token_header", "keys", "keep_alive", "bypass", "private_key"])
def test_names_that_only_look_alike_are_none(name: str) -> None:
    """They are shown."""
    assert not is_secret(("http", 0, "map", 0, name))
