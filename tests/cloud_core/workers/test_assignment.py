"""What a worker is told."""

from __future__ import annotations

import io

import pytest

from cloud_core.config import Admin, Config
from cloud_core.workers.assignment import Assignment, encode, read


def test_an_assignment_arrives_whole_and_shows_no_secret() -> None:
    """One line of JSON, with the whole configuration."""
    config = Config(admin=Admin(password="very secret"))
    sent = Assignment(index=1, site="site", config=config, local_token="local-secret", udp={"coap": 7})
    assert read(io.BytesIO(encode(sent) + b"later")) == sent
    assert "secret" not in repr(sent)
    assert not sent.is_first


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b"[1]\n", b"\xff\n", b"x" * 2_000_000])
def test_a_person_who_calls_the_command_is_told_how(line: bytes) -> None:
    """Nothing, rubbish, or far too much."""
    with pytest.raises(ValueError, match="cloud-core serve --workers N"):
        read(io.BytesIO(line))
