"""A PKI for tests: good certificates by default, and every way to make bad ones.

    pki = Pki()
    root = pki.root("Factory")
    line = root.intermediate("Line 1", path_length=0)
    device = line.leaf("sensor-1")
    device.certificate, device.der, device.pem, device.key, device.key_pem, device.chain   # chain: (line, root)
    device.write(tmp_path)                       # (certificate chain file without the root, key file)

Keys are P-256 unless `key` says otherwise ("p384", "p521", "p224", "rsa2048", "rsa1024", "ed25519", or a key).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from cloud_core.model import PresentedChain

Key = Any  # one of cryptography's private keys

CURVES: dict[str, type[ec.EllipticCurve]] = {
    "p224": ec.SECP224R1, "p256": ec.SECP256R1, "p384": ec.SECP384R1, "p521": ec.SECP521R1, "k256": ec.SECP256K1,
}  # fmt: skip
HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(), "md5": hashes.MD5(), "sha224": hashes.SHA224(), "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(), "sha512": hashes.SHA512(),
}  # fmt: skip
CLIENT, SERVER, OCSP_SIGNING = (
    ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.OCSP_SIGNING,
)  # fmt: skip
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a certificate is made. What is None follows from what it is: a CA or the leaf of a device."""

    not_before: datetime | None = None
    not_after: datetime | None = None
    is_ca: bool | None = None
    has_constraints: bool = True  # BasicConstraints
    has_critical_constraints: bool = True
    path_length: int | None = None
    key_usage: Collection[str] | None = None  # names as in cryptography's KeyUsage; () leaves the extension out
    extended_usage: Sequence[x509.ObjectIdentifier] | None = None  # () leaves the extension out
    key: str | Key = "p256"
    hash: str = "sha256"  # of the signature over this certificate
    has_key_ids: bool = True  # SubjectKeyIdentifier and AuthorityKeyIdentifier
    crl_url: str = ""
    ocsp_url: str = ""
    dns_names: Sequence[str] = ()
    subject: x509.Name | None = None
    serial: int | None = None
    extra: Sequence[tuple[x509.ExtensionType, bool]] = ()  # further extensions, and whether they are critical
    is_version_1: bool = False  # no extensions at all, as `openssl x509 -req` makes them without a file for them


class Pki:
    """Makes roots; everything else is made by its issuer. `now` is the middle of what is valid by default."""

    def __init__(self, now: datetime | None = None) -> None:
        self.now = (now or datetime.now(UTC)).replace(microsecond=0)

    def root(self, name: str = "Root", **options: Any) -> Ca:
        """A self-signed CA."""
        return Ca(self.now, *_issue(self.now, name, Options(**options), None, is_ca=True))

    def self_signed(self, name: str, **options: Any) -> Leaf:
        """A device's certificate that nobody but its own key vouches for."""
        return Leaf(self.now, *_issue(self.now, name, Options(**options), None, is_ca=False))

    def chain_of_length(self, count: int, **options: Any) -> Leaf:
        """A leaf with `count` CAs above it, root included."""
        issuer = self.root("CA 1")
        for number in range(2, count + 1):
            issuer = issuer.intermediate(f"CA {number}")
        return issuer.leaf("device", **options)


@dataclass(frozen=True, eq=False)
class Holder:
    """A certificate and its key. It can issue whatever it is, since bad chains need that."""

    now: datetime
    certificate: x509.Certificate
    key: Key = field(repr=False)
    issuer: Ca | None = None  # None: self-signed

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode("ascii")

    @property
    def key_pem(self) -> str:
        """PKCS#8, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")

    @property
    def chain(self) -> tuple[Ca, ...]:
        """Its issuers, from its own up to the root."""
        return (self.issuer, *self.issuer.chain) if self.issuer else ()

    @property
    def presented(self) -> PresentedChain:
        """As a peer shows it in a handshake: itself and its issuers, without the root."""
        return PresentedChain(self.der, tuple(ca.der for ca in self.chain if ca.issuer))

    @property
    def chain_pem(self) -> str:
        """The text of what a peer shows."""
        return self.pem + "".join(ca.pem for ca in self.chain if ca.issuer)

    def write(self, folder: Path, name: str = "") -> tuple[Path, Path]:
        """Writes its chain without the root, and its key; the files are called by its common name or `name`."""
        name = name or str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        name = name.replace(" ", "-").lower()
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_text(self.chain_pem)
        key.write_text(self.key_pem)
        return certificate, key

    def intermediate(self, name: str, **options: Any) -> Ca:
        """A CA below this one."""
        return Ca(self.now, *_issue(self.now, name, Options(**options), self, is_ca=True))

    def leaf(self, common_name: str, **options: Any) -> Leaf:
        """A device's certificate."""
        return Leaf(self.now, *_issue(self.now, common_name, Options(**options), self, is_ca=False))

    def signing_request(self, common_name: str = "", *, extra: Sequence[x509.ExtensionType] = ()) -> str:
        """PEM of a PKCS#10 request with this key, for this or another name."""
        subject = _name(common_name) if common_name else self.certificate.subject
        return request_pem(subject, self.key, extra)


