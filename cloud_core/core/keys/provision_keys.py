"""Provision keys beside those of profiles: what each lets in. Plain functions of a transaction."""

from __future__ import annotations

import hmac
from dataclasses import replace
from ipaddress import IPv6Address, ip_address, ip_network
from uuid import UUID

from cloud_core.core.certificates.chain_matching import PATTERN_S, BadPattern, compiled
from cloud_core.core.inventory import found
from cloud_core.core.names import fault_of
from cloud_core.core.tokens import new_secret, new_uuid
from cloud_core.model import DeviceProfile, KeyRules, Peer, ProvisionKey, ProvisionStrategy
from cloud_core.storage.interface import ReadTx, Tx
from shared.errors import (
    InvalidArgument,
    InvalidDeviceName,
    InvalidProvisionCredentials,
    QuotaExceeded,
    VersionConflict,
)
from shared.messages import ProvisionRequest

MAX_KEYS = 1_000  # of a profile
MAX_NETWORKS = 64
MAX_KEY_CHARS = 255
MAX_BUDGET = 2**53
SAME_KEY = "Another device profile has this provision key; choose another, or leave it out to have one generated"


# -- what devices meet ----------------------------------------------------------------------------


def check(key: ProvisionKey, request: ProvisionRequest, name: str, peer: Peer, now_ms: int) -> None:
    """All rules but the budget. Raises: InvalidProvisionCredentials, InvalidDeviceName; `detail` for the operator."""
    rules, which = key.rules, f"provision key '{key.name}'"
    if not key.is_enabled:
        raise InvalidProvisionCredentials(f"{which} is disabled")
    if now_ms < rules.valid_from_ms:
        raise InvalidProvisionCredentials(f"{which} is not valid yet")
    if rules.valid_until_ms and now_ms >= rules.valid_until_ms:
        raise InvalidProvisionCredentials(f"{which} is not valid any more")
    if rules.networks and not _is_within(peer.address, rules.networks):
        raise InvalidProvisionCredentials(f"{which} is not for devices at {peer.address}")
    if request.is_gateway and not rules.allows_gateways:
        raise InvalidProvisionCredentials(f"{which} is not for gateways")
    if rules.name_pattern and not _matches(rules.name_pattern, name):
        raise InvalidDeviceName(f"{which} is for names like {rules.name_pattern}")


def check_budget(tx: Tx, key: ProvisionKey) -> None:
    """Right before the first write, for the key's row is locked by it.

    Raises: QuotaExceeded; InvalidProvisionCredentials where another node has deleted the key a moment ago.
    """
    budget = key.rules.budget
    if not budget:
        return
    used = tx.lock_key_use(key.id)
    if used is None:
        raise InvalidProvisionCredentials(f"provision key '{key.name}' was deleted")
    if used >= budget:
        raise QuotaExceeded(f"provision key '{key.name}' has let in its {budget} devices")


def is_right(key: ProvisionKey | None, secret: str, otherwise: str) -> bool:
    """Takes as long for an unknown key as for a known one."""
    return hmac.compare_digest((key.secret if key is not None else otherwise).encode(), secret.encode())


def _is_within(address: str, networks: tuple[str, ...]) -> bool:
    try:
        source = ip_address(address)
    except ValueError:
        return False
    if isinstance(source, IPv6Address) and source.ipv4_mapped is not None:
        source = source.ipv4_mapped
    return any(source in ip_network(one) for one in networks)


def _matches(pattern: str, name: str) -> bool:
    """One that takes too long matches nothing."""
    try:
        return compiled(f"({pattern})").fullmatch(name, timeout=PATTERN_S) is not None
    except TimeoutError:
        return False


# -- what operators do ----------------------------------------------------------------------------


def check_rules(rules: KeyRules) -> KeyRules:
    """In one form. Raises: InvalidArgument."""
    if not 0 <= rules.budget <= MAX_BUDGET:
        raise InvalidArgument("Validation error: budget must be 0 (without limit) or more")
    if rules.valid_from_ms < 0 or rules.valid_until_ms < 0:
        raise InvalidArgument("Validation error: validFrom and validUntil are ms since 1970")
    if rules.valid_until_ms and rules.valid_until_ms <= rules.valid_from_ms:
        raise InvalidArgument("Validation error: validUntil must be after validFrom")
    if len(rules.networks) > MAX_NETWORKS:
        raise InvalidArgument(f"Validation error: at most {MAX_NETWORKS} networks")
    networks = []
    for one in rules.networks:
        try:
            networks.append(str(ip_network(one, strict=False)))
        except ValueError as error:
            raise InvalidArgument(f"Validation error: '{one[:60]}' is no network; write 10.0.0.0/8") from error
    if rules.name_pattern:
        try:
            compiled(f"({rules.name_pattern})")
        except BadPattern as error:
            raise InvalidArgument(f"Validation error: namePattern cannot be used: {error}") from error
    fault = fault_of("batch", rules.batch) if rules.batch else None
    if fault:
        raise InvalidArgument(f"Validation error: {fault}")
    return replace(rules, networks=tuple(networks))


