"""Devices for the pages of the web UI, and who looks at them."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from cloud_core.core.downlinks import Delivery, Ending, Interest, Whereabouts
from cloud_core.core.inventory import first_start, write_device
from cloud_core.core.people.customers import save_customer
from cloud_core.core.people.logins import Operator
from cloud_core.model import DEFAULT_TENANT, Device
from shared.credentials import AccessToken
from shared.messages import AttributesChange, RpcCommand
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Browser

HOSTILE = "<script>alert(1)</script>"


class Fleet:
    """A browser of an administrator and a store with the default profile."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.store = store
        self.browser = Browser(store)
        self.api = self.browser.api.api
        store.run(first_start, "admin@localhost", "hash", 1)

    def add(self, name: str, *, token: str = "", **members: Any) -> Device:
        brought = AccessToken(token) if token else None
        device: Device = self.store.run(write_device, TENANT, {"name": name, **members}, brought, 1_000).device
        return device

    def device(self, uuid: UUID) -> Device | None:
        found: Device | None = self.store.read(lambda tx: tx.device(TENANT, uuid))
        return found

    def customer(self, title: str) -> Any:
        return self.store.run(save_customer, TENANT, {"title": title}, 1)

    def look_as_customer(self, customer: Any) -> None:
        self.browser.log_in_as(
            Operator("u@x", "CUSTOMER_USER", TENANT, DEFAULT_TENANT, uuid4(), customer.id, customer.uuid)
        )

    def connect(self, device: Device, answer: Any = None) -> FakeDownlink:
        """A connection that takes commands; it answers each with `answer`, where there is one."""
        downlink = FakeDownlink(self, device.id, answer)
        self.api.downlinks.open(device.id, downlink, Interest.COMMANDS)
        return downlink

    def run_timers(self) -> None:
        """Commands wait by the clock of the HTTP server under test."""
        self.api.rpc._call_later = self.browser.clock.callLater
        self.api.rpc._queue._call_later = self.browser.clock.callLater


class FakeDownlink:
    """A device that is connected and answers at once."""

    whereabouts = Whereabouts("MQTT", "192.0.2.7")

    def __init__(self, fleet: Fleet, device_id: int, answer: Any) -> None:
        self._fleet = fleet
        self._device_id = device_id
        self._answer = answer
        self.commands: list[RpcCommand] = []

    def attributes_changed(self, change: AttributesChange) -> None: ...

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        self.commands.append(command)
        if self._answer is None:
            delivery.delivered()
        else:
            self._fleet.api.rpc.reply_of(self._device_id, command.number, self._answer, lambda _: None)

    def ended(self, why: Ending) -> None: ...
