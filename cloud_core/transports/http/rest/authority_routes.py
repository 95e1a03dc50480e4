"""The small CAs and the expiry of certificates over REST: ours, ThingsBoard has neither.

Revocation lists and CA certificates are for everybody (RFC 5280 section 4.2.1.13); all else is for administrators.
"""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.certificates.authorities import Which, crl_url
from cloud_core.core.certificates.authority_admin import CRL_FRESH_MS, chain_pem
from cloud_core.core.certificates.expiry import Kind, OtherCertificate
from cloud_core.core.people.permissions import Act
from cloud_core.model import Authority, KnownCertificate
from cloud_core.transports.http.calls import (
    CallSupport,
    answers,
    integer,
    json_object,
    page_of,
    query,
    rest_app,
    uuid_of,
)
from cloud_core.transports.http.rest import shapes
from shared import certificates
from shared.errors import InvalidArgument

DEFAULT_YEARS = 10
DEFAULT_DAYS = 365
DEFAULT_PAGE_SIZE = 100
MAX_WITHIN_DAYS = 36_500
PEM_TYPE = "application/x-pem-file"
CRL_TYPE = "application/pkix-crl"  # RFC 2585


class AuthorityRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them. A CA is named by its name or its uuid."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._authorities = admin.authorities

    @app.route("/api/ca", methods=["GET"])
    @answers
    async def list(self, request: Request) -> Any:
        return [self._shaped(one) for one in await self._authorities.all(self.operator(request, Act.READ))]

    @app.route("/api/ca", methods=["POST"])
    @answers
    async def create(self, request: Request) -> Any:
        """`name`; `keyType` P-256 or P-384, `years`."""
        operator, body = self.operator(request, Act.ADMINISTER_CA), json_object(request)
        curve = _text(body, "keyType") or "P-256"
        years = _number(body, "years", DEFAULT_YEARS)
        return self._shaped(await self._authorities.create(operator, _text(body, "name"), curve, years))

    @app.route("/api/ca/import", methods=["POST"])
    @answers
    async def take_over(self, request: Request) -> Any:
        """`name`, `chain` (PEM: the CA's certificate, then its issuers) and `key` (PEM, not encrypted)."""
        operator, body = self.operator(request, Act.ADMINISTER_CA), json_object(request)
        chain, key = _text(body, "chain"), _text(body, "key")
        return self._shaped(await self._authorities.take_over(operator, _text(body, "name"), chain, key))

    @app.route("/api/ca/<which>", methods=["GET"])
    @answers
    async def find(self, request: Request, which: str) -> Any:
        return self._shaped(await self._authorities.find(self.operator(request, Act.READ), which))

    @app.route("/api/ca/<which>/issue", methods=["POST"])
    @answers
    async def issue(self, request: Request, which: str) -> Any:
        """`name`, `csr` (PEM or base64 of DER), `days`: a certificate for a device that need not exist yet."""
        operator, body = self.operator(request, Act.ADMINISTER_CA), json_object(request)
        days = _number(body, "days", DEFAULT_DAYS)
        issued = await self._authorities.issue(operator, which, _text(body, "csr"), _text(body, "name"), days)
        return {
            "certificate": certificates.pem(certificates.load(issued.certificate)),
            "certificateChain": issued.chain_pem, "serial": issued.serial, "notAfter": issued.not_after_ms,
            "fingerprint": certificates.fingerprint(issued.certificate).hex(), "authority": issued.authority_name,
        }  # fmt: skip

    @app.route("/api/certificates/revoke", methods=["POST"])
    @answers
    async def revoke(self, request: Request) -> Any:
        """One of `serial` (with `authority`, where there are several), `fingerprint` and `deviceName`; `reason`."""
        operator, body = self.operator(request, Act.ADMINISTER_CA), json_object(request)
        which = Which(
            serial=_text(body, "serial"), fingerprint=fingerprint_of(_text(body, "fingerprint")),
            device_name=_text(body, "deviceName"), authority=_text(body, "authority"),
        )  # fmt: skip
        reason = _text(body, "reason") or x509.ReasonFlags.unspecified.value
        return [certificate_json(one) for one in await self._authorities.revoke(operator, which, reason)]

    @app.route("/api/certificates", methods=["GET"])
    @answers
    async def overview(self, request: Request) -> Any:
        """A page of the devices' certificates; in `others` those of CAs, profiles and the server."""
        operator = self.operator(request, Act.READ)
        within = integer(request, "endsWithinDays", -1)
        if within < -1 or within > MAX_WITHIN_DAYS:
            raise InvalidArgument(f"The parameter 'endsWithinDays' must be 0 to {MAX_WITHIN_DAYS}")
        page = page_of(request, default_size=DEFAULT_PAGE_SIZE, default_sort="notAfter")
        found = await self._authorities.overview(operator, page, None if within < 0 else within)
        rows = [certificate_json(one) for one in found.devices]
        shaped = shapes.page_json(rows, found.total, page.size, page.page)
        return shaped | {"others": [other_json(one) for one in found.others]}

    # -- for everybody ----------------------------------------------------------------------------

    @app.route("/api/ca/<uuid>/crl", methods=["GET"])
    @answers
    async def crl(self, request: Request, uuid: str) -> Any:
        """DER, as programs fetch it; `format=pem` for people and their tools."""
        is_pem = query(request, "format").lower() == "pem"
        number = uuid_of(uuid)
        body = await self._authorities.crl_pem(number) if is_pem else (await self._authorities.crl(number)).der
        request.setHeader("Cache-Control", f"public, max-age={CRL_FRESH_MS // 1000}")
        request.setHeader("Content-Type", PEM_TYPE if is_pem else CRL_TYPE)
        return body

    @app.route("/api/ca/<uuid>/certificates", methods=["GET"])
    @answers
    async def chain(self, request: Request, uuid: str) -> Any:
        """PEM of the CA's certificate, then of its issuers."""
        chain = await self._authorities.certificate_chain(uuid_of(uuid))
        request.setHeader("Content-Type", PEM_TYPE)
        return chain.encode()

    def _shaped(self, authority: Authority) -> dict[str, Any]:
        return authority_json(authority, self._authorities.public_url)


