"""Pages of devices at the price of an index, also far into a large fleet.

A page is found as numbers in an index first, and only its own rows are read. Text is looked for in one pass over
the fleet: the numbers of a few matches are sorted here, many matches are met soon in the order of an index.
Names, labels and types are compared by code point and without regard to the case of ASCII letters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Select, bindparam, case, exists, func, or_, select

from cloud_core.model import EVERY_DEVICE, Customer, Device, DeviceFilter, DeviceStage, Page
from cloud_core.storage.connected import DEEP, Plan, by_index, one_of
from cloud_core.storage.customers import ReadsCustomers
from cloud_core.storage.schema import credentials, device, device_profile, presence
from cloud_core.storage.statements import device_of, device_rows
from shared.errors import InvalidArgument

FEW_MATCHES = 2_000
FEW_OF_FLEET = 20_000  # devices of a profile or a customer that are sorted, rather than met in the order of an index
FEW_SEEN = 3  # up to a third of the fleet is a set
FAR = 1_000  # devices of one profile that are not passed over from its nearer end
_ROWS_AT_ONCE = 500  # parameters of one statement

p = bindparam
_c = device.c
_OF_PROFILE, _OF_CUSTOMER = by_index(device, "ix_device_profile_id"), by_index(device, "device_by_customer")
_BY_LABEL = by_index(device, "device_by_label")
_TYPE = "type"
_SORT: dict[str, Any] = {
    "createdTime": _c.created_ms, "name": _c.name, "label": _c.label, _TYPE: _c.profile_id,
    "deviceProfileName": _c.profile_id,
}  # fmt: skip
_of_tenant = device_profile.c.tenant_id == p("tenant_id")
_names = select(device_profile.c.id, device_profile.c.uuid, device_profile.c.name).where(_of_tenant)
# From the side of presence: active devices are asked for their profile, not all devices for their presence. Without the
# sum SQLite would go the other way, by the index of tenants.
_SEEN = (
    select(_c.profile_id)
    .select_from(presence.join(device, _c.id == presence.c.device_id))
    .where(presence.c.is_active == p("is_active"), _c.tenant_id + 0 == p("tenant_id"))
)
_SEEN_IN_ONE_TEXT = _SEEN.with_only_columns(func.json_group_array(_c.profile_id))
_SEEN_COUNTED = _SEEN.with_only_columns(_c.profile_id, func.count()).group_by(_c.profile_id)
_IS_ACTIVE = exists().where(presence.c.device_id == _c.id, presence.c.is_active.is_(True))
_PRESENCE_COUNTS = select(
    func.count(), func.count(case((presence.c.is_active.is_(True), 1))),
    select(func.count()).select_from(device).scalar_subquery(),
)  # fmt: skip
_OTHER_TENANTS = select(
    or_(exists().where(_c.tenant_id < p("tenant_id")), exists().where(_c.tenant_id > p("tenant_id")))
)
_used_names = _names.where(exists().where(device.c.profile_id == device_profile.c.id))


class ReadsDeviceLists(ReadsCustomers):
    """`ReadDeviceLists` of the interface."""

    _counted: tuple[int, int, int] | None = None  # by `_presence_counts`

    def devices(
        self, tenant_id: int, page: Page, wanted: DeviceFilter = EVERY_DEVICE, *, customer_id: int | None = None
    ) -> tuple[list[Device], int]:
        if page.sort_property not in _SORT:
            raise InvalidArgument(f"Unknown sort property '{page.sort_property}'; use one of {sorted(_SORT)}")
        names = self._profile_names(tenant_id)
        profiles = {
            number for number, (uuid, name) in names.items()
            if (not wanted.profile_name or name == wanted.profile_name) and wanted.profile_uuid in (None, uuid)
        }  # fmt: skip
        rows = select(_c.id)
        is_one_profile = len(profiles) < len(names) or not names
        if is_one_profile and len(profiles) != 1:
            return [], 0
        if is_one_profile:
            rows = rows.where(_c.profile_id == next(iter(profiles)))
        if customer_id is not None:
            rows = rows.where(_c.customer_id == customer_id)
        plan = self._few_of(next(iter(profiles)) if is_one_profile else None, customer_id)
        if wanted.is_active is not None:
            self._counted = None
            rows = rows.where(self._has_presence(is_active=wanted.is_active))
        rows = _narrowed(rows, wanted)
        by_name = {number: name for number, (_, name) in names.items()}
        order = sorted(profiles, key=lambda one: by_name[one], reverse=page.descending)
        numbers, total = self._numbers(
            rows, page, by_name, order, (tenant_id, wanted, customer_id, page.text_search), plan
        )
        return self._devices_of(numbers), total

    def devices_after(
        self, tenant_id: int, after: str, limit: int, text: str, wanted: DeviceFilter, *, customer_id: int | None = None
    ) -> list[Device]:
        names = self._profile_names(tenant_id)
        rows = _narrowed(device_rows.where(_c.tenant_id == tenant_id, _c.name > after), wanted)
        if wanted.profile_name or wanted.profile_uuid is not None:
            profiles = [
                number for number, (uuid, name) in names.items()
                if (not wanted.profile_name or name == wanted.profile_name) and wanted.profile_uuid in (None, uuid)
            ]  # fmt: skip
            if not profiles:
                return []
            rows = rows.where(one_of(_c.profile_id, profiles))
        if customer_id is not None:
            rows = rows.where(_c.customer_id == customer_id)
        if wanted.is_active is not None:
            rows = rows.where(_IS_ACTIVE if wanted.is_active else ~_IS_ACTIVE)
        if text:
            rows = rows.where(self._match(text, {number: name for number, (_, name) in names.items()}))
        found = [device_of(row) for row in self._query(rows.order_by(_c.name).limit(limit))]
        return [one for one in found if one is not None]

    def device_stages(self, devices: list[Device]) -> list[DeviceStage]:
        found: dict[int, DeviceStage] = {}
        c = credentials.c
        for part in _parts([one.id for one in devices]):
            life = select(c.device_id, c.issued_ms, c.confirmed_ms).where(one_of(c.device_id, part))
            for number, issued_ms, confirmed_ms in self._query(life):
                found[number] = stage_of(issued_ms, confirmed_ms)
        return [found.get(one.id, DeviceStage.CREATED) for one in devices]

    def device_places(self, devices: list[Device]) -> list[tuple[Customer | None, bool]]:
        owners = {number: self.customer_by_id(number) for one in devices if (number := one.customer_id) is not None}
        c, active = presence.c, set()
        for part in _parts([one.id for one in devices]):
            active |= {row[0] for row in self._query(select(c.device_id).where(one_of(c.device_id, part), c.is_active))}
        return [(owners.get(one.customer_id or 0), one.id in active) for one in devices]

    def profile_names(self, tenant_id: int, *, is_used: bool = False) -> list[tuple[UUID, str]]:
        return sorted(self._profile_names(tenant_id, is_used=is_used).values(), key=lambda one: one[1])

    def _profile_names(self, tenant_id: int, *, is_used: bool = False) -> dict[int, tuple[UUID, str]]:
        rows = self._rows(self._once(_used_names if is_used else _names), tenant_id=tenant_id)
        return {number: (UUID(bytes=bytes(uuid)), name) for number, uuid, name in rows}

    def _few_of(self, profile_id: int | None, customer_id: int | None) -> Plan | None:
        """By which index a profile's or a customer's devices are found, where they are a small part of the fleet: asked
        for the tenant, whose they are, SQLite would look through all of it."""
        if customer_id is not None and self._is_few(_c.customer_id == customer_id):
            return _OF_CUSTOMER
        if profile_id is not None and self._is_few(_c.profile_id == profile_id):
            return _OF_PROFILE
        return None

    def _is_few(self, owned: ColumnElement[bool]) -> bool:
        some = select(_c.id).where(owned).limit(FEW_OF_FLEET + 1).subquery()
        return bool(self._query(select(func.count()).select_from(some))[0][0] <= FEW_OF_FLEET)

    def _numbers(
        self, rows: Select[Any], page: Page, names: dict[int, str], order: list[int], key: Any, plan: Plan | None
    ) -> tuple[list[int], int]:
        if page.text_search:
            rows = rows.where(self._match(page.text_search, names))
        by_profile, of_tenant = rows, rows.where(_c.tenant_id == key[0])
        rows = of_tenant if plan is None else rows.with_hint(*plan)
        if page.text_search:
            found = self._query(rows.add_columns(*_columns(page)).limit(FEW_MATCHES + 1))
            if len(found) <= FEW_MATCHES:
                return _sorted_page(found, page, names), len(found)
        if _SORT[page.sort_property] is _c.profile_id:
            counted = of_tenant.with_hint(*_BY_LABEL) if page.text_search and plan is None else by_profile
            return self._by_profile(by_profile, counted, page, order, key)
        columns, first = _columns(page), page.page * page.size
        if first >= DEEP:  # from the nearer end; how many there are has to be known for that
            total = self._total(rows, key)
            if first > total // 2:
                size = max(0, min(page.size, total - first))
                numbers = self._ordered(rows, columns, not page.descending, size, max(0, total - first - size))
                return numbers[::-1], total
        numbers = self._ordered(rows, columns, page.descending, page.size, first)
        if len(numbers) < page.size and (numbers or first == 0):
            return numbers, first + len(numbers)  # the last page: it says itself how many there are
        return numbers, max(self._total(rows, key), first + len(numbers) if numbers else 0)

    def _ordered(self, rows: Select[Any], columns: list[Any], is_descending: bool, size: int, first: int) -> list[int]:
        whole = columns if columns[-1] is _c.name else [*columns, _c.id]  # a name is one device's
        ordered = rows.order_by(*(one.desc() if is_descending else one for one in whole))
        return [row[0] for row in self._query(ordered.limit(size).offset(first))] if size else []

    def _by_profile(
        self, rows: Select[Any], counted: Select[Any], page: Page, order: list[int], key: Any
    ) -> tuple[list[int], int]:
        """By the names of the profiles, of which there are few: counted each, and walked in their order.

        A profile's devices are of its tenant: without saying so again the index of profiles has it all. What is
        searched is `counted` in the index that has all texts.
        """
        wanted = key[1]
        if wanted.is_active is not None and key == (key[0], DeviceFilter(is_active=wanted.is_active), None, ""):
            counts: dict[int, int] = self._by_presence(key[0], is_active=wanted.is_active)
        else:
            is_searched = bool(page.text_search)
            counts = self._kept((key, _TYPE), lambda: self._counts(counted, order, is_searched=is_searched))
        skip = page.page * page.size
        numbers: list[int] = []
        for profile in order:
            count, missing = counts.get(profile, 0), page.size - len(numbers)
            if missing > 0 and skip < count:
                is_far = skip >= FAR and skip > count // 2  # then it is nearer from the end
                size = min(missing, count - skip) if is_far else missing
                part = rows.where(_c.profile_id == profile).limit(size).offset(count - skip - size if is_far else skip)
                part = part.order_by(_c.id.desc() if page.descending != is_far else _c.id)
                numbers += [row[0] for row in self._query(part)][:: -1 if is_far else 1]
            skip = max(0, skip - count)
        return numbers, sum(counts.values())

    def _counts(self, rows: Select[Any], profiles: list[int], *, is_searched: bool = False) -> dict[int, int]:
        """A search meets the profiles in no order: SQLite would sort all that it meets to group them, which costs more
        than to bring their numbers in one text and count them here."""
        if not profiles:
            return {}
        rows = rows.where(one_of(_c.profile_id, profiles))
        if is_searched and self._dialect.name == "sqlite":
            met = self._query(rows.with_only_columns(func.json_group_array(_c.profile_id)))[0][0]
            return Counter(msgspec.json.decode(met))
        return dict(self._query(rows.with_only_columns(_c.profile_id, func.count()).group_by(_c.profile_id)))

    def _match(self, text: str, names: dict[int, str]) -> ColumnElement[bool]:
        lowered = text.lower()
        profiles = [number for number, name in names.items() if lowered in name.lower()]
        parts: list[ColumnElement[bool]] = [self._contains(column, text) for column in (_c.name, _c.label)]
        return or_(one_of(_c.profile_id, profiles), *parts) if profiles else or_(*parts)  # the cheapest first

    def _contains(self, column: Any, text: str) -> ColumnElement[bool]:
        """SQLite's LIKE disregards the case of ASCII letters by itself, at half the price of lowering both sides."""
        pattern = "%" + text.replace("/", "//").replace("%", "/%").replace("_", "/_") + "%"
        is_postgresql = self._dialect.name == "postgresql"
        found: ColumnElement[bool] = (column.ilike if is_postgresql else column.like)(pattern, escape="/")
        return found

    def _total(self, rows: Select[Any], key: Any) -> int:
        wanted = key[1]
        if wanted.is_active is not None and key == (key[0], DeviceFilter(is_active=wanted.is_active), None, ""):
            return self._total_by_presence(key[0], is_active=wanted.is_active)
        total: int = self._kept(key, lambda: self._query(rows.with_only_columns(func.count()))[0][0])
        return total

    def _by_presence(self, tenant_id: int, *, is_active: bool) -> Counter[int]:
        """How many of a tenant's devices are active or not: profile -> count."""
        if is_active or self._have_all_presence():
            counted: Counter[int] = self._kept(
                ("active", tenant_id, is_active), lambda: self._seen(tenant_id, is_active=is_active)
            )
            return counted
        profiles = list(self._profile_names(tenant_id))
        every = Counter[int](self._kept(("all", tenant_id), lambda: self._counts(select(_c.id), profiles)))
        return every - self._by_presence(tenant_id, is_active=True)

    def _seen(self, tenant_id: int, *, is_active: bool) -> Counter[int]:
        if self._dialect.name == "sqlite":
            numbers = self._row(self._once(_SEEN_IN_ONE_TEXT), tenant_id=tenant_id, is_active=is_active)[0]
            return Counter(msgspec.json.decode(numbers))
        return Counter(dict(self._rows(self._once(_SEEN_COUNTED), tenant_id=tenant_id, is_active=is_active)))

    def _total_by_presence(self, tenant_id: int, *, is_active: bool) -> int:
        if self._dialect.name != "sqlite" or self._row(self._once(_OTHER_TENANTS), tenant_id=tenant_id)[0]:
            return sum(self._by_presence(tenant_id, is_active=is_active).values())
        _, active, devices = self._presence_counts()
        return active if is_active else devices - active

    def _has_presence(self, *, is_active: bool) -> ColumnElement[bool]:
        """Devices that are active, or not. SQLite looks into presence for each device that it comes by; where few are
        meant it would come by too many, and has a set of these."""
        if self._dialect.name == "sqlite" and (is_active or self._have_all_presence()):
            rows, active, _ = self._presence_counts()
            if (active if is_active else rows - active) <= rows // FEW_SEEN:
                # Not the number itself: SQLite would look up each of them in the index of each profile.
                return (_c.id + 0).in_(select(presence.c.device_id).where(presence.c.is_active.is_(is_active)))
        return _IS_ACTIVE if is_active else ~_IS_ACTIVE

    def _have_all_presence(self) -> bool:
        """Whether every device has been heard of. Presence is only of devices that are there."""
        if self._dialect.name != "sqlite":
            return False
        rows, _, devices = self._presence_counts()
        return rows == devices

    def _presence_counts(self) -> tuple[int, int, int]:
        """Of all tenants: rows of presence, active ones among them, devices. Counted once for a page."""
        if self._counted is None:
            self._counted = self._kept("presence", lambda: tuple(self._row(self._once(_PRESENCE_COUNTS))))
        return self._counted

    def _devices_of(self, numbers: list[int]) -> list[Device]:
        """In the order of the numbers."""
        found: dict[int, Device] = {}
        for part in _parts(numbers):
            for row in self._query(device_rows.where(one_of(_c.id, part))):
                device = device_of(row)
                assert device is not None, "there is a row"
                found[row[0]] = device
        return [found[number] for number in numbers]


