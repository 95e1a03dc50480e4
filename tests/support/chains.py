"""A factory's CA, the profile that trusts it, and devices that show its certificates to the core."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cloud_core.core.certificates import authorities
from cloud_core.core.certificates.authorities import Which
from cloud_core.core.downlinks import Ending
from cloud_core.model import Attempt, Peer, PresentedChain, ProvisionStrategy, Transport
from shared import certificates
from shared.credentials import X509Certificate, sha3_id
from tests.support.api import ApiUnderTest
from tests.support.pki import Ca, Holder, Pki
from tests.support.stores import TENANT, StoreUnderTest

NOW_S = 1_700_000_000  # as `ApiUnderTest` has it
DAY_S = 86_400
PEER = Peer(Transport.MQTT, "192.0.2.7")


def chain_settings(*cas: Holder, pattern: str = "(.*)", **settings: Any) -> dict[str, Any]:
    """The provision configuration of a profile that trusts the first of `cas`, as saving one leaves it."""
    return {
        "strategy": ProvisionStrategy.X509_CERTIFICATE_CHAIN, "secret": "".join(one.pem for one in cas),
        "key": sha3_id(certificates.certificate_text(cas[0].der)), "certificate_pattern": pattern,
        "allow_create_by_certificate": True,
    } | settings  # fmt: skip


class Factory(ApiUnderTest):
    """A core with the profile `line`, whose CA is `line`, an intermediate below `root`."""

    def __init__(self, store: StoreUnderTest, *, profile: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(store, **options)
        self.pki = Pki(datetime.fromtimestamp(NOW_S, UTC))
        self.root = self.pki.root("Factory")
        self.line: Ca = self.root.intermediate("Line 1")
        self.profile_id = store.add_profile("line", **chain_settings(self.line, **(profile or {})))

    @property
    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def show(self, leaf: Holder | PresentedChain, peer: Peer = PEER) -> Any:
        """The identity, or the refusal, that a peer gets which shows this."""
        presented = leaf.presented if isinstance(leaf, Holder) else leaf
        return self.outcome(lambda done: self.api.certificates.authenticate(presented, peer, done))

    def show_together(self, *leaves: Holder) -> list[Any]:
        """As `show`, all of them under way at once."""
        answers: dict[int, Any] = {}
        for number, leaf in enumerate(leaves):
            self.api.certificates.authenticate(
                leaf.presented, PEER, lambda outcome, number=number: answers.__setitem__(number, outcome)
            )
        self.store.reactor.run_until(lambda: len(answers) == len(leaves))
        return [answers[number] for number in range(len(leaves))]

    def revoke(self, leaf: Holder) -> None:
        """In the store alone; nobody is told."""
        which = Which(fingerprint=certificates.fingerprint(leaf.der))
        self.store.run(authorities.revoke, TENANT, which, "keyCompromise", self.now_ms)

    def log(self) -> list[Attempt]:
        """Newest first."""
        found: list[Attempt] = self.store.run(lambda tx: tx.attempts())
        return found

    def device(self, name: str) -> Any:
        return self.store.run(lambda tx: tx.device_by_name(1, name))

    def credentials(self, name: str) -> Any:
        return self.store.run(lambda tx: tx.credentials(tx.device_by_name(1, name).id))

    def add_line_device(self, name: str, credentials: Any) -> int:
        return self.store.add_device(name, self.profile_id, credentials)


def text_of(leaf: Holder) -> X509Certificate:
    return X509Certificate(certificates.certificate_text(leaf.der))


def ended(factory: Factory) -> list[tuple[int, Ending]]:
    """What the core ends from now on."""
    calls: list[tuple[int, Ending]] = []
    factory.api.downlinks.end = lambda device_id, why: calls.append((device_id, why))  # type: ignore[method-assign]
    return calls
