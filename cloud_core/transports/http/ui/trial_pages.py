"""Trying a profile out: a provision request in the place of a device, and what arrives as devices are powered on."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from cloud_core.core.people.permissions import Act
from cloud_core.core.tokens import new_reference
from cloud_core.model import Device, DeviceProfile, ProvisionStrategy
from cloud_core.transports.http.calls import address_of, query, uuid_of
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.ui import profile_forms
from cloud_core.transports.http.ui.connecting import Connecting
from cloud_core.transports.http.ui.pages import Redirect, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH, Visitor
from shared.errors import InvalidArgument, NotAuthenticated, NotAuthorized, NotFound, PlatformError

ONE = f"{PATH}/profiles/<uuid>/test"
SHOWN_ATTEMPTS = 15
VALUES: dict[str, Any] = {"temperature": 21.5}


class TrialPages(Connecting):
    """Routes by their whole paths; `UiRoutes` mounts them. What became of a trial is in the page's address."""

    app = pages_app()

    @app.route(ONE, methods=["GET"])
    @page
    async def test(self, request: Any, uuid: str) -> Shown:
        """`device`: one that came in; `ref`: of a refusal."""
        visitor = await self.visitor(request, Act.READ)
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        device, ref = query(request, "device"), query(request, "ref")
        return await self._page(
            request, visitor, profile, device=await self._device(visitor, profile, device) if device else None, ref=ref
        )

    @app.route(ONE, methods=["POST"])
    @page
    async def run(self, request: Any, uuid: str) -> Shown:
        visitor, form = await self.sender(request, Act.WRITE_DEVICES)
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        try:
            trial = await self._admin.trials.provision(
                visitor.operator, profile.uuid, form["name"], address_of(request)
            )
        except InvalidArgument as error:
            return await self._page(request, visitor, profile, name=form["name"], problem=str(error))
        if trial.device is not None:
            return Redirect(_at(profile, device=str(trial.device.uuid)))
        return Redirect(_at(profile, ref=trial.ref, name=form["name"][:255]))

    @app.route(f"{ONE}/reveal", methods=["POST"])
    @page
    async def reveal(self, request: Any, uuid: str) -> Shown:
        """The page with the device's credentials."""
        visitor, profile, device = await self._chosen(request, uuid, Act.READ_CREDENTIALS)
        stored = await self._admin.credentials(visitor.operator, device.uuid)
        shown = shapes.credentials_json(stored, device.uuid)
        return await self._page(request, visitor, profile, device=device, credentials=shown)

    @app.route(f"{ONE}/telemetry", methods=["POST"])
    @page
    async def send(self, request: Any, uuid: str) -> Shown:
        visitor, profile, device = await self._chosen(request, uuid, Act.WRITE_DATA)
        try:
            await self._admin.trials.send(visitor.operator, device, VALUES)
        except (InvalidArgument, NotAuthenticated) as error:
            problem = "The device's credentials are not valid any more."
            problem = problem if isinstance(error, NotAuthenticated) else str(error)
            return await self._page(request, visitor, profile, device=device, problem=problem)
        return Redirect(_at(profile, device=str(device.uuid)), "The telemetry value has arrived.")

    @app.route(f"{ONE}/delete", methods=["POST"])
    @page
    async def delete(self, request: Any, uuid: str) -> Shown:
        visitor, profile, device = await self._chosen(request, uuid, Act.WRITE_DEVICES)
        await self._admin.delete_device(visitor.operator, device.uuid)
        return Redirect(_at(profile), f"The device {device.name} is deleted.")

    @app.route(f"{ONE}/<any(reveal, telemetry, delete):_action>", methods=["GET"])
    @page
    async def back(self, request: Any, uuid: str, _action: str) -> Shown:
        """Whoever loads again what a form has shown, or changes how the page looks."""
        await self.visitor(request, Act.READ)
        return Redirect(f"{PATH}/profiles/{uuid_of(uuid)}/test")

    async def _chosen(self, request: Any, uuid: str, act: Act) -> tuple[Visitor, DeviceProfile, Device]:
        """Who sends the form, and the device that it is about. Raises: NotFound."""
        visitor, form = await self.sender(request, act)
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        return visitor, profile, await self._device(visitor, profile, form["device"])

    async def _device(self, visitor: Visitor, profile: DeviceProfile, uuid: str) -> Device:
        device = await self._admin.device(visitor.operator, uuid_of(uuid))
        if device.profile_id != profile.id:
            raise NotFound("That device has another profile")
        return device

    async def _page(
        self, request: Any, visitor: Visitor, profile: DeviceProfile, *, device: Device | None = None, ref: str = "",
        name: str = "", problem: str = "", credentials: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        strategy = profile.provision.strategy
        return self.show(
            request, visitor, "profile_test.html", status=400 if problem else 200, title=f"Test · {profile.name}",
            profile=profile, device=device, refusal=await self._refusal(visitor, ref), problem=problem,
            credentials=credentials, latest=await self._latest(visitor, device),
            device_name=name or query(request, "name") or _proposed(profile),
            attempts=await self._attempts(visitor, profile, SHOWN_ATTEMPTS),
            by_chain=strategy.value == profile_forms.CHAIN, is_disabled=strategy is ProvisionStrategy.DISABLED,
            needs_device=strategy is ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES, values=VALUES,
        )  # fmt: skip

    async def _refusal(self, visitor: Visitor, ref: str) -> dict[str, Any] | None:
        if not ref:
            return None
        try:
            return shapes.attempt_json(await self._admin.attempt(visitor.operator, ref[:64]))
        except (NotFound, NotAuthorized) as error:
            return _unknown(ref[:64], error)

    async def _latest(self, visitor: Visitor, device: Device | None) -> dict[str, Any]:
        return {} if device is None else await self._admin.latest(visitor.operator, device.uuid, list(VALUES))


def _unknown(ref: str, error: PlatformError) -> dict[str, Any]:
    return {"ref": ref, "outcome": "", "stage": "", "detail": str(error), "fix": "Try once more.", "deviceName": ""}


def _proposed(profile: DeviceProfile) -> str:
    """A name that is free; a device that was made before has its own."""
    if profile.provision.strategy is ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES:
        return ""
    return f"test-{new_reference().lower()}"


def _at(profile: DeviceProfile, **parameters: str) -> str:
    url = f"{PATH}/profiles/{profile.uuid}/test"
    return f"{url}?{urlencode(parameters)}" if parameters else url
