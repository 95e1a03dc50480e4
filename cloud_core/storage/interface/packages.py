"""Firmware and software packages (OTA), their bytes in blocks, and to whom they are assigned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from cloud_core.model import Package, Page
from shared.messages import PackageKind

BLOCK_BYTES = 262_144  # a package is stored and read in blocks of this size: memory stays constant


@dataclass(frozen=True, slots=True)
class Rollout:
    """A profile's package has changed, and its devices up to `after_device_id` have been told."""

    profile_id: int
    kind: PackageKind
    after_device_id: int = 0


class ReadPackages(Protocol):
    def package(self, tenant_id: int, uuid: UUID) -> Package | None: ...
    def package_by_id(self, package_id: int) -> Package | None: ...
    def package_by_name(self, tenant_id: int, title: str, version: str) -> Package | None: ...
    def packages(
        self,
        tenant_id: int,
        page: Page,
        kind: PackageKind | None = None,
        profile_id: int | None = None,
        *,
        is_usable: bool = False,
    ) -> tuple[list[Package], int]:
        """One page and the number of all that match; with `is_usable` those that have bytes or a URL."""

    def assigned_package(self, device_id: int, kind: PackageKind) -> Package | None:
        """The device's own, else its profile's."""

    def assignment(self, kind: PackageKind, *, device_id: int = 0, profile_id: int = 0) -> int | None:
        """The number of the package that is assigned to the device, or to the profile, itself."""

    def package_data(self, package_id: int, start: int, count: int) -> bytes:
        """Bytes `start` to `start + count`, fewer at the end."""

    def package_users(self, package_id: int) -> int:
        """How many devices and profiles it is assigned to."""

    def devices_with_profile_package(
        self, profile_id: int, kind: PackageKind, *, after: int = 0, count: int = 1_000_000
    ) -> list[int]:
        """The profile's devices that have no package of their own, so that the profile's is theirs.

        By number, from behind `after`, at most `count`.
        """

    def package_rollouts(self) -> list[Rollout]:
        """Those that are not finished."""


class WritePackages(ReadPackages, Protocol):
    def insert_package(self, package: Package) -> int:
        """`package.id` is ignored."""

    def update_package(self, package: Package) -> None: ...
    def put_package_block(self, package_id: int, number: int, data: bytes) -> None: ...
    def trim_package_blocks(self, package_id: int, count: int) -> None:
        """Removes the blocks behind the first `count`."""

    def delete_package(self, package_id: int) -> None:
        """With its blocks; it must not be assigned to anybody."""

    def assign_package(
        self, kind: PackageKind, package_id: int | None, *, device_id: int = 0, profile_id: int = 0
    ) -> None:
        """To a device or to a profile; None takes the assignment away."""

    def put_package_rollout(self, rollout: Rollout) -> None:
        """In place of what was known of this profile and kind."""

    def delete_package_rollout(self, rollout: Rollout) -> None: ...
