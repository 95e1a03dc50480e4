"""Gateways: opens their sessions and follows what operators do to the devices behind them.

Source: wire-contract.md section 5, and G1 to G9 of section 10.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from cloud_core.core.attributes import AttributesApi
from cloud_core.core.claiming import ClaimsApi
from cloud_core.core.downlinks import Downlinks
from cloud_core.core.gateway_sessions import Dropped, GatewayLink, GatewaySession, Parts, SubSession, leave_gateway
from cloud_core.core.presence import Presence
from cloud_core.core.provisioning import Policy
from cloud_core.core.rpc.commands import RpcApi, ServerRpc
from cloud_core.core.sub_devices import Rules
from cloud_core.model import Identity
from cloud_core.storage.interface import Store, Tx
from shared.errors import PlatformError

__all__ = ["Dropped", "GatewayApi", "GatewayLink", "GatewayOptions", "GatewaySession"]

log = Logger()
NOTICE_MS = 86_400_000
NOTICE_RETRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Settings of the installation (`[gateway]` of the configuration)."""

    adopts_foreign_devices: bool = True  # false: devices created by others, or by another gateway, are refused
    tombstone_s: float = 86_400.0  # so long data alone do not bring a deleted device back; a connect does
    late_type_s: float = 30.0  # so long a connect may correct the type of a device that its data created
    max_sub_devices: int = 50_000  # of one session


class GatewayApi:
    """Opens sessions and follows what operators do to sub-devices."""

    def __init__(
        self, *, store: Store, downlinks: Downlinks, attributes: AttributesApi, rpc: RpcApi, claims: ClaimsApi,
        presence: Presence, now_ms: Callable[[], int], options: GatewayOptions, policy: Policy,
        on_session: Callable[[Identity, bool], None],
    ) -> None:  # fmt: skip
        rules = Rules(
            adopts_foreign_devices=options.adopts_foreign_devices,
            tombstone_ms=int(options.tombstone_s * 1000),
            late_type_ms=int(options.late_type_s * 1000),
            max_devices_per_tenant=policy.max_devices_per_tenant,
        )
        self._parts = Parts(
            store=store, downlinks=downlinks, attributes=attributes, rpc=rpc, claims=claims, presence=presence,
            now_ms=now_ms, rules=rules, max_sub_devices=options.max_sub_devices, on_session=on_session,
        )  # fmt: skip
        downlinks.on_reachable(self._reachable)

    def open(self, identity: Identity, link: GatewayLink) -> GatewaySession:
        """The session of a connection that has logged in as a gateway."""
        self._parts.on_session(identity, True)
        return GatewaySession(self._parts, identity, link)

    @property
    def dropped(self) -> Counter[Dropped]:
        """How many messages and entries of sub-devices were dropped since the start, by why."""
        return self._parts.dropped

    def _reachable(self, device_id: int) -> None:
        """A device that connects by itself leaves its gateway: who came last has it."""
        open_ones = self._parts.downlinks.of(device_id)
        if open_ones and not isinstance(open_ones[-1], SubSession):
            leave_gateway(self._parts.downlinks, device_id)

    def renamed(self, tenant_id: int, gateway_id: int, old_name: str, new_name: str) -> None:
        """An operator renamed a device behind a gateway, whose decision kept the old name: the gateway is told."""
        self._tell(tenant_id, gateway_id, "gateway_device_renamed", {old_name: new_name})

    def deleted(self, tenant_id: int, gateway_id: int, name: str) -> None:
        """An operator deleted a device that was behind a gateway: the gateway is told."""
        self._tell(tenant_id, gateway_id, "gateway_device_deleted", name)

    def report(self) -> None:
        """Called every `report_s`: latencies become telemetry, and gateways' activity is passed on."""
        parts = self._parts
        for gateway_id, samples in parts.metrics.take(parts.now_ms()):
            parts.store.append(gateway_id, samples, _ignore)
        for session in parts.sessions:
            if session.has_spoken:
                session.pinged()

    def maintain(self) -> None:
        """Called once a minute: forgets old tombstones."""
        parts = self._parts
        parts.store.submit(_trim, (parts.now_ms() - parts.rules.tombstone_ms,), _ignore)

    def _tell(self, tenant_id: int, gateway_id: int, method: str, params: Any) -> None:
        def stored(outcome: object) -> None:
            if isinstance(outcome, PlatformError):
                log.error("A gateway could not be told of {method}: {error}", method=method, error=str(outcome))

        notice = ServerRpc(
            method=method, params=params, is_oneway=True, is_persistent=True, retries=NOTICE_RETRIES,
            expires_ms=self._parts.now_ms() + NOTICE_MS,
        )  # fmt: skip
        self._parts.rpc.send(tenant_id, gateway_id, notice, stored)


def _trim(tx: Tx, before_ms: int) -> None:
    tx.trim_tombstones(before_ms)


def _ignore(_outcome: object) -> None:
    """Nobody waits; a failure is logged by the store."""
