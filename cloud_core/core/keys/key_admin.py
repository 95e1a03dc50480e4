"""The operators' door to the secrets of profiles: rotation, adoption, and further provision keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from cloud_core.core.asking import Asking
from cloud_core.core.inventory import found
from cloud_core.core.keys import provision_keys
from cloud_core.core.keys.adoption import tag_of
from cloud_core.core.people.audit import Audit, Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.core.tokens import new_secret
from cloud_core.model import DeviceProfile, KeyRules, ProvisionKey, ProvisionStrategy, SecretUse
from cloud_core.storage.interface import ReadTx, Store, Tx
from shared.errors import InvalidArgument

MAX_OVERLAP_S = 31_536_000 * 10


@dataclass(frozen=True, slots=True)
class Adopted:
    """How the secrets of a profile are used; `former_until_ms` 0: no former one is valid."""

    current: SecretUse
    former: SecretUse
    former_until_ms: int


class KeysApi(Asking):
    """What operators can do with the secrets of profiles."""

    def __init__(self, *, store: Store, audit: Audit, now_ms: Callable[[], int]) -> None:
        super().__init__(store, audit)
        self._now_ms = now_ms

    async def rotate(self, operator: Operator, uuid: UUID, overlap_s: int) -> DeviceProfile:
        """A new secret; the old one is valid for `overlap_s` more (0: no more).

        Raises: NotFound; InvalidArgument, also while a former secret is valid, unless it shall end with the old one.
        """
        if not 0 <= overlap_s <= MAX_OVERLAP_S:
            raise InvalidArgument(f"Validation error: overlapSeconds must be 0 to {MAX_OVERLAP_S}")
        now_ms = self._now_ms()
        known = found(await self._read(_profile, operator.tenant_id, uuid), "Device profile", uuid)
        fresh = new_secret()
        tags = (tag_of(self._store, fresh), tag_of(self._store, known.provision.secret))
        until_ms = now_ms + overlap_s * 1000 if overlap_s else 0
        detail = f"secret rotated, the former one is valid for {overlap_s} s"
        deed = Deed("SECRET_ROTATED", "DEVICE_PROFILE", lambda one: Subject(one.uuid, one.name, detail))
        args = (operator.tenant_id, uuid, fresh, until_ms, tags, now_ms)
        return await self._decide_by(operator, deed, rotate, *args)

    async def adoption(self, operator: Operator, uuid: UUID) -> Adopted:
        """NotFound."""
        profile, uses = await self._read(_uses, operator.tenant_id, uuid)
        provision, none = profile.provision, SecretUse()
        is_overlapping = provision.former_until_ms > self._now_ms()
        return Adopted(
            uses.get(tag_of(self._store, provision.secret), none),
            uses.get(tag_of(self._store, provision.former_secret), none) if provision.former_secret else none,
            provision.former_until_ms if is_overlapping else 0,
        )

    async def all(self, operator: Operator, profile: UUID) -> list[ProvisionKey]:
        return await self._read(provision_keys.all_of, operator.tenant_id, profile)

    async def counts(self, profile_ids: Sequence[int]) -> dict[int, int]:
        """How many keys these profiles have, which the caller may see; those without any are missing."""
        return await self._read(_counts, profile_ids)

    async def find(self, operator: Operator, profile: UUID, uuid: UUID) -> ProvisionKey:
        return await self._read(provision_keys.one_of, operator.tenant_id, profile, uuid)

    async def add(
        self, operator: Operator, profile: UUID, name: str, key: str, secret: str, rules: KeyRules
    ) -> ProvisionKey:
        args = (operator.tenant_id, profile, name, key, secret, rules, self._now_ms())
        return await self._decide_by(operator, _deed("CREATED"), provision_keys.add, *args)

    async def change(
        self, operator: Operator, profile: UUID, uuid: UUID, rules: KeyRules | None, is_enabled: bool | None,
        *, seen: KeyRules | None = None,
    ) -> ProvisionKey:  # fmt: skip
        """None: as it is. `seen`: the rules that the new ones were made of; VersionConflict where they are others."""
        args = (operator.tenant_id, profile, uuid, rules, is_enabled, seen)
        return await self._decide_by(operator, _deed("UPDATED"), provision_keys.change, *args)

    async def delete(self, operator: Operator, profile: UUID, uuid: UUID) -> None:
        args = (operator.tenant_id, profile, uuid)
        await self._decide_by(operator, _deed("DELETED"), provision_keys.delete, *args)


def rotate(
    tx: Tx, tenant_id: int, uuid: UUID, fresh: str, former_until_ms: int, tags: tuple[bytes, ...], now_ms: int
) -> DeviceProfile:
    """`tags`: of the secrets whose use is counted from now on. Raises: NotFound, InvalidArgument.

    Two secrets are valid at most, and who rotates again, perhaps for an answer that was lost, ends none unawares.
    """
    stored = found(tx.profile(tenant_id, uuid), "Device profile", uuid)
    provision = stored.provision
    if provision.strategy is ProvisionStrategy.X509_CERTIFICATE_CHAIN or not provision.secret:
        raise InvalidArgument("This device profile has no provision secret that could be rotated")
    if former_until_ms and provision.former_secret and now_ms < provision.former_until_ms:
        until = datetime.fromtimestamp(provision.former_until_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        raise InvalidArgument(
            f"The secret of before the last rotation is valid until {until}; rotate after that, or at once with "
            "overlapSeconds 0, which ends it and the current one"
        )
    former = provision.secret if former_until_ms else ""
    rotated = replace(provision, secret=fresh, former_secret=former, former_until_ms=former_until_ms)
    tx.update_profile(replace(stored, provision=rotated))
    tx.keep_secret_uses(stored.id, tags)
    return found(tx.profile(tenant_id, uuid), "Device profile", uuid)


def _profile(tx: ReadTx, tenant_id: int, uuid: UUID) -> DeviceProfile | None:
    return tx.profile(tenant_id, uuid)


def _uses(tx: ReadTx, tenant_id: int, uuid: UUID) -> tuple[DeviceProfile, dict[bytes, SecretUse]]:
    profile = found(tx.profile(tenant_id, uuid), "Device profile", uuid)
    return profile, tx.secret_uses(profile.id)


def _counts(tx: ReadTx, profile_ids: Sequence[int]) -> dict[int, int]:
    return tx.provision_key_counts(profile_ids)


def _deed(action: str) -> Deed:
    def subject(key: ProvisionKey) -> Subject:
        return Subject(key.uuid, key.name, ", ".join(["enabled" if key.is_enabled else "disabled", *_told(key.rules)]))

    return Deed(action, "PROVISION_KEY", subject)


def _told(rules: KeyRules) -> list[str]:
    """What limits a key, for the audit."""
    told = [f"budget {rules.budget}"] if rules.budget else []
    told += [f"from {rules.valid_from_ms} ms"] if rules.valid_from_ms else []
    told += [f"until {rules.valid_until_ms} ms"] if rules.valid_until_ms else []
    told += [f"networks {' '.join(rules.networks)}"] if rules.networks else []
    told += [f"names {rules.name_pattern}"] if rules.name_pattern else []
    told += ["gateways too"] if rules.allows_gateways else []
    return [*told, f"batch {rules.batch}"] if rules.batch else told