def stage_of(issued_ms: int | None, confirmed_ms: int | None) -> DeviceStage:
    if confirmed_ms is not None:
        return DeviceStage.CONFIRMED
    return DeviceStage.CREATED if issued_ms is None else DeviceStage.ISSUED


def _narrowed(rows: Select[Any], wanted: DeviceFilter) -> Select[Any]:
    if wanted.is_gateway is not None:
        rows = rows.where(_c.is_gateway.is_(True) if wanted.is_gateway else _c.is_gateway.is_(False))
    if wanted.stage is None:
        return rows
    c = credentials.c
    # Those that have not logged in yet have an index of their own; they are few, or all of a fleet that is new.
    unconfirmed = select(c.device_id).where(c.confirmed_ms.is_(None))
    if wanted.stage is DeviceStage.CONFIRMED:
        return rows.where(_c.id.not_in(unconfirmed))
    is_issued = c.issued_ms.is_not(None) if wanted.stage is DeviceStage.ISSUED else c.issued_ms.is_(None)
    return rows.where(_c.id.in_(unconfirmed.where(is_issued)))


def _columns(page: Page) -> list[Any]:
    """By what a page is sorted, before the number; equal labels by name, as they stand in the index."""
    column = _SORT[page.sort_property]
    return [column, _c.name] if column is _c.label else [column]


def _sorted_page(found: list[Any], page: Page, names: dict[int, str]) -> list[int]:
    is_by_profile = _SORT[page.sort_property] is _c.profile_id
    keyed = [((names[values[0]], number) if is_by_profile else (*values, number)) for number, *values in found]
    keyed.sort(reverse=page.descending)
    return [one[-1] for one in keyed[page.page * page.size :][: page.size]]


def _parts(numbers: Sequence[int]) -> list[Sequence[int]]:
    return [numbers[first : first + _ROWS_AT_ONCE] for first in range(0, len(numbers), _ROWS_AT_ONCE)]
