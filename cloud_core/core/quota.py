"""How many devices a tenant may have: by its own limit and by the installation's."""

from __future__ import annotations

from cloud_core.storage.interface import ReadTx
from shared.errors import QuotaExceeded


def device_limit(tx: ReadTx, tenant_id: int, of_installation: int = 0) -> int:
    """The smaller of the two; 0 is without limit."""
    limits = [one for one in (tx.max_devices(tenant_id), of_installation) if one]
    return min(limits, default=0)


def check_room(tx: ReadTx, tenant_id: int, of_installation: int = 0) -> None:
    """Raises: QuotaExceeded where the tenant may have no more devices."""
    limit = device_limit(tx, tenant_id, of_installation)
    if limit and tx.device_count(tenant_id) >= limit:
        raise QuotaExceeded(f"the tenant has its {limit} devices")


def room(tx: ReadTx, tenant_id: int) -> int | None:
    """How many more devices the tenant may have by its own limit; None is without limit."""
    limit = device_limit(tx, tenant_id)
    return max(0, limit - tx.device_count(tenant_id)) if limit else None
