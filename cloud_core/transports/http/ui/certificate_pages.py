"""Which certificates end when, revoking them, and the small CAs."""

from __future__ import annotations

from typing import Any, NamedTuple

from cloud_core.core.certificates import signing
from cloud_core.core.certificates.authorities import Which
from cloud_core.core.certificates.expiry import DAY_MS
from cloud_core.core.people.permissions import Act
from cloud_core.model import KnownCertificate
from cloud_core.transports.http.calls import query
from cloud_core.transports.http.rest.authority_routes import (
    DEFAULT_YEARS,
    MAX_WITHIN_DAYS,
    authority_json,
    certificate_json,
    fingerprint_of,
)
from cloud_core.transports.http.ui.fields import number_of, said
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shown, page, page_from, pager_of, pages_app
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.errors import InvalidArgument, NotFound, PlatformError

DEFAULT_CURVE = "P-256"
EVERY = "all"
_WITHIN = (
    ("", "In use"), ("7", "Ending within 7 days"), ("30", "Ending within 30 days"), ("90", "Ending within 90 days"),
    ("365", "Ending within a year"), (EVERY, "All, former and revoked too"),
)  # fmt: skip
_REASONS = {
    "unspecified": "not said", "keyCompromise": "somebody else may have its key",
    "cACompromise": "somebody else may have the CA's key", "affiliationChanged": "the device belongs to somebody else",
    "superseded": "another has taken its place", "cessationOfOperation": "the device is out of use",
    "privilegeWithdrawn": "the device may not log in any more", "aACompromise": "the attribute authority is not safe",
}  # fmt: skip
_KINDS = {"AUTHORITY": "CA", "PROFILE": "CA of a device profile", "SERVER": "server"}


class Ending(NamedTuple):
    """How a certificate stands, for people."""

    text: str
    kind: str


class CertificatePages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(f"{PATH}/certificates", methods=["GET"])
    @page
    async def certificates(self, request: Any) -> Shown:
        """What ends first comes first."""
        visitor = await self.visitor(request, Act.READ)
        wanted = page_from(request, sort="notAfter", descending=False, among=("notAfter",))
        within = query(request, "within")
        days = int(within) if within in {value for value, _ in _WITHIN if value.isdecimal()} else MAX_WITHIN_DAYS
        authorities = self._admin.authorities
        now_ms = authorities.now_ms()
        found = await authorities.overview(visitor.operator, wanted, None if within == EVERY else days)
        return self.show(
            request, visitor, "certificates.html", title="Certificates", within=within, choices=_WITHIN,
            pager=pager_of(request, wanted, found.total, "within"),
            devices=[(one, ending_of(one, now_ms, authorities.warn_days)) for one in found.devices],
            others=[
                (one, _KINDS[one.kind], standing(one.not_after_ms, now_ms, authorities.warn_days))
                for one in found.others
            ],
        )  # fmt: skip

    @app.route(f"{PATH}/certificates/authorities", methods=["GET"])
    @page
    async def authorities(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.READ)
        return await self._authorities(request, visitor, Form({}))

    @app.route(f"{PATH}/certificates/authorities", methods=["POST"])
    @page
    async def create(self, request: Any) -> Shown:
        visitor, form = await self.sender(request, Act.ADMINISTER_CA)
        try:
            years = number_of(form, "years", "Years", DEFAULT_YEARS)
            made = await self._admin.authorities.create(
                visitor.operator, form["name"], form["keyType"] or DEFAULT_CURVE, years
            )
        except PlatformError as error:
            return await self._authorities(request, visitor, form, problem=said(error))
        return Redirect(f"{PATH}/certificates/authorities", f"The CA {made.name} is made.")

    async def _authorities(self, request: Any, visitor: Visitor, form: Form, problem: str = "") -> str:
        authorities = self._admin.authorities
        found, now_ms, warn_days = await authorities.all(visitor.operator), authorities.now_ms(), authorities.warn_days
        shaped = [authority_json(one, authorities.public_url) for one in found]
        return self.show(
            request, visitor, "authorities.html", status=400 if problem else 200, title="CAs", form=form,
            problem=problem, default_years=DEFAULT_YEARS,
            authorities=[(one, standing(one["notAfter"], now_ms, warn_days)) for one in shaped],
        )  # fmt: skip

    @app.route(f"{PATH}/certificates/<fingerprint>", methods=["GET"])
    @page
    async def certificate(self, request: Any, fingerprint: str) -> Shown:
        visitor = await self.visitor(request, Act.READ)
        return await self._certificate(request, visitor, fingerprint)

    async def _certificate(self, request: Any, visitor: Visitor, fingerprint: str, problem: str = "") -> str:
        authorities = self._admin.authorities
        found = await authorities.certificate(visitor.operator, _fingerprint(fingerprint))
        return self.show(
            request, visitor, "certificate.html", status=400 if problem else 200, title=f"Certificate {found.serial}",
            certificate=certificate_json(found), reasons=[(one, _REASONS.get(one, one)) for one in signing.REASONS],
            ending=ending_of(found, authorities.now_ms(), authorities.warn_days), problem=problem,
        )  # fmt: skip

    @app.route(f"{PATH}/certificates/<fingerprint>/revoke", methods=["POST"])
    @page
    async def revoke(self, request: Any, fingerprint: str) -> Shown:
        """Nobody logs in with it any more, and who is connected with it is disconnected."""
        visitor, form = await self.sender(request, Act.ADMINISTER_CA)
        which = Which(fingerprint=_fingerprint(fingerprint))
        try:
            await self._admin.authorities.revoke(visitor.operator, which, form["reason"])
        except InvalidArgument as error:
            return await self._certificate(request, visitor, fingerprint, problem=said(error))
        return Redirect(f"{PATH}/certificates/{fingerprint}", "The certificate is revoked.")


def ending_of(one: KnownCertificate, now_ms: int, warn_days: int) -> Ending:
    """Revoked before replaced before ended."""
    if one.revoked_ms is not None:
        return Ending("revoked", "bad")
    if one.until_ms is not None:
        return Ending("replaced, still accepted" if one.until_ms > now_ms else "replaced", "idle")
    return standing(one.not_after_ms, now_ms, warn_days)


def standing(not_after_ms: int, now_ms: int, warn_days: int) -> Ending:
    if not_after_ms < now_ms:
        return Ending("over", "bad")
    return Ending("ends soon", "warn") if not_after_ms < now_ms + warn_days * DAY_MS else Ending("valid", "good")


def _fingerprint(text: str) -> bytes:
    """Of an address. Raises: NotFound."""
    try:
        return fingerprint_of(text)
    except InvalidArgument as error:
        raise NotFound(f"'{text[:80]}' is no fingerprint of a certificate") from error
