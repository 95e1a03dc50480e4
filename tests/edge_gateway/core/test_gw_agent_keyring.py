"""The gateway's own life while its secrets cannot be written or read, and answers that would keep it away for ever."""

from __future__ import annotations

import json

import pytest

from edge_gateway.core.agent import State
from edge_gateway.core.provisioning import Refused, outcome_of
from edge_gateway.model import Credentials
from edge_gateway.settings import Core
from edge_gateway.uplink.interface import Ended
from tests.edge_gateway.core.test_gw_agent import PROVISION, Bench
from tests.support.keyrings import KeyringInMemory


class Disk(KeyringInMemory):
    """A keyring whose disk is full, or not readable."""

    is_full = False
    is_unreadable = False

    def _check(self) -> None:
        if self.is_full:
            raise OSError("no space left for the credentials")

    def credentials(self) -> Credentials | None:
        if self.is_unreadable:
            raise OSError("the credentials cannot be read")
        return super().credentials()

    def propose(self, credentials: Credentials) -> None:
        self._check()
        super().propose(credentials)

    def save(self, credentials: Credentials) -> None:
        self._check()
        super().save(credentials)

    def discard(self) -> None:
        self._check()
        super().discard()


@pytest.mark.parametrize("trouble", ["is_full", "is_unreadable"])
def test_a_disk_that_does_not_take_or_give_secrets_is_said_and_tried_again(trouble: str) -> None:
    """When it does, the gateway provisions itself."""
    disk = Disk()
    setattr(disk, trouble, True)
    bench = Bench(Core(provision=PROVISION), disk)
    assert bench.agent.state is State.WAITING and "credentials" in bench.agent.reason
    bench.clock.advance(2)
    assert bench.agent.state is State.WAITING and bench.uplinks == []
    setattr(disk, trouble, False)
    bench.clock.advance(60)
    assert bench.agent.state is State.PROVISIONING


def test_credentials_that_cannot_be_kept_are_used_and_kept_as_soon_as_the_disk_takes_them() -> None:
    """Another one would not get them again."""
    disk = Disk()
    bench = Bench(Core(provision=PROVISION), disk)
    bench.uplink.accept()
    disk.is_full = True
    bench.uplink.answer(status="SUCCESS", credentialsType="ACCESS_TOKEN", credentialsValue="of-the-core")
    given = Credentials(kind="ACCESS_TOKEN", token="of-the-core")
    assert bench.agent.state is State.CONNECTING and bench.uplink.credentials == given
    bench.settle()
    assert bench.agent.state is State.ONLINE and disk.saved is None
    bench.uplink.end(Ended.LOST)
    bench.clock.advance(60)
    assert bench.uplink.credentials == given
    disk.is_full = False
    bench.settle()
    assert disk.saved == given and disk.asked is None


def test_proposed_credentials_that_work_are_used_on_a_full_disk() -> None:
    """They are on disk as proposed ones already."""
    disk = Disk(proposed=Credentials(kind="ACCESS_TOKEN", token="old"))
    bench = Bench(Core(provision=PROVISION), disk)
    bench.uplink.accept()
    bench.uplink.answer(status="FAILURE")
    bench.clock.advance(1.0)
    disk.is_full = True
    bench.settle()
    assert bench.agent.state is State.ONLINE and disk.saved is None


def test_refused_credentials_that_cannot_be_removed_do_not_end_the_agent() -> None:
    """It goes on with them."""
    disk = Disk(Credentials(kind="ACCESS_TOKEN", token="old"))
    provision = type(PROVISION)(key="k", secret="s", again="when-refused")
    bench = Bench(Core(provision=provision), disk)
    disk.is_full = True
    for _ in range(4):
        bench.uplink.end(Ended.REFUSED_CREDENTIALS)
        assert bench.agent.state is State.WAITING
        bench.clock.advance(61)
    assert bench.agent.state is State.CONNECTING
    bench.agent.forget_credentials()
    assert bench.agent.state is State.WAITING


@pytest.mark.parametrize("after", [1e12, float("inf"), True])
def test_no_answer_of_a_core_keeps_the_gateway_away_for_longer_than_an_hour(after: float) -> None:
    """However long it says."""
    answer = {"status": "FAILURE", "reason": "RATE_LIMITED", "errorMsg": "x" * 100_000, "retryAfter": after}
    outcome = outcome_of(json.dumps(answer).encode(), Credentials(kind="ACCESS_TOKEN", token="t"))
    assert isinstance(outcome, Refused) and len(outcome.text) < 1_000
    assert outcome.retry_after_s is None or outcome.retry_after_s <= 3_600
