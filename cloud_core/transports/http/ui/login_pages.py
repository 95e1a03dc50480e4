"""Logging in and out of the web UI, one's own account, and how pages look."""

from __future__ import annotations

from typing import Any

from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import address_of, query
from cloud_core.transports.http.ui.navigation import home_of
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH, forget, form_of, keep, keep_theme, visitor_of
from shared.errors import InvalidArgument, NotAuthenticated, PlatformError, RateLimited, Unavailable


class LoginPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(f"{PATH}/login", methods=["GET"])
    @page
    async def login(self, request: Any) -> Shown:
        """The form; whoever is logged in goes on at once."""
        try:
            visitor = await visitor_of(request, self._admin)
        except NotAuthenticated:
            return self._form(request, next_url=_own(query(request, "next")))
        return Redirect(_own(query(request, "next")) or home_of(visitor))

    @app.route(f"{PATH}/login", methods=["POST"])
    @page
    async def log_in(self, request: Any) -> Shown:
        form = await form_of(request)
        next_url = _own(form["next"])
        try:
            tokens = await self._admin.login(form["username"], form.raw("password"), address_of(request))
        except NotAuthenticated:
            problem = "This user name and password do not go together."
            return self._form(request, 401, problem=problem, username=form["username"], next_url=next_url)
        except (RateLimited, Unavailable) as error:
            return self._form(request, 429, problem=_wait(error), username=form["username"], next_url=next_url)
        keep(request, tokens)
        return Redirect(next_url or f"{PATH}/")  # which sends on whoever it is not for

    def _form(
        self, request: Any, status: int = 200, *, problem: str = "", username: str = "", next_url: str = ""
    ) -> str:
        return self.show_bare(
            request, "login.html", status=status, title="Log in", problem=problem, username=username,
            next_url=next_url,
        )  # fmt: skip

    @app.route(f"{PATH}/logout", methods=["POST"])
    @page
    async def log_out(self, request: Any) -> Shown:
        visitor, _ = await self.sender(request, Act.USE_OWN_LOGIN)
        await self._admin.logout(visitor.operator)
        forget(request)
        return Redirect(f"{PATH}/login")

    @app.route(f"{PATH}/theme", methods=["POST"])
    @page
    async def theme(self, request: Any) -> Shown:
        """Light, dark, or as the system has it."""
        form = await form_of(request)
        keep_theme(request, form["theme"])
        return Redirect(_own(form["back"]) or f"{PATH}/")

    @app.route(f"{PATH}/account", methods=["GET"])
    @page
    async def account(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.USE_OWN_LOGIN)
        return self.show(request, visitor, "account.html", title="Account", problem="")

    @app.route(f"{PATH}/account/password", methods=["POST"])
    @page
    async def change_password(self, request: Any) -> Shown:
        """All other logins of the user end."""
        visitor, form = await self.sender(request, Act.USE_OWN_LOGIN)
        try:
            if form.raw("new_password") != form.raw("repeated_password"):
                raise InvalidArgument("The two new passwords differ.")
            tokens = await self._admin.change_password(
                visitor.operator, form.raw("current_password"), form.raw("new_password"), address_of(request)
            )
        except (InvalidArgument, RateLimited, Unavailable) as error:
            problem = _wait(error) if error.retry_after_s else str(error)
            return self.show(request, visitor, "account.html", status=400, title="Account", problem=problem)
        keep(request, tokens)
        return Redirect(f"{PATH}/account", "Your password is changed; all your other logins have ended.")


def _wait(error: PlatformError) -> str:
    seconds = max(1, round(error.retry_after_s or 1))
    return f"Too many attempts. Try again in {seconds} s."


def _own(url: str) -> str:
    """An address within these pages; anything else counts as none, so that nobody is sent elsewhere."""
    is_own = url.startswith(f"{PATH}/") and not any(one in url for one in ("\\", "\r", "\n", "//"))
    return url if is_own else ""