def check_name(name: str) -> None:
    """Raises: InvalidArgument."""
    fault = fault_of("name", name) if name.strip() else "name must not be empty"
    if fault:
        raise InvalidArgument(f"Validation error: {fault}")


def add(
    tx: Tx, tenant_id: int, profile_uuid: UUID, name: str, key: str, secret: str, rules: KeyRules, now_ms: int
) -> ProvisionKey:
    """Key and secret are generated where they are empty. Raises: NotFound, InvalidArgument."""
    profile = _profile(tx, tenant_id, profile_uuid)
    if profile.provision.strategy is ProvisionStrategy.X509_CERTIFICATE_CHAIN:
        raise InvalidArgument("Devices of this profile come in by certificates, and not by provision keys")
    check_name(name)
    there = tx.provision_keys(profile.id)
    if any(one.name == name for one in there):
        raise InvalidArgument(f"The profile has a provision key '{name}' already")
    if len(there) >= MAX_KEYS:
        raise InvalidArgument(f"A profile may have {MAX_KEYS} provision keys; delete one")
    if max(len(key), len(secret)) > MAX_KEY_CHARS:
        raise InvalidArgument(f"Validation error: key and secret may have {MAX_KEY_CHARS} characters")
    if key and (tx.profile_by_key(key) is not None or tx.provision_key(key) is not None):
        raise InvalidArgument(SAME_KEY)
    made = ProvisionKey(
        id=0, uuid=new_uuid(now_ms), tenant_id=tenant_id, profile_id=profile.id, name=name, key=key or new_secret(),
        secret=secret or new_secret(), rules=check_rules(rules), created_ms=now_ms,
    )  # fmt: skip
    tx.insert_provision_key(made)
    return made


def change(
    tx: Tx, tenant_id: int, profile_uuid: UUID, uuid: UUID, rules: KeyRules | None, is_enabled: bool | None,
    seen: KeyRules | None = None,
) -> ProvisionKey:  # fmt: skip
    """None: as it is. `seen`: the rules that the new ones were made of.

    Raises: NotFound, InvalidArgument; VersionConflict where somebody else has changed them meanwhile.
    """
    known = _key(tx, tenant_id, profile_uuid, uuid)
    if seen is not None and known.rules != seen:
        raise VersionConflict
    changed = replace(
        known, rules=known.rules if rules is None else check_rules(rules),
        is_enabled=known.is_enabled if is_enabled is None else is_enabled,
    )  # fmt: skip
    tx.update_provision_key(changed)
    return changed


def delete(tx: Tx, tenant_id: int, profile_uuid: UUID, uuid: UUID) -> ProvisionKey:
    """Raises: NotFound."""
    known = _key(tx, tenant_id, profile_uuid, uuid)
    tx.delete_provision_key(known.id)
    return known


def all_of(tx: ReadTx, tenant_id: int, profile_uuid: UUID) -> list[ProvisionKey]:
    """Raises: NotFound (the profile)."""
    return tx.provision_keys(_profile(tx, tenant_id, profile_uuid).id)


def one_of(tx: ReadTx, tenant_id: int, profile_uuid: UUID, uuid: UUID) -> ProvisionKey:
    """Raises: NotFound."""
    return _key(tx, tenant_id, profile_uuid, uuid)


def _profile(tx: ReadTx, tenant_id: int, uuid: UUID) -> DeviceProfile:
    return found(tx.profile(tenant_id, uuid), "Device profile", uuid)


def _key(tx: ReadTx, tenant_id: int, profile_uuid: UUID, uuid: UUID) -> ProvisionKey:
    return found(tx.provision_key_by_uuid(_profile(tx, tenant_id, profile_uuid).id, uuid), "Provision key", uuid)
