"""Who may do what: a table from role to operations for devices, one from authority to acts for people."""

from __future__ import annotations

from enum import Enum, auto

from cloud_core.model import Role
from shared.operations import Operation

_GATEWAY = frozenset(Operation) - {Operation.PROVISION, Operation.RECEIVE_PROVISION_RESPONSE}
_DEVICE = frozenset(
    one for one in _GATEWAY if not one.name.startswith("GATEWAY_") and one is not Operation.RECEIVE_GATEWAY_MESSAGES
)

ALLOWED: dict[Role, frozenset[Operation]] = {
    Role.PROVISIONING: frozenset({Operation.PROVISION, Operation.RECEIVE_PROVISION_RESPONSE}),
    Role.DEVICE: _DEVICE,
    Role.GATEWAY: _GATEWAY,
}


def may(role: Role, operation: Operation) -> bool:
    """Whether `role` may ask for `operation`."""
    return operation in ALLOWED[role]


TENANT_ADMIN = "TENANT_ADMIN"
CUSTOMER_USER = "CUSTOMER_USER"


class Act(Enum):
    """What a REST call is, for whoever is logged in. A call that says nothing is ADMINISTER."""

    ADMINISTER = auto()
    """Everything that is not named below."""
    USE_OWN_LOGIN = auto()
    """See who one is; end the login."""
    READ_DEVICES = auto()
    """Devices and their data; a customer's user sees the customer's alone (`Operator.check_owner`)."""
    READ_AUDIT = auto()
    """See and verify what operators decided."""
    MANAGE_KEYS = auto()
    """Rotate secrets of profiles; add, change and delete provision keys."""
    APPROVE_DEVICES = auto()
    """Let devices in that wait for an operator, or refuse them."""
    CLAIM = auto()
    """Become the owner of a device by its claim secret."""
    GIVE_BACK = auto()
    """End an ownership; a customer's user the customer's own."""


ACTS: dict[str, frozenset[Act]] = {
    TENANT_ADMIN: frozenset(Act) - {Act.CLAIM},  # who has no customer has nobody to claim for
    CUSTOMER_USER: frozenset({Act.USE_OWN_LOGIN, Act.READ_DEVICES, Act.CLAIM, Act.GIVE_BACK}),
}


def operator_may(authority: str, act: Act) -> bool:
    """Whether a user of this authority may; an unknown authority may nothing."""
    return act in ACTS.get(authority, frozenset())
