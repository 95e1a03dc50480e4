"""Device profiles: the list, one profile with its secret on request, editing, the default one, deleting."""

from __future__ import annotations

from typing import Any

from cloud_core.core.people.permissions import Act
from cloud_core.model import DeviceProfile
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.ui import profile_forms
from cloud_core.transports.http.ui.fields import version_of
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shown, page, page_from, pager_of, pages_app
from cloud_core.transports.http.ui.profile_certificates import authority_of
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.errors import InvalidArgument, VersionConflict

LIST = f"{PATH}/profiles"
CHANGED_MEANWHILE = (
    "Somebody else has changed this profile meanwhile. Open it in another tab to compare, then load this page again."
)


class ProfilePages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(LIST, methods=["GET"])
    @page
    async def list(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.READ)
        wanted = page_from(request, sort="name", descending=False, among=("name", "createdTime"))
        found, total = await self._admin.profiles(visitor.operator, wanted)
        counts = {}
        if visitor.may(Act.ADMINISTER):
            counts = await self._admin.keys.counts([one.id for one in found])
        return self.show(
            request, visitor, "profiles.html", title="Device profiles", profiles=found,
            pager=pager_of(request, wanted, total), counts=counts, strategies=profile_forms.STRATEGY,
        )  # fmt: skip

    @app.route(f"{LIST}/<uuid>", methods=["GET"])
    @page
    async def profile(self, request: Any, uuid: str) -> Shown:
        visitor = await self.visitor(request, Act.READ)
        return self._profile(request, visitor, await self._admin.profile(visitor.operator, uuid_of(uuid)))

    @app.route(f"{LIST}/<uuid>/reveal", methods=["POST"])
    @page
    async def reveal(self, request: Any, uuid: str) -> Shown:
        """The page with the provision secret."""
        visitor, _ = await self.sender(request, Act.READ_PROFILE_SECRETS)
        found = await self._admin.profile(visitor.operator, uuid_of(uuid))
        return self._profile(request, visitor, found, secret=found.provision.secret)

    @app.route(f"{LIST}/<uuid>/<any(reveal, default, delete):_action>", methods=["GET"])
    @page
    async def back(self, request: Any, uuid: str, _action: str) -> Shown:
        """Whoever loads again what a form has shown, or changes how the page looks."""
        await self.visitor(request, Act.READ)
        return Redirect(f"{LIST}/{uuid_of(uuid)}")

    def _profile(
        self, request: Any, visitor: Visitor, profile: DeviceProfile, *, secret: str = "", problem: str = ""
    ) -> str:
        by_chain = profile.provision.strategy.value == profile_forms.CHAIN
        return self.show(
            request, visitor, "profile.html", status=400 if problem else 200, title=profile.name, profile=profile,
            strategy=profile_forms.STRATEGY[profile.provision.strategy.value], by_chain=by_chain, secret=secret,
            settings=profile_forms.settings_of(profile.provision), problem=problem,
            authority=authority_of(profile.provision.secret) if by_chain else None,
            description=str(profile.document.get("description") or ""),
        )  # fmt: skip

    @app.route(f"{LIST}/<uuid>/default", methods=["POST"])
    @page
    async def make_default(self, request: Any, uuid: str) -> Shown:
        visitor, _ = await self.sender(request, Act.ADMINISTER)
        made = await self._admin.make_default_profile(visitor.operator, uuid_of(uuid))
        return Redirect(f"{LIST}/{made.uuid}", f"{made.name} is the default profile now.")

    @app.route(f"{LIST}/<uuid>/delete", methods=["POST"])
    @page
    async def delete(self, request: Any, uuid: str) -> Shown:
        visitor, _ = await self.sender(request, Act.ADMINISTER)
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        try:
            await self._admin.delete_profile(visitor.operator, profile.uuid)
        except InvalidArgument as error:
            problem = f"{error} Move or delete its devices first." if "referenced" in str(error) else str(error)
            return self._profile(request, visitor, profile, problem=problem)
        return Redirect(LIST, f"The profile {profile.name} is deleted.")

    # -- editing ----------------------------------------------------------------------------------

    @app.route(f"{LIST}/<uuid>/edit", methods=["GET"])
    @page
    async def edit(self, request: Any, uuid: str) -> Shown:
        visitor = await self.visitor(request, Act.ADMINISTER)
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        return await self._form(request, visitor, profile, profile_forms.values_of(profile), str(profile.version))

    @app.route(f"{LIST}/<uuid>/edit", methods=["POST"])
    @page
    async def save(self, request: Any, uuid: str) -> Shown:
        """What no field is for stays as it is; an empty secret keeps the one that is there."""
        visitor, form = await self.sender(request, Act.ADMINISTER)
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        values = profile_forms.edited(form)
        try:
            await self._save(visitor, profile, values, form)
        except (InvalidArgument, VersionConflict) as error:
            problem = CHANGED_MEANWHILE if isinstance(error, VersionConflict) else profile_forms.plain(str(error))
            return await self._form(request, visitor, profile, values, form["version"], problem)
        return Redirect(f"{LIST}/{profile.uuid}", f"The profile {values['name']} is saved.")

    async def _save(self, visitor: Visitor, profile: DeviceProfile, values: profile_forms.Values, form: Form) -> None:
        """Raises: InvalidArgument, VersionConflict."""
        known = shapes.profile_json(profile, visitor.operator.tenant_uuid)
        body = profile_forms.with_advanced(profile_forms.body_of(values, known), values)
        name, provision, document = shapes.profile_parts(body)
        version = version_of(form)
        known_version = -1 if version is None else version  # -1: that of no profile
        await self._admin.save_profile(visitor.operator, profile.uuid, name, provision, document, known_version)

    async def _form(
        self, request: Any, visitor: Visitor, profile: DeviceProfile, values: profile_forms.Values, version: str,
        problem: str = "",
    ) -> str:  # fmt: skip
        authorities = [one.name for one in await self._admin.authorities.all(visitor.operator)]
        named = [values["authority"]] if values["authority"] and values["authority"] not in authorities else []
        return self.show(
            request, visitor, "profile_edit.html", status=400 if problem else 200, title=f"Edit {profile.name}",
            profile=profile, values=values, version=version, problem=problem, strategies=profile_forms.STRATEGIES,
            transports=profile_forms.TRANSPORTS, authority_choices=[(one, one) for one in authorities + named],
        )  # fmt: skip
