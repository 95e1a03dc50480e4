"""`edge-gateway support-bundle`: what is in it, and what is not."""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path

from edge_gateway.model import Credentials
from edge_gateway.storage.credentials import CredentialsFolder
from tests.support.gateway_console import GatewayConsole

SECRETS = [
    "core-provision-key", "core-provision-secret", "clock-token-1", "kept-credentials-token", "from-the-environment",
    "from-a-file", "url-user:url-password", "commented-password", "4711-local-token-4711",
]  # fmt: skip


def test_no_secret_is_in_it(tmp_path: Path) -> None:
    """Not from the configuration, its references, the credentials, the environment, comments, or the log."""
    console = GatewayConsole(tmp_path)
    (tmp_path / "secret.txt").write_text("from-a-file\n")
    console.write(
        "[core]\n"
        'provision = { key = "core-provision-key", secret = "core-provision-secret" }\n'
        'ca_file = "file:secret.txt"\n'
        '# password = "commented-password"\n'
        "[local]\nenabled = false\n"
        '[[clock]]\nname = "hall"\ntoken = "clock-token-1"\nconnect = "http://url-user:url-password@10.0.0.1/"\n'
        '[[clock]]\nname = "yard"\ntoken = "${CLOCK_TOKEN}"\n'
    )
    CredentialsFolder(console.data_dir).save(Credentials(kind="ACCESS_TOKEN", token="kept-credentials-token"))
    (console.data_dir / "local-token").write_text("4711-local-token-4711\n")
    log = tmp_path / "log"
    log.write_text("".join(f"line: {secret}\n" for secret in SECRETS) + "a last line\n")
    bundle = tmp_path / "bundle.tar.gz"
    result = console("support-bundle", str(bundle), "--log-file", str(log), CLOCK_TOKEN="from-the-environment")
    assert result.exit_code == 0, result.output
    texts = contents(bundle)
    everything = "\n".join(texts.values())
    assert [secret for secret in SECRETS if secret in everything and secret != "commented-password"] == []
    assert 'password = "commented' not in texts["support/configuration.toml"]
    assert "a last line" in texts["support/log.txt"]
    assert 'name = "hall"' in texts["support/configuration.toml"]
    assert "clock.hall.token = ••••" in texts["support/explain.txt"]
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600


def contents(bundle: Path) -> dict[str, str]:
    with tarfile.open(bundle) as archive:
        return {one.name: archive.extractfile(one).read().decode() for one in archive}  # type: ignore[union-attr]


def test_a_gateway_that_is_not_set_up_has_one_too(tmp_path: Path) -> None:
    """What cannot be had says why."""
    console = GatewayConsole(tmp_path)
    console.write("[core]\noops = 1\n")
    bundle = tmp_path / "bundle.tar.gz"
    assert console("support-bundle", str(bundle)).exit_code == 0
    texts = contents(bundle)
    assert "unknown key 'oops'" in texts["support/problems.txt"]
    assert "no gateway runs" in texts["support/status.json"]
    assert "python" in texts["support/versions.json"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Another name is asked for."""
    console = GatewayConsole(tmp_path)
    console.write("[core]\n")
    (tmp_path / "bundle.tar.gz").write_text("mine")
    result = console("support-bundle", str(tmp_path / "bundle.tar.gz"))
    assert (result.exit_code, (tmp_path / "bundle.tar.gz").read_text()) == (4, "mine")