def authority_json(authority: Authority, public_url: str) -> dict[str, Any]:
    own = certificates.load(authority.chain[0])
    key = own.public_key()
    kind = f"P-{key.curve.key_size}" if isinstance(key, ec.EllipticCurvePublicKey) else "RSA"
    return {
        "id": shapes.entity_id("CERTIFICATE_AUTHORITY", authority.uuid), "name": authority.name,
        "createdTime": authority.created_ms, "subject": certificates.name_text(own.subject),
        "serial": f"{own.serial_number:x}", "fingerprint": certificates.fingerprint(authority.chain[0]).hex(),
        "keyType": kind, "notBefore": certificates.not_before_ms(own), "notAfter": certificates.not_after_ms(own),
        "certificateChain": chain_pem(authority), "crlUrl": crl_url(public_url, authority.uuid) or None,
    }  # fmt: skip


def certificate_json(one: KnownCertificate) -> dict[str, Any]:
    return {
        "kind": Kind.DEVICE.value, "name": one.device_name or None, "subject": one.subject, "issuer": one.issuer,
        "serial": one.serial, "fingerprint": one.fingerprint.hex(), "notBefore": one.not_before_ms,
        "notAfter": one.not_after_ms, "createdTime": one.created_ms, "validUntil": one.until_ms,
        "revokedTime": one.revoked_ms, "revocationReason": one.revocation_reason or None,
    }  # fmt: skip


def other_json(one: OtherCertificate) -> dict[str, Any]:
    return {
        "kind": one.kind.value, "name": one.name, "subject": one.subject or None,
        "fingerprint": one.fingerprint or None, "notAfter": one.not_after_ms,
    }  # fmt: skip


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(f"Validation error: {name} must be a string")
    return value or ""


def _number(body: dict[str, Any], name: str, default: int) -> int:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"Validation error: {name} must be a whole number")
    return value


def fingerprint_of(text: str) -> bytes:
    """SHA-256 in hexadecimal, with or without colons. Raises: InvalidArgument."""
    try:
        digest = bytes.fromhex(text.replace(":", ""))
    except ValueError as error:
        raise InvalidArgument("Validation error: fingerprint must be hexadecimal") from error
    if digest and len(digest) != 32:
        raise InvalidArgument("Validation error: fingerprint must be the SHA-256 of the certificate, 64 digits")
    return digest
