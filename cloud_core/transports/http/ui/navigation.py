"""The places of the web UI, and who sees which."""

from __future__ import annotations

from typing import NamedTuple

from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.ui.visits import PATH, Visitor


class Section(NamedTuple):
    """An entry of the navigation."""

    title: str
    url: str
    act: Act


SECTIONS = (
    Section("Overview", f"{PATH}/", Act.READ),
    Section("Devices", f"{PATH}/devices", Act.READ_DEVICES),
    Section("Imports", f"{PATH}/imports", Act.IMPORT_DEVICES),
    Section("Device profiles", f"{PATH}/profiles", Act.READ),
    Section("Provisioning", f"{PATH}/provisioning", Act.READ),
    Section("Gateways", f"{PATH}/gateways", Act.READ),
    Section("Certificates", f"{PATH}/certificates", Act.READ),
    Section("Customers", f"{PATH}/customers", Act.READ),
    Section("Tenants", f"{PATH}/tenants", Act.ADMINISTER_TENANTS),
    Section("Users", f"{PATH}/users", Act.ADMINISTER_USERS),
    Section("API keys", f"{PATH}/api-keys", Act.ADMINISTER_KEYS),
    Section("Audit", f"{PATH}/audit", Act.READ_AUDIT),
)


def sections_for(visitor: Visitor) -> list[Section]:
    return [one for one in SECTIONS if visitor.may(one.act)]


def home_of(visitor: Visitor) -> str:
    """Where somebody begins: the first place that is open to them."""
    sections = sections_for(visitor)
    return sections[0].url if sections else f"{PATH}/account"
