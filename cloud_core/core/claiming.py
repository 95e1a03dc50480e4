"""Claiming: a device offers itself, and the customer who shows the same secret in time becomes its owner.

Source: wire-contract.md sections 2.10, 6.3 (claim calls) and 7.3.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from cloud_core.model import Device, Identity
from cloud_core.storage.interface import Done, Store
from shared.messages import ClaimRequest


class ClaimOutcome(StrEnum):
    """`response` of the REST call."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    """Wrong secret, expired, or never offered."""
    CLAIMED = "CLAIMED"
    """It has an owner already."""


class ClaimsApi:
    """`is_allowed_by_default`: whether devices may be claimed without the server attribute `claimingAllowed`."""

    def __init__(self, *, store: Store, now_ms: Callable[[], int], is_allowed_by_default: bool = True) -> None:
        self._store = store
        self._now_ms = now_ms
        self._is_allowed_by_default = is_allowed_by_default

    def offer(self, identity: Identity, request: ClaimRequest, done: Done[None]) -> None:
        """The device offers itself; the first offer stands until it is used or over. ClaimRefused."""
        self.offer_all(identity.tenant_id, [(identity.device_id, request)], done)

    def offer_all(self, tenant_id: int, offers: list[tuple[int, ClaimRequest]], done: Done[None]) -> None:
        """As `offer` for [(device number, request), …] that a gateway speaks for; the first refusal is the answer,
        the others are made all the same."""
        raise NotImplementedError

    def claim(
        self, tenant_id: int, customer_id: int, device_name: str, secret: str,
        done: Done[tuple[ClaimOutcome, Device | None]],
    ) -> None:  # fmt: skip
        """A customer's user shows a secret; on SUCCESS the device is theirs; failing ends the offer. NotFound."""
        raise NotImplementedError

    def give_back(self, tenant_id: int, customer_id: int | None, device_name: str, done: Done[None]) -> None:
        """Ends the ownership; `customer_id` None is an operator, who may for everybody. NotFound."""
        raise NotImplementedError

    def maintain(self) -> None:
        """Called once a minute: forgets offers that are over."""
        raise NotImplementedError