class Leaf(Holder):
    """What a device has."""


class Ca(Holder):
    """What issues."""

    def cross_sign(self, other: Ca, **options: Any) -> Ca:
        """A certificate for the name and key of `other`, vouched for by this one."""
        made = Options(**{"subject": other.certificate.subject, "key": other.key, **options})
        return Ca(self.now, *_issue(self.now, "", made, self, is_ca=True))

    def crl(
        self,
        *revoked: Holder | int,
        this_update: datetime | None = None,
        valid_for: timedelta | None = timedelta(days=1),
        key: Key | None = None,
        hash: str = "sha256",
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
        entry_extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """DER of a list of what is revoked. `valid_for` None leaves nextUpdate out."""
        this_update = this_update or self.now - timedelta(hours=1)
        until = this_update + (valid_for or timedelta(days=1))
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(this_update).next_update(until)
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(
                one if isinstance(one, int) else one.certificate.serial_number
            )
            entry = entry.revocation_date(this_update)
            for value, is_critical in entry_extra:
                entry = entry.add_extension(value, is_critical)
            builder = builder.add_revoked_certificate(entry.build())
        for value, is_critical in extra:
            builder = builder.add_extension(value, is_critical)
        made = builder.sign(key or self.key, _hash(key or self.key, hash))
        return made.public_bytes(Encoding.DER) if valid_for else _endless(made, until, key or self.key)

    def ocsp(
        self,
        certificate: Holder,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        *,
        responder: Holder | None = None,
        this_update: datetime | None = None,
        valid_for: timedelta | None = timedelta(days=1),
        by_name: bool = True,
        shown: Sequence[Holder] | None = None,
        key: Key | None = None,
        nonce: bytes | None = None,
        hash: hashes.HashAlgorithm | None = None,
    ) -> bytes:
        """DER of a signed answer about a certificate of this CA, by the CA itself or a delegated responder."""
        signer = responder or self
        this_update = this_update or self.now - timedelta(hours=1)
        until = this_update + valid_for if valid_for else None
        is_revoked = status is ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate.certificate, issuer=self.certificate, algorithm=hash or hashes.SHA1(), cert_status=status,
            this_update=this_update, next_update=until, revocation_time=this_update if is_revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if is_revoked else None,
        )  # fmt: skip
        encoding = ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH
        builder = builder.responder_id(encoding, signer.certificate)
        certificates = shown if shown is not None else ([responder] if responder else [])
        if certificates:
            builder = builder.certificates([one.certificate for one in certificates])
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        made = builder.sign(key or signer.key, _hash(key or signer.key, "sha256"))
        return made.public_bytes(Encoding.DER)


def generate(kind: str) -> Key:
    """A new key of this kind."""
    if kind in CURVES:
        return ec.generate_private_key(CURVES[kind]())
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))


