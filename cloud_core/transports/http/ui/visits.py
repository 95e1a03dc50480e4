"""Who looks at a page: the login in its cookies, and the proof that a form was the page's own.

Cookies are HttpOnly and SameSite=Lax, Secure over TLS. A form carries a token made from its login, which no other
site can read, and a browser that says where a form comes from (`Sec-Fetch-Site`, `Origin`) must name this site.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.logins import REFRESH_S, Operator
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import raw_body
from shared.errors import MalformedRequest, NotAuthenticated, NotAuthorized

TOKEN, REFRESH, THEME, NOTICE = b"muster_token", b"muster_refresh", b"muster_theme", b"muster_notice"
PATH = "/ui"
THEMES = ("auto", "light", "dark")
FORM_TOKEN = "form_token"
MAX_FORM_BYTES, MAX_FIELDS = 262_144, 2_000
_YEAR_S = 31_536_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Somebody logged in, who looks at a page."""

    operator: Operator
    form_token: str
    theme: str = "auto"

    def may(self, act: Act | str) -> bool:
        """Templates name acts by their words."""
        return self.operator.may(act if isinstance(act, Act) else Act[act])


@dataclass(frozen=True, slots=True)
class Form:
    """Fields of a form that was sent; the last of a name counts, `all_of` has every one."""

    fields: dict[str, list[str]]

    def __getitem__(self, name: str) -> str:
        """Without blanks around it; empty where it was not sent."""
        return self.raw(name).strip()

    def raw(self, name: str) -> str:
        """As it was typed: for passwords."""
        return self.fields.get(name, [""])[-1]

    def all_of(self, name: str) -> list[str]:
        return self.fields.get(name, [])

    def is_on(self, name: str) -> bool:
        """Of a checkbox."""
        return bool(self[name])

    @property
    def values(self) -> dict[str, str]:
        """To show what was typed again; passwords and tokens are not among it."""
        return {name: found[-1] for name, found in self.fields.items() if name != FORM_TOKEN and "password" not in name}


async def visitor_of(request: Any, admin: AdminApi) -> Visitor:  # Any: as in `calls`
    """By the cookies; a login whose access token is over goes on with its refresh token.

    Raises: NotAuthenticated.
    """
    try:
        operator = admin.operator(_cookie(request, TOKEN))
    except NotAuthenticated:
        refresh_token = _cookie(request, REFRESH)
        if not refresh_token:
            raise
        tokens = await admin.refresh(refresh_token)
        keep(request, tokens)
        operator = admin.operator(tokens["token"])
    return Visitor(operator=operator, form_token=admin.access.form_token(operator), theme=theme_of(request))


def token_of(request: Any) -> str:
    """The access token in the cookies; empty without one."""
    return _cookie(request, TOKEN)


async def form_of(request: Any, visitor: Visitor | None = None) -> Form:
    """The fields of an urlencoded form. Without a visitor only the site that it came from is checked: at the login.

    Raises: MalformedRequest, NotAuthorized, RequestTooLarge.
    """
    check_site(request)
    try:
        text = raw_body(request, MAX_FORM_BYTES).decode()
        form = Form(parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
    except (UnicodeDecodeError, ValueError) as error:
        raise MalformedRequest("The form could not be read") from error
    if visitor is not None:
        check_form_token(form[FORM_TOKEN], visitor)
    return form


def check_form_token(sent: str, visitor: Visitor) -> None:
    """Raises: NotAuthorized."""
    if not hmac.compare_digest(sent.encode(), visitor.form_token.encode()):
        raise NotAuthorized("This form belongs to another login; load the page again")


def check_site(request: Any) -> None:
    """Raises: NotAuthorized where a browser says that another site has sent this."""
    fetch_site, origin = request.getHeader(b"sec-fetch-site"), request.getHeader(b"origin")
    if fetch_site is not None and fetch_site not in (b"same-origin", b"none"):
        raise NotAuthorized("Another site has sent this form")
    if fetch_site is None and origin is not None:
        sent_from = urlsplit(origin.decode("latin-1")).netloc
        if sent_from != (request.getHeader(b"host") or b"").decode("latin-1"):
            raise NotAuthorized("Another site has sent this form")


def keep(request: Any, tokens: dict[str, str]) -> None:
    """The browser stays logged in."""
    _set(request, TOKEN, tokens["token"], max_age_s=REFRESH_S)
    _set(request, REFRESH, tokens["refreshToken"], max_age_s=REFRESH_S)


def forget(request: Any) -> None:
    _set(request, TOKEN, "", max_age_s=0)
    _set(request, REFRESH, "", max_age_s=0)


def notify(request: Any, text: str) -> None:
    """Shown on the next page, once."""
    _set(request, NOTICE, text.encode().hex(), max_age_s=60)


def notice_of(request: Any) -> str:
    """What is told once, after something was done. Not to a script that fetches a part of a page, which nobody sees:
    it may be that of another window."""
    notice = "" if request.getHeader(b"x-live") else _cookie(request, NOTICE)
    if notice:
        _set(request, NOTICE, "", max_age_s=0)
    return notice


def theme_of(request: Any) -> str:
    theme = (request.getCookie(THEME) or b"").decode("ascii", "replace")
    return theme if theme in THEMES else "auto"


def keep_theme(request: Any, theme: str) -> None:
    _set(request, THEME, theme if theme in THEMES else "auto", max_age_s=_YEAR_S)


def is_secure(request: Any) -> bool:
    """Whether the browser speaks TLS with us, or with the proxy before us."""
    return bool(request.is_secure())


def _cookie(request: Any, name: bytes) -> str:
    value: str = (request.getCookie(name) or b"").decode("ascii", "replace")
    if name != NOTICE:
        return value
    try:
        return bytes.fromhex(value).decode()[:500]  # cookies hold ASCII alone
    except ValueError:
        return ""


def _set(request: Any, name: bytes, value: str, *, max_age_s: int) -> None:
    request.addCookie(
        name, value.encode("ascii"), path=PATH.encode(), max_age=str(max_age_s).encode(),
        httpOnly=True, secure=is_secure(request), sameSite=b"lax",
    )  # fmt: skip
