"""The secrets of a device profile: rotation with an overlap, who has followed it, and further provision keys."""

from __future__ import annotations

from typing import Any

from cloud_core.core.people.permissions import Act
from cloud_core.core.provisioning import hint_of
from cloud_core.model import DeviceProfile, ProvisionKey, ProvisionStrategy
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.ui.key_forms import OVERLAPS, overlap_of, rules_of, seen_of, standing, values_of
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shared, Shown, page, pages_app
from cloud_core.transports.http.ui.rate_chart import share
from cloud_core.transports.http.ui.visits import PATH, Visitor
from shared.errors import InvalidArgument, VersionConflict

KEYS = f"{PATH}/profiles/<uuid>/keys"
CHANGED_MEANWHILE = (
    "Somebody else has changed this key meanwhile. Open it in another tab to compare, then load this page again."
)


class KeyPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._keys = shared.admin.keys
        self._overview = shared.admin.overview

    @app.route(KEYS, methods=["GET"])
    @page
    async def keys(self, request: Any, uuid: str) -> Shown:
        visitor = await self.visitor(request, Act.ADMINISTER)
        return await self._list(request, visitor, uuid)

    @app.route(f"{KEYS}/reveal", methods=["POST"])
    @page
    async def reveal(self, request: Any, uuid: str) -> Shown:
        """The profile's own secret; those of further keys are shown once, when they are made."""
        visitor, _ = await self.sender(request, Act.READ_PROFILE_SECRETS)
        return await self._list(request, visitor, uuid, reveals=True)

    @app.route(f"{KEYS}/rotate", methods=["POST"])
    @page
    async def rotate(self, request: Any, uuid: str) -> Shown:
        """Shows the new secret."""
        visitor, form = await self.sender(request, Act.ADMINISTER)
        try:
            overlap_s = overlap_of(form["overlap"])
            rotated = await self._keys.rotate(visitor.operator, uuid_of(uuid), overlap_s)
        except InvalidArgument as error:
            return await self._list(request, visitor, uuid, problem=str(error), overlap=form["overlap"])
        return self.show(
            request, visitor, "key_shown.html", title="New secret", profile=rotated, key_name="",
            key=rotated.provision.key, secret=rotated.provision.secret, is_rotated=True,
            until_ms=rotated.provision.former_until_ms,
        )  # fmt: skip

    @app.route(f"{KEYS}/new", methods=["GET"])
    @page
    async def new(self, request: Any, uuid: str) -> Shown:
        visitor = await self.visitor(request, Act.ADMINISTER)
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        return self._form(request, visitor, profile, {})

    @app.route(KEYS, methods=["POST"])
    @page
    async def add(self, request: Any, uuid: str) -> Shown:
        """Shows key and secret, this once."""
        visitor, form = await self.sender(request, Act.ADMINISTER)
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        try:
            made = await self._keys.add(
                visitor.operator, profile.uuid, form["name"], form["provisionDeviceKey"],
                form["provisionDeviceSecret"], rules_of(form),
            )  # fmt: skip
        except InvalidArgument as error:
            return self._form(request, visitor, profile, form.values, problem=str(error))
        return self.show(
            request, visitor, "key_shown.html", title="New provision key", profile=profile, key_name=made.name,
            key=made.key, secret=made.secret, until_ms=0, is_rotated=False,
        )  # fmt: skip

    @app.route(f"{KEYS}/<key>", methods=["GET"])
    @page
    async def one(self, request: Any, uuid: str, key: str) -> Shown:
        visitor = await self.visitor(request, Act.ADMINISTER)
        profile, known = await self._find(visitor, uuid, key)
        return self._form(request, visitor, profile, values_of(known.rules), known=known)

    @app.route(f"{KEYS}/<key>", methods=["POST"])
    @page
    async def change(self, request: Any, uuid: str, key: str) -> Shown:
        visitor, form = await self.sender(request, Act.ADMINISTER)
        profile, known = await self._find(visitor, uuid, key)
        try:
            if form["seen"] != seen_of(known.rules):
                raise VersionConflict
            rules = rules_of(form, known.rules)
            await self._keys.change(visitor.operator, profile.uuid, known.uuid, rules, None, seen=known.rules)
        except (InvalidArgument, VersionConflict) as error:
            problem = CHANGED_MEANWHILE if isinstance(error, VersionConflict) else str(error)
            return self._form(request, visitor, profile, form.values, known=known, problem=problem, seen=form["seen"])
        return _done(profile, f"The provision key {known.name} is changed.")

    @app.route(f"{KEYS}/<key>/enable", methods=["POST"])
    @page
    async def enable(self, request: Any, uuid: str, key: str) -> Shown:
        return await self._switch(request, uuid, key, is_enabled=True)

    @app.route(f"{KEYS}/<key>/disable", methods=["POST"])
    @page
    async def disable(self, request: Any, uuid: str, key: str) -> Shown:
        return await self._switch(request, uuid, key, is_enabled=False)

    async def _switch(self, request: Any, uuid: str, key: str, *, is_enabled: bool) -> Shown:
        visitor, _ = await self.sender(request, Act.ADMINISTER)
        profile, known = await self._find(visitor, uuid, key)
        await self._keys.change(visitor.operator, profile.uuid, known.uuid, None, is_enabled)
        return _done(profile, f"The provision key {known.name} is {'enabled' if is_enabled else 'disabled'}.")

    @app.route(f"{KEYS}/<key>/delete", methods=["POST"])
    @page
    async def delete(self, request: Any, uuid: str, key: str) -> Shown:
        visitor, _ = await self.sender(request, Act.ADMINISTER)
        profile, known = await self._find(visitor, uuid, key)
        await self._keys.delete(visitor.operator, profile.uuid, known.uuid)
        return _done(profile, f"The provision key {known.name} is deleted.")

    async def _find(self, visitor: Visitor, uuid: str, key: str) -> tuple[DeviceProfile, ProvisionKey]:
        """Raises: NotFound."""
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        return profile, await self._keys.find(visitor.operator, profile.uuid, uuid_of(key))

    async def _list(
        self, request: Any, visitor: Visitor, uuid: str, *, problem: str = "", reveals: bool = False,
        overlap: str = "",
    ) -> str:  # fmt: skip
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        keys = await self._keys.all(visitor.operator, profile.uuid)
        adopted = await self._keys.adoption(visitor.operator, profile.uuid)
        now_ms, provision = self._overview.now_ms(), profile.provision
        return self.show(
            request, visitor, "keys.html", status=400 if problem else 200, title=f"Provision keys of {profile.name}",
            profile=profile, keys=[(one, standing(one, now_ms), hint_of(one.key)) for one in keys], adopted=adopted,
            problem=problem, secret=provision.secret if reveals else "", overlaps=OVERLAPS, overlap=overlap,
            share=share, has_own=bool(provision.key and provision.secret),
            is_by_chain=provision.strategy is ProvisionStrategy.X509_CERTIFICATE_CHAIN,
        )  # fmt: skip

    def _form(
        self, request: Any, visitor: Visitor, profile: DeviceProfile, values: dict[str, str], *,
        known: ProvisionKey | None = None, problem: str = "", seen: str | None = None,
    ) -> str:  # fmt: skip
        """Secrets that were typed are not shown again."""
        title = f"Provision key {known.name}" if known is not None else "New provision key"
        return self.show(
            request, visitor, "key_form.html", status=400 if problem else 200, title=title, profile=profile,
            values=values, known=known, problem=problem,
            seen=seen_of(known.rules) if seen is None and known is not None else seen,
        )  # fmt: skip


def _done(profile: DeviceProfile, said: str) -> Redirect:
    return Redirect(f"{PATH}/profiles/{profile.uuid}/keys", said)
