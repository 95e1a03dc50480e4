"""`DeviceApi` on a real SQLite store, driven by the test's own clock and thread."""

from __future__ import annotations

from typing import Any

from cloud_core.core.api import DeviceApi
from cloud_core.core.limits import AttemptRations, FailedAttempts, Ration
from cloud_core.core.provisioning import Policy
from cloud_core.model import Peer, PresentedCredentials, Transport
from shared.messages import ProvisionRequest
from tests.support.stores import StoreUnderTest

PEER = Peer(Transport.HTTP, "192.0.2.1")
UNLIMITED = AttemptRations(per_source_and_key=Ration(0, 1.0), per_source=Ration(0, 1.0))


class ApiUnderTest:
    """Blocking conveniences around `DeviceApi`; outcomes are returned, refusals too."""

    def __init__(self, store: StoreUnderTest, *, rations: AttemptRations = UNLIMITED, **options: Any) -> None:
        self.store = store
        self.now_s = 1_700_000_000.0
        self.api = DeviceApi(
            store=store.store,
            failed_attempts=FailedAttempts(rations),
            policy=options.pop("policy", Policy()),
            wall_clock=lambda: self.now_s,
            **options,
        )

    def outcome(self, start: Any) -> Any:
        answers: list[Any] = []
        start(answers.append)
        self.store.reactor.run_until(lambda: answers)
        return answers[0]

    def provision(self, peer: Peer = PEER, **members: Any) -> Any:
        request = ProvisionRequest(**({"provision_key": "sensor-key", "provision_secret": "sensor-secret"} | members))
        return self.outcome(lambda done: self.api.provision(request, peer, done))

    def log_in(self, **presented: Any) -> Any:
        return self.outcome(lambda done: self.api.authenticate(PresentedCredentials(**presented), done))
