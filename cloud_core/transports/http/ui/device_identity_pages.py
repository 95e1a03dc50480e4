"""What a device logs in with, and how it came in."""

from __future__ import annotations

from typing import Any

import msgspec

from cloud_core.core.lists import DeviceView
from cloud_core.core.people.permissions import Act
from cloud_core.core.replacement import Replacement
from cloud_core.core.tokens import new_secret
from cloud_core.model import StoredCredentials
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.ui.device_frame import DeviceTabs, device_url
from cloud_core.transports.http.ui.fields import version_of
from cloud_core.transports.http.ui.pages import Redirect, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.credentials import AccessToken, Credentials, CredentialsType, MqttBasic, credentials_id, credentials_type
from shared.errors import InvalidArgument, PlatformError

MAX_ATTEMPTS = 50
_TAB = f"{PATH}/devices/<uuid>/<any(credentials, provisioning):tab>"
KINDS = {
    CredentialsType.ACCESS_TOKEN: "Access token", CredentialsType.MQTT_BASIC: "MQTT user name and password",
    CredentialsType.X509_CERTIFICATE: "X.509 certificate",
}  # fmt: skip


class DeviceIdentityPages(DeviceTabs):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    # -- credentials ------------------------------------------------------------------------------

    @app.route(f"{PATH}/devices/<uuid>/credentials", methods=["GET"])
    @page
    async def credentials(self, request: Any, uuid: str) -> Shown:
        """What is secret of them stays hidden."""
        visitor = await self.visitor(request, Act.READ_CREDENTIALS)
        return await self._credentials(request, visitor, await self.view(visitor, uuid))

    @app.route(f"{PATH}/devices/<uuid>/credentials/reveal", methods=["POST"])
    @page
    async def reveal(self, request: Any, uuid: str) -> Shown:
        visitor, _ = await self.sender(request, Act.READ_CREDENTIALS)
        return await self._credentials(request, visitor, await self.view(visitor, uuid), is_revealed=True)

    @app.route(f"{PATH}/devices/<uuid>/credentials", methods=["POST"])
    @page
    async def replace_credentials(self, request: Any, uuid: str) -> Shown:
        """The device's connections end, and the old credentials with them."""
        visitor, form = await self.sender(request, Act.WRITE_DEVICES)
        view = await self.view(visitor, uuid)
        try:
            wanted = credentials_from(form)
            await self._admin.save_credentials(
                visitor.operator, view.device.uuid, wanted, known_uuid=uuid_of(form["known"]), version=version_of(form)
            )
        except PlatformError as error:
            return await self._credentials(request, visitor, view, form=form, problem=str(error))
        url = device_url(view.device.uuid, "credentials")
        return Redirect(url, "The new credentials are stored; the old ones open nothing any more.")

    async def _credentials(
        self, request: Any, visitor: Visitor, view: DeviceView, *, is_revealed: bool = False,
        form: Form | None = None, problem: str = "",
    ) -> Shown:  # fmt: skip
        stored = await self._admin.credentials(visitor.operator, view.device.uuid)
        kept = {} if form is None else form.values
        secret = ("token", "certificate") if problem else ()
        return self.show_tab(
            request, visitor, view, "credentials", status=400 if problem else 200, problem=problem, stored=stored,
            kind=KINDS[credentials_type(stored.credentials)], wanted=kept.get("kind", ""),
            facts=facts_of(stored, is_revealed=is_revealed), is_revealed=is_revealed, has_secret=has_secret(stored),
            values={name: kept.get(name, "") for name in ("client_id", "user_name") if name not in secret},
        )  # fmt: skip

    @app.route(
        f"{PATH}/devices/<uuid>/<any(credentials, provisioning):tab>/<any(reveal, reset, replace):_deed>",
        methods=["GET"],
    )
    @page
    async def shown_again(self, request: Any, uuid: str, tab: str, _deed: str) -> Shown:
        """A page that a form has shown is loaded anew."""
        await self.visitor(request, Act.USE_OWN_LOGIN)
        return Redirect(device_url(uuid, tab))

    # -- provisioning -----------------------------------------------------------------------------

    @app.route(f"{PATH}/devices/<uuid>/provisioning", methods=["GET"])
    @page
    async def provisioning(self, request: Any, uuid: str) -> Shown:
        visitor = await self.visitor(request, Act.READ)
        return await self._provisioning(request, visitor, await self.view(visitor, uuid))

    @app.route(f"{PATH}/devices/<uuid>/provisioning/reset", methods=["POST"])
    @page
    async def reset(self, request: Any, uuid: str) -> Shown:
        visitor, form = await self.sender(request, Act.WRITE_DEVICES)
        view = await self.view(visitor, uuid)
        done = await self._admin.replacements.reset(
            visitor.operator, view.device.uuid, has_new_credentials=form.is_on("new_credentials"), is_plan=False
        )
        said = "The device may provision once more." if done.may_provision else f"It is reset, but: {done.note}"
        fresh = " It has a new access token." if done.has_new_credentials else ""
        return Redirect(device_url(view.device.uuid, "provisioning"), f"{said}{fresh}"[:400])

    @app.route(f"{PATH}/devices/<uuid>/provisioning/replace", methods=["POST"])
    @page
    async def replace(self, request: Any, uuid: str) -> Shown:
        """First what would happen; it happens where the form says so."""
        visitor, form = await self.sender(request, Act.WRITE_DEVICES)
        view = await self.view(visitor, uuid)
        is_plan = not form.is_on("go")
        try:
            if not form["unit"]:
                raise InvalidArgument("Give the name of the device that takes its place.")
            unit = await self._admin.device_by_name(visitor.operator, form["unit"])
            done = await self._admin.replacements.swap(visitor.operator, view.device.uuid, unit.uuid, is_plan=is_plan)
        except PlatformError as error:
            problem = _unit_problem(error, form["unit"])
            return await self._provisioning(request, visitor, view, problem=problem, unit=form["unit"])
        if is_plan:
            return await self._provisioning(request, visitor, view, plan=done, unit=done.unit.name)
        notice = f"The unit that was {done.unit.name[:100]} is {done.device.name[:100]} from now on."
        return Redirect(device_url(view.device.uuid, "provisioning"), notice)

    async def _provisioning(
        self, request: Any, visitor: Visitor, view: DeviceView, *, problem: str = "", unit: str = "",
        plan: Replacement | None = None,
    ) -> Shown:  # fmt: skip
        found = await self._admin.lists.attempts_of(visitor.operator, view.device.name, MAX_ATTEMPTS)
        profile = await self._admin.profile(visitor.operator, view.device.profile_uuid)
        rows = [shapes.attempt_json(one) for one in found]
        return self.show_tab(
            request, visitor, view, "provisioning", status=400 if problem else 200, attempts=rows, problem=problem,
            unit=unit, plan=plan, profile=profile, most=MAX_ATTEMPTS,
        )  # fmt: skip


