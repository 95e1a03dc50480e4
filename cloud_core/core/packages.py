"""Firmware and software (OTA): packages in blocks, whom they are assigned to, and what devices are told.

Source: wire-contract.md sections 2.10, 3.1 and 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from cloud_core.core.attributes import AttributesApi
from cloud_core.model import Identity, Package, Page
from cloud_core.storage.interface import Done, Store
from shared.messages import PackageChunk, PackageKind, PackageRequest


class PackagesApi:
    """What devices and operators can do with packages."""

    def __init__(self, *, store: Store, attributes: AttributesApi, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._attributes = attributes
        self._now_ms = now_ms

    # -- devices ----------------------------------------------------------------------------------

    def fetch(self, identity: Identity, request: PackageRequest, done: Done[PackageChunk]) -> None:
        """A piece of the assigned package. PackageNotFound; InvalidArgument where title or version are another's."""
        raise NotImplementedError

    # -- operators --------------------------------------------------------------------------------

    def save_info(self, tenant_id: int, package: Package, done: Done[Package]) -> None:
        """Creates (nil uuid) or updates what is known of a package, not its bytes. InvalidArgument, NotFound."""
        raise NotImplementedError

    def upload(
        self, tenant_id: int, uuid: UUID, *, file_name: str, content_type: str, algorithm: str, checksum: str,
        data: bytes, done: Done[Package],
    ) -> None:  # fmt: skip
        """The bytes of a package, checked against `checksum` or, where that is empty, summed here. InvalidArgument."""
        raise NotImplementedError

    def find(self, tenant_id: int, uuid: UUID, done: Done[Package]) -> None:
        raise NotImplementedError

    def read(self, tenant_id: int, uuid: UUID, start: int, count: int, done: Done[bytes]) -> None:
        """Some of the bytes."""
        raise NotImplementedError

    def list(
        self, tenant_id: int, page: Page, kind: PackageKind | None, profile_uuid: UUID | None,
        done: Done[tuple[Sequence[Package], int]],
    ) -> None:  # fmt: skip
        raise NotImplementedError

    def delete(self, tenant_id: int, uuid: UUID, done: Done[None]) -> None:
        """InvalidArgument while it is assigned to anybody."""
        raise NotImplementedError

    def assigned(self, tenant_id: int, device_ids: Sequence[int], kind: PackageKind) -> None:
        """After an assignment has changed: writes the shared attributes `fw_*` or `sw_*` of the devices, and the time
        series that ThingsBoard keeps (`fw_state` QUEUED, `target_fw_title` and so on)."""
        raise NotImplementedError
