"""Devices behind gateways: found or created in one transaction with what is stored for them.

Plain functions of a transaction. A message speaks of several devices, so a refusal is an outcome of its
device and not the end of the decision; it is found before anything is written for that device.

Source: wire-contract.md sections 5.2 and 5.6; G1 to G3 and G5 of section 10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloud_core.core.assignments import tell_assigned
from cloud_core.core.names import fault_of
from cloud_core.core.quota import device_limit
from cloud_core.core.tokens import new_secret, new_uuid
from cloud_core.model import Device, Identity, ProvisionConfiguration, Relation, Scope, SubDevice
from cloud_core.storage.interface import NewDevice, NewProfile, ReadTx, Tx
from shared.credentials import AccessToken
from shared.errors import (
    InvalidArgument,
    InvalidDeviceName,
    NotAuthorized,
    NotFound,
    PlatformError,
    QuotaExceeded,
)
from shared.messages import Attributes, Sample

DEFAULT_TYPE = "default"
CREATED = "Created"
LAST_GATEWAY = "lastConnectedGateway"
OVERWRITES_ACTIVITY = "overwriteActivityTime"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the installation allows; see `GatewayOptions` and `provisioning.Policy`."""

    adopts_foreign_devices: bool
    tombstone_ms: int
    late_type_ms: int
    max_devices_per_tenant: int  # 0: without limit


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sub-device that is to be connected: announced by its gateway, or only spoken for.

    `is_under_way`: a decision before this one does so; here it has only to be found.
    """

    name: str
    is_announced: bool = False
    type: str = ""  # empty: not given
    is_under_way: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """A sub-device that exists. Until `type_open_until_ms` a connect may still correct its type."""

    device_id: int
    type_open_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Context:
    """On whose behalf, by which rules and when."""

    gateway: Identity
    rules: Rules
    now_ms: int


Outcomes = dict[str, Joined | PlatformError]


def join(tx: Tx, context: Context, wanted: Sequence[Wanted]) -> Outcomes:
    """Gets or creates every device. Raises: NotFound when the gateway itself is gone."""
    if not wanted:
        return {}
    gateway = tx.device_by_id(context.gateway.device_id)
    if gateway is None:
        raise NotFound("the gateway was deleted")
    joining = _Joining(tx, context, gateway)
    return {one.name: joining.join(one) for one in wanted}


def join_and_append(
    tx: Tx,
    context: Context,
    wanted: Sequence[Wanted],
    known: Iterable[tuple[int, list[Sample]]],
    samples: Mapping[str, list[Sample]],
) -> Outcomes:
    """As `join`, then stores the samples of known devices, by number, and of those that joined, by name."""
    outcomes = join(tx, context, wanted)
    for device_id, some in known:
        tx.append_samples(device_id, some)
    for name, outcome in outcomes.items():
        if isinstance(outcome, Joined):
            tx.append_samples(outcome.device_id, samples[name])
    return outcomes


def join_and_put(
    tx: Tx,
    context: Context,
    wanted: Sequence[Wanted],
    known: Iterable[tuple[int, Attributes]],
    values: Mapping[str, Attributes],
) -> Outcomes:
    """As `join_and_append`, for client attributes; a known device that was deleted meanwhile is left out."""
    outcomes = join(tx, context, wanted)
    for device_id, some in known:
        if tx.device_by_id(device_id) is not None:
            tx.put_attributes(device_id, Scope.CLIENT, some, now_ms=context.now_ms)
    for name, outcome in outcomes.items():
        if isinstance(outcome, Joined):
            tx.put_attributes(outcome.device_id, Scope.CLIENT, values[name], now_ms=context.now_ms)
    return outcomes


class _Joining:
    """One decision: what its devices share is looked up once."""

    def __init__(self, tx: Tx, context: Context, gateway: Device) -> None:
        self._tx = tx
        self._rules = context.rules
        self._now_ms = context.now_ms
        self._gateway = gateway
        self._device_count: int | None = None

    def join(self, wanted: Wanted) -> Joined | PlatformError:
        try:
            _check_name(wanted.name)
            device, is_former_name = self._find(wanted.name)
            before = None if device is None else self._tx.sub_device(device.id)
            if device is None:
                self._check_creation(wanted)
            else:
                self._check_adoption(device, before)
        except PlatformError as refusal:
            return refusal
        if device is None:
            return self._create(wanted)
        is_found_only = wanted.is_under_way and not wanted.is_announced
        if is_found_only and before is not None and before.gateway_id == self._gateway.id:
            return self._joined(device, is_type_open=before.is_type_guessed)
        if not is_former_name and before is not None:
            self._tx.delete_aliases_of(self._gateway.id, device.id)  # it knows the present name
        return self._adopt(device, wanted, before)

    def _find(self, name: str) -> tuple[Device | None, bool]:
        """The device, and whether this gateway's former name for it led there."""
        device = self._tx.device_by_name(self._gateway.tenant_id, name)
        if device is not None:
            return device, False
        former = self._tx.alias(self._gateway.id, name)
        return (None, False) if former is None else (self._tx.device_by_id(former), True)

    # -- checks -----------------------------------------------------------------------------------

    def _check_adoption(self, device: Device, before: SubDevice | None) -> None:
        is_own = device.id == self._gateway.id or (before is not None and before.gateway_id == self._gateway.id)
        if not is_own and not self._rules.adopts_foreign_devices:
            raise NotAuthorized(
                f"device '{device.name}' was not connected by this gateway before; delete it, or set "
                "[gateway] adopts_foreign_devices"
            )

    def _check_creation(self, wanted: Wanted) -> None:
        fault = fault_of("type", wanted.type)
        if fault:
            raise InvalidArgument(fault)
        deleted_ms = self._tx.tombstone(self._gateway.tenant_id, wanted.name)
        if not wanted.is_announced and deleted_ms is not None and self._now_ms - deleted_ms < self._rules.tombstone_ms:
            raise NotFound("the device was deleted by an operator; a connect message creates it again")
        limit = device_limit(self._tx, self._gateway.tenant_id, self._rules.max_devices_per_tenant)
        if limit:
            if self._device_count is None:
                self._device_count = self._tx.device_count(self._gateway.tenant_id)
            if self._device_count >= limit:
                raise QuotaExceeded(f"the tenant has its {limit} devices")

    # -- writes -----------------------------------------------------------------------------------

    def _create(self, wanted: Wanted) -> Joined:
        tx, gateway, now_ms = self._tx, self._gateway, self._now_ms
        uuid = new_uuid(now_ms)
        device_id = tx.insert_device(
            NewDevice(
                uuid=uuid, tenant_id=gateway.tenant_id, profile_id=self._profile_id(wanted.type), name=wanted.name,
                created_ms=now_ms, customer_id=gateway.customer_id,
                document={"additionalInfo": {LAST_GATEWAY: str(gateway.uuid)}},
            )
        )  # fmt: skip
        tx.put_credentials(device_id, AccessToken(new_secret()), now_ms=now_ms, is_new_device=True)
        tell_assigned(tx, device_id, now_ms=now_ms)
        tx.put_relation(
            Relation(
                tenant_id=gateway.tenant_id, from_type="DEVICE", from_uuid=gateway.uuid, to_type="DEVICE",
                to_uuid=uuid, type=CREATED,
            )
        )  # fmt: skip
        tx.put_sub_device(
            SubDevice(
                device_id=device_id, gateway_id=gateway.id, connected_ms=now_ms, is_created_by_gateway=True,
                is_type_guessed=not wanted.is_announced,
            )
        )  # fmt: skip
        tx.delete_tombstone(gateway.tenant_id, wanted.name)
        if self._device_count is not None:
            self._device_count += 1
        return Joined(device_id, 0 if wanted.is_announced else now_ms + self._rules.late_type_ms)

    def _adopt(self, device: Device, wanted: Wanted, before: SubDevice | None) -> Joined:
        if device.id == self._gateway.id:
            return Joined(device.id)  # it speaks for itself
        is_type_open = (
            before is not None
            and before.is_type_guessed
            and before.gateway_id == self._gateway.id
            and self._now_ms <= device.created_ms + self._rules.late_type_ms
        )
        changed = _marked(device, str(self._gateway.uuid))
        if is_type_open and wanted.is_announced and wanted.type and not fault_of("type", wanted.type):
            changed = replace(changed, profile_id=self._profile_id(wanted.type))
            is_type_open = False
        if changed != device:
            self._tx.update_device(changed)
        self._tx.put_sub_device(
            SubDevice(
                device_id=device.id, gateway_id=self._gateway.id, connected_ms=self._now_ms,
                is_created_by_gateway=before is not None and before.is_created_by_gateway,
                is_type_guessed=is_type_open,
            )
        )  # fmt: skip
        return self._joined(device, is_type_open=is_type_open)

    def _joined(self, device: Device, *, is_type_open: bool) -> Joined:
        return Joined(device.id, device.created_ms + self._rules.late_type_ms if is_type_open else 0)

    def _profile_id(self, type_: str) -> int:
        """Found or created; `default` is the tenant's default profile unless one is called so."""
        name, tenant_id = type_ or DEFAULT_TYPE, self._gateway.tenant_id
        profile = self._tx.profile_by_name(tenant_id, name)
        if profile is None and name == DEFAULT_TYPE:
            profile = self._tx.default_profile(tenant_id)
        if profile is not None:
            return profile.id
        return self._tx.insert_profile(
            NewProfile(
                uuid=new_uuid(self._now_ms), tenant_id=tenant_id, name=name, provision=ProvisionConfiguration(),
                document={}, created_ms=self._now_ms,
            )
        )  # fmt: skip