def credentials_from(form: Form) -> Credentials:
    """By REST's rules. Raises: InvalidArgument."""
    kind = form["kind"]
    body: dict[str, Any] = {"credentialsType": kind}
    if kind == CredentialsType.ACCESS_TOKEN:
        body["credentialsId"] = form["token"] or new_secret()
    elif kind == CredentialsType.MQTT_BASIC:
        members = {
            "clientId": form["client_id"], "userName": form["user_name"], "password": form.raw("mqtt_password"),
        }  # fmt: skip
        body["credentialsValue"] = msgspec.json.encode(members).decode()
    else:
        body["credentialsValue"] = form["certificate"]
    return shapes.credentials_from(body)


def has_secret(stored: StoredCredentials) -> bool:
    match stored.credentials:
        case AccessToken():
            return True
        case MqttBasic(_, _, password):
            return bool(password)
        case _:
            return False


def facts_of(stored: StoredCredentials, *, is_revealed: bool) -> list[tuple[str, str, bool]]:
    """Title, text, and whether there is something to copy; dots in the place of secrets."""

    def secret(text: str) -> tuple[str, bool]:
        return (text, True) if is_revealed else (shapes.HIDDEN, False)

    match stored.credentials:
        case AccessToken(token):
            return [("Access token", *secret(token))]
        case MqttBasic(client_id, username, password):
            return [
                ("Client id", client_id or "any", bool(client_id)), ("User name", username or "any", bool(username)),
                ("Password", *(secret(password) if password else ("any", False))),
            ]  # fmt: skip
        case certificate:
            return [("Id", credentials_id(certificate), True), ("Certificate", certificate.certificate, True)]


def _unit_problem(error: PlatformError, name: str) -> str:
    if "is not found" in str(error):
        return f"There is no device '{name[:255]}'. Give the name that the new unit has registered with."
    return str(error)
