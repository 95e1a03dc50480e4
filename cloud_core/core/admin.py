"""`AdminApi`: what operators can do. Decisions are plain functions of a transaction, as for devices."""

from __future__ import annotations

from cloud_core.core import inventory
from cloud_core.core.api import DeviceApi
from cloud_core.core.asking import answered as answered  # others find it here
from cloud_core.core.bulk.imports import ImportsApi
from cloud_core.core.bulk.manifests import ManifestsApi
from cloud_core.core.certificates.authority_admin import AuthoritiesApi
from cloud_core.core.device_admin import DeviceAdmin
from cloud_core.core.downlinks import Ending
from cloud_core.core.keys.approvals import ApprovalsApi
from cloud_core.core.keys.key_admin import KeysApi
from cloud_core.core.labels.labels import LabelsApi
from cloud_core.core.line_ration import LineRation
from cloud_core.core.lists import ListsApi
from cloud_core.core.overview import OverviewApi
from cloud_core.core.people.access import Access
from cloud_core.core.people.api_keys import ApiKeysApi
from cloud_core.core.people.audit_admin import AuditApi
from cloud_core.core.people.customers import CustomersApi
from cloud_core.core.people.local_access import LocalAccess
from cloud_core.core.people.login_admin import MAX_FAILED_LOGINS, LoginAdmin
from cloud_core.core.people.logins import Operator, Tokens
from cloud_core.core.people.tenants import TenantsApi
from cloud_core.core.people.users import UsersApi
from cloud_core.core.profile_admin import ProfileAdmin
from cloud_core.core.replacement import ReplacementApi
from cloud_core.core.system_view import SystemView
from cloud_core.core.trials import TrialsApi
from cloud_core.model import Attempt
from cloud_core.storage.interface import Store
from shared.errors import NotFound


class AdminApi(LoginAdmin, ProfileAdmin, DeviceAdmin):
    """Users, profiles, devices, credentials, data and the provisioning log of a tenant."""

    def __init__(self, *, store: Store, api: DeviceApi, jwt_key: bytes) -> None:
        super().__init__(store, api.audit)
        self._api = api
        self.now_ms = api.now_ms
        self.access = Access(store=store, now_ms=api.now_ms)
        self.users = UsersApi(store=store, access=self.access, now_ms=api.now_ms, audit=api.audit)
        self.api_keys = ApiKeysApi(store=store, access=self.access, now_ms=api.now_ms, audit=api.audit)
        self.tenants = TenantsApi(
            store=store, access=self.access, now_ms=api.now_ms, audit=api.audit,
            tenant_deleted=self._tenant_deleted,
            device_deleted=lambda device_id: api.device_changed(device_id, Ending.DEVICE_DELETED),
        )  # fmt: skip
        self.customers = CustomersApi(store=store, access=self.access, now_ms=api.now_ms, audit=api.audit)
        self.authorities = AuthoritiesApi(
            store=store, now_ms=api.now_ms, device_changed=api.device_changed, public_url=api.public_url,
            on_new_authority=api.certificates.anchors_changed, audit=api.audit,
        )  # fmt: skip
        api.here.on_logins(self.access.poll)
        api.here.on_revoked(self.authorities.revocations_changed)
        self.imports = ImportsApi(store=store, api=api)
        self.manifests = ManifestsApi(store=store, audit=api.audit, now_ms=api.now_ms)
        self.labels = LabelsApi(store=store, manifests=self.manifests)
        self.local_access = LocalAccess()
        self.lists = ListsApi(store)
        self.replacements = ReplacementApi(store=store, api=api, now_ms=api.now_ms)
        self.trials = TrialsApi(store=store, api=api, now_ms=api.now_ms)
        self.audit = AuditApi(store)
        self.overview = OverviewApi(
            store=store, now_ms=api.now_ms, events=api.events,
            system=SystemView(metrics=api.metrics, health=api.health, now_ms=api.now_ms),
            whereabouts=api.others.whereabouts,
        )  # fmt: skip
        self.events = api.events
        self.rpc = api.rpc
        self.whereabouts = api.others.whereabouts
        self.keys = KeysApi(store=store, audit=api.audit, now_ms=api.now_ms)
        self.approvals = ApprovalsApi(store=store, audit=api.audit, now_ms=api.now_ms)
        self._tokens = Tokens(jwt_key)
        self._failed_logins = LineRation(MAX_FAILED_LOGINS)

    def _tenant_deleted(self) -> None:
        self._api.profile_changed()
        self._api.certificates.anchors_changed()

    async def attempt(self, operator: Operator, ref: str) -> Attempt:
        attempt = await self._decide(inventory.attempt, ref.upper())  # through the writer: it may just be on its way
        if attempt is None or attempt.tenant_id not in (None, operator.tenant_id):
            raise NotFound(f"No attempt has the reference '{ref}'; it is mistyped, or expired from the log")
        return attempt

    async def attempts(self, operator: Operator, limit: int) -> list[Attempt]:
        """The tenant's, and those of nobody's keys for whom `Operator.sees_unassigned`."""
        return await self._read(inventory.attempts, operator.tenant_id, operator.sees_unassigned, limit)
