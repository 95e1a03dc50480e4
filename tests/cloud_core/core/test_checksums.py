"""Checksums of packages: those that ThingsBoard writes and its Python client verifies."""

from __future__ import annotations

import io

import pytest
import sdk_utils  # tb-mqtt-client

from cloud_core.core.checksums import ALGORITHMS, check_algorithm, summed
from shared.errors import InvalidArgument


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("data", [b"hello", bytes(range(256)) * 3000], ids=["small", "parts"])
def test_the_stock_client_verifies_every_algorithm(
    algorithm: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk_utils, "randint", lambda _low, _high: 0)  # it fails at will, to exercise retries
    whole = summed(io.BytesIO(data), algorithm, 10**9)
    assert whole.size_bytes == len(data)
    assert sdk_utils.verify_checksum(data, algorithm, whole.checksum)


@pytest.mark.parametrize(
    ("algorithm", "checksum"),
    [("MD5", "5d41402abc4b2a76b9719d911017c592"), ("CRC32", "86a61036"), ("MURMUR3_32", "47fa8b24"),
     ("MURMUR3_128", "029bbd41b3a7d8cb191dae486a901e5b")],
)  # fmt: skip
def test_the_texts_are_guavas(algorithm: str, checksum: str) -> None:
    """The lowest byte first, leading zeros kept."""
    assert summed(io.BytesIO(b"hello"), algorithm, 10).checksum == checksum


def test_a_file_above_the_bound_is_not_read_to_its_end() -> None:
    data = io.BytesIO(b"x" * 3_000_000)
    assert summed(data, "CRC32", 100).size_bytes > 100
    assert data.tell() < 1_000_000


def test_an_unknown_algorithm_is_told_what_there_is() -> None:
    with pytest.raises(InvalidArgument, match="SHA256"):
        check_algorithm("SHA1")
