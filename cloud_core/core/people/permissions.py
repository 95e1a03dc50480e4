"""Who may do what: a table from role to operations for devices, one from authority and role to acts for people."""

from __future__ import annotations

from enum import Enum, auto

from cloud_core.model import Role, UserRole
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


SYS_ADMIN = "SYS_ADMIN"
TENANT_ADMIN = "TENANT_ADMIN"
CUSTOMER_USER = "CUSTOMER_USER"


class Act(Enum):
    """What a REST call is, for whoever is logged in. Every route names one."""

    ADMINISTER = auto()
    """Everything of a tenant that is not named below: profiles and their provision keys, customers, server methods."""
    USE_OWN_LOGIN = auto()
    """See who one is; end the login; change one's own password."""
    READ = auto()
    """What a tenant has, without any secret: profiles, customers, packages, attempts, CAs, certificates."""
    READ_DEVICES = auto()
    """Devices and their data; a customer's user sees the customer's alone (`Operator.check_owner`)."""
    READ_CREDENTIALS = auto()
    """What devices log in with."""
    READ_PROFILE_SECRETS = auto()
    """The provision secrets of profiles, which are hidden from everybody else."""
    WRITE_DEVICES = auto()
    """Devices, their credentials, relations and customers, imports included."""
    WRITE_DATA = auto()
    """Attributes and telemetry."""
    SEND_RPC = auto()
    """Commands to devices, and taking them back."""
    WRITE_PACKAGES = auto()
    """Firmware and software packages: making and uploading them."""
    DELETE_PACKAGES = auto()
    ADMINISTER_CA = auto()
    """CAs and what they issue and revoke."""
    ADMINISTER_USERS = auto()
    """Users of the tenant and their passwords."""
    ADMINISTER_KEYS = auto()
    """API keys of the tenant."""
    ADMINISTER_TENANTS = auto()
    """Tenants and their first administrators; nothing of what they have."""
    IMPORT_DEVICES = auto()
    """Load files of devices, see what became of them, undo them."""
    READ_AUDIT = auto()
    """See and verify what operators decided."""
    RELEASE_MANIFESTS = auto()
    """Let the secrets of an import be shown once more, which somebody has taken."""
    CLAIM = auto()
    """Become the owner of a device by its claim secret."""
    GIVE_BACK = auto()
    """End an ownership; a customer's user the customer's own."""


_VIEWER = frozenset({Act.USE_OWN_LOGIN, Act.READ, Act.READ_DEVICES})

# Acts of the users of a tenant, whose authority is TENANT_ADMIN as ThingsBoard's clients expect it.
ROLE_ACTS: dict[UserRole, frozenset[Act]] = {
    UserRole.ADMINISTRATOR: frozenset(Act) - {Act.CLAIM, Act.ADMINISTER_TENANTS},  # no customer: nobody to claim for
    UserRole.OPERATOR: _VIEWER
    | {
        Act.READ_CREDENTIALS, Act.WRITE_DEVICES, Act.IMPORT_DEVICES, Act.WRITE_DATA, Act.SEND_RPC, Act.WRITE_PACKAGES,
        Act.GIVE_BACK,
    },
    UserRole.VIEWER: _VIEWER,
}  # fmt: skip

ACTS: dict[str, frozenset[Act]] = {
    SYS_ADMIN: frozenset({Act.USE_OWN_LOGIN, Act.ADMINISTER_TENANTS, Act.ADMINISTER_USERS, Act.READ_AUDIT}),
    TENANT_ADMIN: ROLE_ACTS[UserRole.ADMINISTRATOR],
    CUSTOMER_USER: frozenset({Act.USE_OWN_LOGIN, Act.READ_DEVICES, Act.CLAIM, Act.GIVE_BACK}),
}


def operator_may(authority: str, act: Act, role: UserRole = UserRole.ADMINISTRATOR) -> bool:
    """Whether a user of this authority may, and of this role where the authority is a tenant's.

    An unknown authority may nothing.
    """
    return act in (ROLE_ACTS[role] if authority == TENANT_ADMIN else ACTS.get(authority, frozenset()))
