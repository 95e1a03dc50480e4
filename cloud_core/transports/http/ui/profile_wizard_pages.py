"""Making a device profile in steps. What was typed travels in hidden fields: the core keeps nothing until the end."""

from __future__ import annotations

from typing import Any

from twisted.internet.threads import deferToThread

from cloud_core.core import inventory
from cloud_core.core.certificates import chain_profiles
from cloud_core.core.keys import provision_keys
from cloud_core.core.people.permissions import Act
from cloud_core.model import DeviceProfile, ProvisionKey
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.ui import profile_forms
from cloud_core.transports.http.ui.connecting import Connecting
from cloud_core.transports.http.ui.pages import Redirect, Shown, page, pages_app
from cloud_core.transports.http.ui.profile_certificates import authority_of, pem_of, try_pattern
from cloud_core.transports.http.ui.profile_forms import STEP_NAMES, Values
from cloud_core.transports.http.ui.visits import PATH, Visitor
from shared.errors import InvalidArgument

NEW = f"{PATH}/profiles/new"
_CHECKED = STEP_NAMES[:-2]  # those with fields of their own


class ProfileWizardPages(Connecting):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(NEW, methods=["GET"])
    @page
    async def start(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.ADMINISTER)
        return await self._step(request, visitor, profile_forms.start_values(), "details")

    @app.route(NEW, methods=["POST"])
    @page
    async def go(self, request: Any) -> Shown:
        """`step`: the one shown; `go`: the one that is wanted, `next`, `create`, or `try` for the name rule."""
        visitor, form = await self.sender(request, Act.ADMINISTER)
        values, wanted = profile_forms.typed(form), form["go"] or "next"
        step = form["step"] if form["step"] in STEP_NAMES[:-1] else "details"
        if wanted == "try":
            tried = try_pattern(values["pattern"], form["try_name"])
            return await self._step(request, visitor, values, step, tried=tried, try_name=form["try_name"])
        place = STEP_NAMES.index(step)
        if wanted in STEP_NAMES[:place]:  # back: what is wrong here may be mended later
            return await self._step(request, visitor, values, wanted)
        try:
            if wanted == "create":
                return await self._create(request, visitor, values)
            await self._check(visitor, values, step)
        except _Wrong as wrong:
            return await self._step(request, visitor, values, wrong.step, problem=str(wrong))
        return await self._step(request, visitor, values, STEP_NAMES[min(place + 1, len(_CHECKED))])

    async def _check(self, visitor: Visitor, values: Values, step: str) -> None:
        """What a step's own fields say. Raises: _Wrong."""
        try:
            if step == "details":
                inventory.check_profile_name(values["name"])
                names = await self._admin.profile_names(visitor.operator)
                if any(name == values["name"] for _, name in names):
                    raise InvalidArgument("Device profile with such name already exists!")
            elif step == "strategy":
                if values["strategy"] not in profile_forms.STRATEGY:
                    raise InvalidArgument("Choose one of the strategies.")
            else:
                await self._check_body(visitor, values, step)
        except InvalidArgument as error:
            raise _Wrong(step, str(error)) from error

    async def _check_body(self, visitor: Visitor, values: Values, step: str) -> None:
        if step == "access":  # whatever the rules say, which come after it
            values = values | {name: profile_forms.start_values()[name] for name in profile_forms.FIELDS["rules"]}
        body = profile_forms.body_of(await self._with_pem(visitor, values))
        _, provision, document = shapes.profile_parts(body)
        if step == "access" and profile_forms.is_by_chain(values):
            await deferToThread(chain_profiles.checked, provision, document, self._admin.now_ms())
        if step == "rules" and profile_forms.wants_key(values):
            provision_keys.check_name(profile_forms.key_name(values))
            provision_keys.check_rules(profile_forms.key_rules(values))

    async def _with_pem(self, visitor: Visitor, values: Values) -> Values:
        """With the certificate of the CA that was chosen by its name."""
        if not profile_forms.is_by_chain(values):
            return values
        return values | {"pem": pem_of(values, await self._admin.authorities.all(visitor.operator))}

    async def _create(self, request: Any, visitor: Visitor, values: Values) -> Shown:
        """Every step once more, then the profile, then its key with limits, if any is wanted. Raises: _Wrong."""
        for step in _CHECKED:
            await self._check(visitor, values, step)
        body = profile_forms.body_of(await self._with_pem(visitor, values))
        name, provision, document = shapes.profile_parts(body)
        try:
            made = await self._admin.save_profile(visitor.operator, None, name, provision, document, None)
        except InvalidArgument as error:
            raise _Wrong(profile_forms.step_of_problem(str(error), values), str(error)) from error
        if profile_forms.wants_key(values):
            key = await self._add_key(visitor, made, values)
            # nothing else ever shows that key and its secret
            return await self._connect(request, visitor, made, key=key)
        return Redirect(f"{PATH}/profiles/{made.uuid}/connect", f"The profile {made.name} is ready.")

    async def _add_key(self, visitor: Visitor, made: DeviceProfile, values: Values) -> ProvisionKey:
        name, rules = profile_forms.key_name(values), profile_forms.key_rules(values)
        return await self._admin.keys.add(visitor.operator, made.uuid, name, "", "", rules)

    async def _step(self, request: Any, visitor: Visitor, values: Values, step: str, **more: Any) -> str:
        """A page of the wizard, with the fields of all others hidden in it."""
        authorities = await self._admin.authorities.all(visitor.operator) if step in ("access", "review") else []
        shown = profile_forms.FIELDS[step]
        place = STEP_NAMES.index(step)
        context = {"problem": "", "tried": None, "try_name": ""} | more
        return self.show(
            request, visitor, "profile_new.html", status=400 if context["problem"] else 200, title="New device profile",
            values=values, step=step, steps=profile_forms.STEPS, place=place,
            back=STEP_NAMES[place - 1] if place else "",
            hidden=[(name, value) for name, value in values.items() if name not in shown],
            strategies=profile_forms.STRATEGIES, strategy=profile_forms.STRATEGY.get(values["strategy"]),
            by_chain=profile_forms.is_by_chain(values), authorities=[one.name for one in authorities],
            authority=authority_of(pem_of(values, authorities)) if step == "review" else None,
            wants_key=profile_forms.wants_key(values), key_name=profile_forms.key_name(values), **context,
        )  # fmt: skip


class _Wrong(Exception):
    """A problem, and the step that it is about."""

    def __init__(self, step: str, problem: str) -> None:
        super().__init__(profile_forms.plain(problem))
        self.step = step
