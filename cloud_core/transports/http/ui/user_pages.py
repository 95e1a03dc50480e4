"""Users: who they are, adding them, their passwords."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from cloud_core.core.people.permissions import CUSTOMER_USER, SYS_ADMIN, TENANT_ADMIN, Act
from cloud_core.core.people.users import MIN_PASSWORD_CHARS, PlacedUser
from cloud_core.model import User, UserRole
from cloud_core.transports.http.calls import query, uuid_of
from cloud_core.transports.http.ui.fields import said
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shown, page, page_from, pager_of, pages_app
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.errors import InvalidArgument, PlatformError

ROLES = (
    (UserRole.ADMINISTRATOR.value, "Administrator: everything"),
    (UserRole.OPERATOR.value, "Operator: devices, imports, data and commands"),
    (UserRole.VIEWER.value, "Viewer: looks, changes nothing"),
)
_URL = f"{PATH}/users"
_NOTHING = Form({})


class UserPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(_URL, methods=["GET"])
    @page
    async def users(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.ADMINISTER_USERS)
        wanted = page_from(request, sort="email", descending=False, among=("email", "role", "createdTime"))
        found, total = await self._admin.users.list(visitor.operator, wanted)
        return self.show(
            request, visitor, "users.html", title="Users", pager=pager_of(request, wanted, total),
            users=[(one.user, role_shown(one.user), one.customer_uuid) for one in found],
        )  # fmt: skip

    @app.route(f"{_URL}/new", methods=["GET"])
    @page
    async def fill_in(self, request: Any) -> Shown:
        """With `customer`: a user of that customer."""
        visitor = await self.visitor(request, Act.ADMINISTER_USERS)
        return await self._form(request, visitor, Form({"customer": [query(request, "customer")]}))

    @app.route(f"{_URL}/new", methods=["POST"])
    @page
    async def add(self, request: Any) -> Shown:
        """A password that is made here is shown once."""
        visitor, form = await self.sender(request, Act.ADMINISTER_USERS)
        try:
            saved = await self._admin.users.save(visitor.operator, members_of(visitor, form))
        except PlatformError as error:
            return await self._form(request, visitor, form, problem=said(error))
        if not saved.password:
            return Redirect(_URL, f"{saved.user.username} is added.")
        return self._once(request, visitor, saved.user, saved.password)

    async def _form(self, request: Any, visitor: Visitor, form: Form, problem: str = "") -> str:
        customer = None
        if form["customer"]:
            customer = await self._admin.customers.find(visitor.operator, uuid_of(form["customer"]))
        return self.show(
            request, visitor, "user_new.html", status=400 if problem else 200, title="Add a user", form=form,
            problem=problem, roles=ROLES, customer=customer, min_chars=MIN_PASSWORD_CHARS,
            is_system=visitor.operator.authority == SYS_ADMIN,
        )  # fmt: skip

    def _once(self, request: Any, visitor: Visitor, user: User, password: str) -> str:
        return self.show(
            request, visitor, "shown_once.html", title=f"Password of {user.username}", secret=password,
            what="password", back=f"{_URL}/{user.uuid}",
        )  # fmt: skip

    @app.route(f"{_URL}/<uuid>", methods=["GET"])
    @page
    async def user(self, request: Any, uuid: str) -> Shown:
        visitor = await self.visitor(request, Act.ADMINISTER_USERS)
        return self._user(request, visitor, await self._admin.users.find(visitor.operator, uuid_of(uuid)))

    def _user(
        self, request: Any, visitor: Visitor, placed: PlacedUser, typed: Form = _NOTHING, problem: str = ""
    ) -> str:
        user = placed.user
        return self.show(
            request, visitor, "user.html", status=400 if problem else 200, title=user.username, user=user, roles=ROLES,
            role=role_shown(user), problem=problem, has_role=user.authority == TENANT_ADMIN,
            is_own=user.uuid == visitor.operator.user_uuid, customer_uuid=placed.customer_uuid,
            min_chars=MIN_PASSWORD_CHARS, typed=typed,
        )  # fmt: skip

    @app.route(f"{_URL}/<uuid>", methods=["POST"])
    @page
    async def change(self, request: Any, uuid: str) -> Shown:
        """Name and role; the user's logins end where one of them is another."""
        visitor, form = await self.sender(request, Act.ADMINISTER_USERS)
        placed = await self._admin.users.find(visitor.operator, uuid_of(uuid))
        try:
            saved = await self._admin.users.save(visitor.operator, changed_members(placed, form))
        except PlatformError as error:
            return self._user(request, visitor, placed, form, said(error))
        return Redirect(f"{_URL}/{saved.user.uuid}", f"{saved.user.username} is changed.")

    @app.route(f"{_URL}/<uuid>/password", methods=["POST"])
    @page
    async def set_password(self, request: Any, uuid: str) -> Shown:
        """Left empty, one is made and shown once; the user's logins end."""
        visitor, form = await self.sender(request, Act.ADMINISTER_USERS)
        placed = await self._admin.users.find(visitor.operator, uuid_of(uuid))
        given = form.raw("new_password") or None
        try:
            made = await self._admin.users.set_password(visitor.operator, placed.user.uuid, given)
        except InvalidArgument as error:
            return self._user(request, visitor, placed, form, said(error))
        if not made:
            return Redirect(f"{_URL}/{placed.user.uuid}", f"{placed.user.username} has another password now.")
        return self._once(request, visitor, placed.user, made)

    @app.route(f"{_URL}/<uuid>/delete", methods=["POST"])
    @page
    async def delete(self, request: Any, uuid: str) -> Shown:
        visitor, form = await self.sender(request, Act.ADMINISTER_USERS)
        placed = await self._admin.users.find(visitor.operator, uuid_of(uuid))
        try:
            await self._admin.users.delete(visitor.operator, placed.user.uuid)
        except InvalidArgument as error:
            return self._user(request, visitor, placed, form, said(error))
        return Redirect(_URL, f"{placed.user.username} is deleted.")


def role_shown(user: User) -> str:
    if user.authority == TENANT_ADMIN:
        return user.role.value.capitalize()
    return {SYS_ADMIN: "System administrator", CUSTOMER_USER: "Customer's user"}.get(user.authority, user.authority)


def members_of(visitor: Visitor, form: Form) -> dict[str, Any]:
    """What REST would be sent for a new user of the form."""
    authority = SYS_ADMIN if visitor.operator.authority == SYS_ADMIN else TENANT_ADMIN
    members: dict[str, Any] = {"email": form["email"], "authority": authority, "role": form["role"] or None}
    if form["customer"]:
        members |= {"authority": CUSTOMER_USER, "customerId": form["customer"]}
    if form.raw("new_password"):
        members["password"] = form.raw("new_password")
    return members


def changed_members(placed: PlacedUser, form: Form) -> dict[str, Any]:
    """What REST would be sent: all that stays as it is too."""
    user = placed.user
    return user.document | {
        "id": _text(user.uuid), "email": form["email"], "authority": user.authority,
        "role": form["role"] or user.role.value, "customerId": _text(placed.customer_uuid),
        "tenantId": _text(placed.tenant_uuid),
    }  # fmt: skip


def _text(uuid: UUID | None) -> str | None:
    return None if uuid is None else str(uuid)
