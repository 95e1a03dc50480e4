"""Who may do what: one table from role to operations."""

from __future__ import annotations

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
