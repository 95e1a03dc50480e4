"""Gateway sessions on a real store, with a link that writes down what the gateway is told."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from cloud_core.core.gateways import Dropped, GatewaySession
from cloud_core.core.rpc.commands import ServerRpc
from cloud_core.model import Device, Identity, Role
from cloud_core.storage.interface import NewDevice
from shared.credentials import AccessToken
from shared.messages import AttributesChange, ClaimRequest, RpcCommand
from tests.support.api import ApiUnderTest
from tests.support.stores import TENANT, StoreUnderTest


class RecordingLink:
    """A gateway's connection that remembers."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, AttributesChange]] = []
        self.commands: list[tuple[str, RpcCommand]] = []
        self.drops: list[tuple[str, Dropped]] = []
        self.ends: list[str] = []

    def attributes_changed(self, device: str, change: AttributesChange) -> None:
        self.changes.append((device, change))

    def command(self, device: str, command: RpcCommand, delivery: Any) -> None:
        self.commands.append((device, command))
        delivery.delivered()

    def dropped(self, device: str, why: Dropped) -> None:
        self.drops.append((device, why))

    def ended(self, device: str) -> None:
        self.ends.append(device)


class GatewaysUnderTest:
    """`DeviceApi` with gateways; the parts of others (commands, claims, presence) write down what they are asked."""

    def __init__(self, store: StoreUnderTest, **options: Any) -> None:
        self.store = store
        self.under_test = ApiUnderTest(store, **options)
        self.api = self.under_test.api
        self.replies: list[tuple[int, int, Any]] = []
        self.offers: list[tuple[int, list[tuple[int, ClaimRequest]]]] = []
        self.notices: list[tuple[int, ServerRpc]] = []
        self.seen: list[int] = []
        self.connected: list[int] = []
        self.disconnected: list[int] = []
        api: Any = self.api
        api.rpc.reply_of = self._reply
        api.rpc.send = self._send
        api.claims.offer_all = self._offer
        api.presence.seen = self.seen.append
        api.presence.all_seen = self.seen.extend
        api.presence.connected = self.connected.append
        api.presence.disconnected = self.disconnected.append
        self.profile_id = store.add_profile("gateways")

    def _reply(self, device_id: int, number: int, value: Any, done: Any) -> None:
        self.replies.append((device_id, number, value))
        done(None)

    def _send(self, _tenant_id: int, device_id: int, command: ServerRpc, done: Any) -> None:
        self.notices.append((device_id, command))
        done(None)

    def _offer(self, tenant_id: int, offers: list[tuple[int, ClaimRequest]], done: Any) -> None:
        self.offers.append((tenant_id, offers))
        done(None)

    def add_gateway(self, name: str = "gw", customer_id: int | None = None, **info: Any) -> Identity:
        device_id = self.store.run(
            lambda tx: _insert(tx, name, self.profile_id, customer_id, {"gateway": True, **info})
        )
        return self.identity(device_id)

    def identity(self, device_id: int) -> Identity:
        device = self.store.read(lambda tx: tx.device_by_id(device_id))
        return Identity(Role.GATEWAY, TENANT, device_id, device.uuid, device.name, device.profile_id)

    def open(self, identity: Identity) -> tuple[GatewaySession, RecordingLink]:
        link = RecordingLink()
        return self.api.gateways.open(identity, link), link

    def ask(self, call: Any, *args: Any) -> Any:
        """The outcome of one call of a session."""
        return self.under_test.outcome(lambda done: call(*args, done))

    def settle(self) -> None:
        for _ in range(3):
            self.store.run(lambda tx: None)
            self.store.read(lambda tx: None)

    def device(self, name: str) -> Device | None:
        device: Device | None = self.store.read(lambda tx: tx.device_by_name(TENANT, name))
        return device

    def number(self, name: str) -> int:
        device = self.device(name)
        assert device is not None, f"there is no device {name}"
        return device.id

    def latest(self, name: str) -> dict[str, Any]:
        number = self.number(name)
        return {key: value for key, (_, value) in self.store.read(lambda tx: tx.latest(number)).items()}


def _insert(tx: Any, name: str, profile_id: int, customer_id: int | None, info: dict[str, Any]) -> int:
    device = NewDevice(
        uuid=uuid4(), tenant_id=TENANT, profile_id=profile_id, name=name, created_ms=1, is_gateway=True,
        customer_id=customer_id, document={"additionalInfo": info},
    )  # fmt: skip
    device_id: int = tx.insert_device(device)
    tx.put_credentials(device_id, AccessToken(f"token-{name}"), now_ms=1)
    return device_id
