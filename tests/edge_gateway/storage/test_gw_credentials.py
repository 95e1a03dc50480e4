"""The gateway's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_gateway.model import Credentials
from edge_gateway.storage.credentials import CredentialsFolder, FileUnusable

TOKEN = Credentials(kind="ACCESS_TOKEN", token="secret-token")


def test_credentials_are_kept_for_the_owner_alone(tmp_path: Path) -> None:
    """In a folder that is made if need be; they can be replaced and removed."""
    folder = CredentialsFolder(tmp_path / "data")
    assert folder.load() is None
    basic = Credentials(kind="MQTT_BASIC", client_id="c", username="u", password="p")
    for credentials in (TOKEN, basic, Credentials(kind="X509_CERTIFICATE")):
        folder.save(credentials)
        assert folder.load() == credentials
    path = tmp_path / "data" / "credentials.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    folder.forget()
    assert folder.load() is None


def test_rights_of_others_are_taken_away(tmp_path: Path) -> None:
    """A copy made by hand is often readable for everybody."""
    folder = CredentialsFolder(tmp_path)
    folder.save(TOKEN)
    path = tmp_path / "credentials.json"
    path.chmod(0o644)
    assert folder.load() == TOKEN
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"kind":"ACCESS_TOKEN","token":"secret-token"', b'{"token":5}', b"\xff", b'{"kind":"X"}',
                b'{"kind":"ACCESS_TOKEN"}', b'{"kind":"MQTT_BASIC","password":"secret-token"}'],
)  # fmt: skip
def test_a_damaged_file_is_named_with_the_fix_and_without_its_secrets(tmp_path: Path, content: bytes) -> None:
    """One sentence."""
    (tmp_path / "credentials.json").write_bytes(content)
    with pytest.raises(FileUnusable, match=r"credentials\.json .*remove it so that") as raised:
        CredentialsFolder(tmp_path).load()
    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_the_serial_is_made_up_once(tmp_path: Path) -> None:
    """And differs between gateways; a damaged file is not replaced behind anybody's back."""
    serial = CredentialsFolder(tmp_path).serial()
    assert CredentialsFolder(tmp_path).serial() == serial
    assert CredentialsFolder(tmp_path / "other").serial() != serial
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(FileUnusable, match=r"identity\.json is damaged"):
        CredentialsFolder(tmp_path).serial()


def test_a_key_pair_is_kept_whole(tmp_path: Path) -> None:
    """A key without its certificate is none."""
    folder = CredentialsFolder(tmp_path)
    key = b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"
    certificate = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
    assert folder.load_key_pair() is None
    folder.save_key_pair(key, certificate)
    assert folder.load_key_pair() == (key, certificate)
    assert folder.private_key.stat().st_mode & 0o777 == 0o600
    folder.certificate.write_bytes(b"nonsense")
    with pytest.raises(FileUnusable, match="is no PEM file"):
        folder.load_key_pair()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With the fix."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FileUnusable, match=r"make .* for the user that runs edge-gateway"):
        CredentialsFolder(tmp_path / "file").save(TOKEN)
