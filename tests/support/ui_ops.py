"""A plant with devices that ask, for tests of the operators' pages."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid4

from cloud_core.core.people.logins import Operator
from cloud_core.model import Approval, Peer, Transport, UserRole
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Browser, Shown, somebody

HOSTILE = "<script>alert('x')</script>"


class Plant:
    """A profile `sensor` that lets in whoever has its secret, and `lock`, whose requests wait for approval."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.store = store
        self.browser = Browser(store)
        self.sensor_id = store.add_profile("sensor")
        self.lock_id = store.add_profile("lock", approval=Approval.REQUIRED)
        places = store.read(lambda tx: tx.profile_places(TENANT))
        self.uuids: dict[str, UUID] = {one.name: one.uuid for one in places}
        self.keys = f"/ui/profiles/{self.uuids['sensor']}/keys"

    def ask(self, name: str, profile: str = "sensor", source: str = "192.0.2.1", **members: Any) -> Any:
        shown = {"provision_key": f"{profile}-key", "provision_secret": f"{profile}-secret"} | members
        return self.browser.api.provision(Peer(Transport.MQTT, source), device_name=name, **shown)

    def as_role(self, role: UserRole) -> Browser:
        self.browser.log_in_as(somebody(role))
        return self.browser

    def as_customer_user(self) -> Browser:
        base = somebody()
        self.browser.log_in_as(
            Operator("u@x", "CUSTOMER_USER", TENANT, base.tenant_uuid, uuid4(), 1, uuid4(), session=uuid4())
        )
        return self.browser

    def later(self, seconds: float) -> None:
        self.browser.api.now_s += seconds


def attribute(shown: Shown, name: str) -> list[str]:
    """Values of an attribute in the page's HTML."""
    return re.findall(rf'{name}="([^"]*)"', shown.text)