def request_pem(subject: x509.Name | str, key: Key, extra: Sequence[x509.ExtensionType] = ()) -> str:
    """PEM of a PKCS#10 request."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        _name(subject) if isinstance(subject, str) else subject
    )
    for value in extra:
        builder = builder.add_extension(value, critical=False)
    return builder.sign(key, _hash(key, "sha256")).public_bytes(Encoding.PEM).decode("ascii")


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _hash(key: Key, name: str) -> hashes.HashAlgorithm | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else HASHES[name]


def _issue(
    now: datetime, name: str, options: Options, issuer: Holder | None, *, is_ca: bool
) -> tuple[x509.Certificate, Key, Any]:
    """Certificate, key and issuer."""
    options = replace(options, is_ca=is_ca if options.is_ca is None else options.is_ca)
    key = generate(options.key) if isinstance(options.key, str) else options.key
    signer = issuer.key if issuer else key
    subject = _name(name) if options.subject is None else options.subject
    days = 3650 if is_ca else 365
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(options.serial or x509.random_serial_number())
        .not_valid_before(options.not_before or min(now, options.not_after or now) - timedelta(days=1))
        .not_valid_after(options.not_after or max(now, options.not_before or now) + timedelta(days=days))
    )
    if options.is_version_1:
        return _of_version_1(builder, signer), key, issuer
    for value, is_critical in _extensions(options, key, signer, is_ca=is_ca):
        builder = builder.add_extension(value, is_critical)
    if options.hash in ("sha1", "md5"):
        return _weakly_signed(builder, signer, options.hash), key, issuer
    return builder.sign(signer, _hash(signer, options.hash)), key, issuer


def _extensions(options: Options, key: Key, signer: Key, *, is_ca: bool) -> list[tuple[x509.ExtensionType, bool]]:
    found: list[tuple[x509.ExtensionType, bool]] = []
    if options.has_constraints:
        length = options.path_length if options.is_ca else None
        found.append((x509.BasicConstraints(bool(options.is_ca), length), options.has_critical_constraints))
    usage = options.key_usage
    if usage is None:
        usage = ("key_cert_sign", "crl_sign", "digital_signature") if is_ca else ("digital_signature",)
    if usage:
        found.append((x509.KeyUsage(**{one: one in usage for one in _USAGES}), True))
    extended = options.extended_usage
    if extended is None:
        extended = () if is_ca else (CLIENT,)
    if extended:
        found.append((x509.ExtendedKeyUsage(extended), False))
    if options.has_key_ids:
        found.append((x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
        found.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False))
    if options.dns_names:
        found.append((x509.SubjectAlternativeName([x509.DNSName(one) for one in options.dns_names]), False))
    if options.crl_url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(options.crl_url)], None, None, None)
        found.append((x509.CRLDistributionPoints([point]), False))
    if options.ocsp_url:
        location = x509.UniformResourceIdentifier(options.ocsp_url)
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, location)
        found.append((x509.AuthorityInformationAccess([access]), False))
    return [*found, *options.extra]


# DER of AlgorithmIdentifiers: what `cryptography` signs with, and the weak ones it refuses to sign with.
_ALGORITHMS = {
    "ec": {
        "sha256": bytes.fromhex("300a06082a8648ce3d040302"),
        "sha1": bytes.fromhex("300906072a8648ce3d0401"),
    },
    "rsa": {
        "sha256": bytes.fromhex("300d06092a864886f70d01010b0500"),
        "sha1": bytes.fromhex("300d06092a864886f70d0101050500"),
        "md5": bytes.fromhex("300d06092a864886f70d0101040500"),
    },
}


def _weakly_signed(builder: x509.CertificateBuilder, signer: Key, name: str) -> x509.Certificate:
    """Signs well, puts the weak algorithm's name in both places, and signs that with the weak hash."""
    kind = "ec" if isinstance(signer, ec.EllipticCurvePrivateKey) else "rsa"
    strong, weak = _ALGORITHMS[kind]["sha256"], _ALGORITHMS[kind][name]
    content = _content(builder.sign(signer, hashes.SHA256()).tbs_certificate_bytes)
    signed = _signed(content.replace(strong, weak, 1), weak, signer, HASHES[name])
    return x509.load_der_x509_certificate(signed)


def _of_version_1(builder: x509.CertificateBuilder, signer: Key) -> x509.Certificate:
    """Without the version's field, which says 3 and has 5 bytes."""
    kind = "ec" if isinstance(signer, ec.EllipticCurvePrivateKey) else "rsa"
    content = _content(builder.sign(signer, hashes.SHA256()).tbs_certificate_bytes)[5:]
    return x509.load_der_x509_certificate(_signed(content, _ALGORITHMS[kind]["sha256"], signer, hashes.SHA256()))


def _signed(content: bytes, algorithm: bytes, signer: Key, hash: hashes.HashAlgorithm) -> bytes:
    """DER of a certificate or list with this content."""
    signed = _der(0x30, content)
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        signature = signer.sign(signed, ec.ECDSA(hash))
    else:
        signature = signer.sign(signed, padding.PKCS1v15(), hash)
    return _der(0x30, signed + algorithm + _der(0x03, b"\0" + signature))


def _endless(crl: x509.CertificateRevocationList, until: datetime, signer: ec.EllipticCurvePrivateKey) -> bytes:
    """The list without nextUpdate, which `cryptography` cannot build; for keys on curves."""
    field = _der(0x17, until.strftime("%y%m%d%H%M%SZ").encode())
    content = _content(crl.tbs_certlist_bytes).replace(field, b"", 1)
    return _signed(content, _ALGORITHMS["ec"]["sha256"], signer, hashes.SHA256())


def _content(der: bytes) -> bytes:
    """What stands in the outermost DER element."""
    return der[2:] if der[1] < 0x80 else der[2 + (der[1] & 0x7F) :]


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