def _check_name(name: str) -> None:
    """As given, not trimmed: the gateway is told of the device by this name. Raises: InvalidDeviceName."""
    fault = fault_of("name", name) if name.strip() else "the device name is blank"
    if fault:
        raise InvalidDeviceName(fault)


def _marked(device: Device, gateway: str) -> Device:
    info = device.document.get("additionalInfo")
    info = info if isinstance(info, dict) else {}
    if info.get(LAST_GATEWAY) == gateway:
        return device
    return replace(device, document={**device.document, "additionalInfo": {**info, LAST_GATEWAY: gateway}})


# --- what operators do ---------------------------------------------------------------------------


def keep_former_name(tx: Tx, device: Device) -> int:
    """Before a rename: its gateway, 0 for none, may go on calling the device by its present name."""
    gateway_id = gateway_of(tx, device)
    if gateway_id:
        tx.put_alias(gateway_id, device.name, device.id)
    return gateway_id


def bury(tx: Tx, device: Device, now_ms: int) -> int:
    """Before a deletion: data alone shall not bring the device back. Returns its gateway, 0 for none."""
    gateway_id = gateway_of(tx, device)
    if gateway_id:
        tx.put_tombstone(device.tenant_id, device.name, deleted_ms=now_ms)
    return gateway_id


def gateway_of(tx: ReadTx, device: Device) -> int:
    """The gateway that the device was connected through last, if that still exists; else 0."""
    sub_device = tx.sub_device(device.id)
    if sub_device is None or tx.device_by_id(sub_device.gateway_id) is None:
        return 0
    return sub_device.gateway_id


def overwrites_activity(tx: ReadTx, gateway_id: int) -> bool:
    """Whether activity of the gateway counts as that of all its sub-devices."""
    gateway = tx.device_by_id(gateway_id)
    info = None if gateway is None else gateway.document.get("additionalInfo")
    return isinstance(info, dict) and info.get(OVERWRITES_ACTIVITY) is True
