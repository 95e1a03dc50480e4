"""Nothing secret stands in the database file in clear."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from cloud_core.storage.vault import Vault
from shared.credentials import AccessToken, MqttBasic
from tests.support.stores import StoreUnderTest


def test_no_secret_is_readable_in_the_database_files(sqlite_store: StoreUnderTest, tmp_path: Path) -> None:
    """Canaries in every secret place are absent from database and write-ahead log."""
    profile = sqlite_store.add_profile("p", key="CANARY-key", secret="CANARY-secret")
    sqlite_store.add_device("a", profile, AccessToken("CANARY-token"))
    sqlite_store.add_device("b", profile, MqttBasic("CANARY-client", "CANARY-user", "CANARY-password"))
    content = b"".join(file.read_bytes() for file in tmp_path.glob("muster.db*"))
    assert b"sensor" in content or len(content) > 1000
    assert b"CANARY" not in content


def test_a_value_opens_only_with_its_key_and_in_its_place() -> None:
    """Another key or another context is refused."""
    sealed = Vault(b"k" * 32).seal(b"secret", context=b"credentials")
    assert Vault(b"k" * 32).unseal(sealed, context=b"credentials") == b"secret"
    for key, context in ((b"x" * 32, b"credentials"), (b"k" * 32, b"provision")):
        with pytest.raises(InvalidTag):
            Vault(key).unseal(sealed, context=context)
