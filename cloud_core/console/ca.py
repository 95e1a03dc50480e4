"""The small CA on the command line: make one, issue, revoke, and see which certificates end when.

Private keys of devices are made here and stay here; the core gets a signing request.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from cloud_core.console.calls import at_core, call, common, connect, dry_run, show
from cloud_core.console.exits import EXIT_FILE, POINTER
from cloud_core.console.output import tell_plan
from cloud_core.rest_client import RestClient, RestError

MAX_COMMON_NAME_BYTES = 64
CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}
REASONS = (
    "unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
    "privilegeWithdrawn", "aACompromise",
)  # fmt: skip
R = TypeVar("R")

_key_type = click.option(
    "--key-type", type=click.Choice(list(CURVES)), default="P-256", show_default=True, help="Curve of the key."
)
_which_ca = click.option("--ca", "ca_name", default="", help="Name of the CA.  [default: the only one there is]")


@click.group(epilog=POINTER)
def ca() -> None:
    """A small certificate authority for devices, kept by the core.

    \b
    From a running core to a device that logs in by certificate:
      cloud-core login
      cloud-core ca init plant
      cloud-core profile create meters --strategy X509_CERTIFICATE_CHAIN --ca plant \\
          --name-pattern '(.*)' --create-devices
      cloud-core ca issue SN-1 --out .
      mosquitto_pub --cafile SERVER-CA.pem --cert SN-1.pem --key SN-1.key -p 8883 \\
          -i SN-1 -q 1 -t v1/devices/me/telemetry -m '{"temperature": 21}'
    and the certificate's end:
      cloud-core ca revoke --device SN-1 --reason keyCompromise

    The CA's private key never leaves the core, where it is encrypted at rest; a device's never leaves this machine.
    """


@ca.command("init")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="File for its certificate.  [default: NAME-ca.pem]")
@_key_type
@click.option("--years", default=10, show_default=True, help="How long it is valid.")
@dry_run
@common
def ca_init(
    name: str, out: Path | None, key_type: str, years: int, dry_run: bool, url: str | None, as_json: bool
) -> None:
    """Make a CA: self-signed, for devices alone; its certificate is written to a file."""
    file = out or Path(f"{_file_name(name)}-ca.pem")
    _check_free(file)
    if dry_run:
        tell_plan(
            f"Would make the CA '{name}' ({key_type}, {years} years) and write its certificate to {file}.",
            as_json=as_json,
        )
        return
    client = connect(url)
    made = call(lambda: client.post("/api/ca", {"name": name, "keyType": key_type, "years": years}))
    _filed(lambda: _write_new(file, made["certificateChain"], 0o644))
    _tell_ca(made, f"Made the CA '{name}'", file, as_json=as_json)


@ca.command("import")
@click.argument("name")
@click.option(
    "--chain", "chain_file", required=True, type=click.Path(path_type=Path),
    help="PEM: the CA's certificate, then its issuers up to the root.",
)  # fmt: skip
@click.option(
    "--key", "key_file", required=True, type=click.Path(path_type=Path), help="PEM; asks where it is encrypted."
)
@dry_run
@common
def ca_import(name: str, chain_file: Path, key_file: Path, dry_run: bool, url: str | None, as_json: bool) -> None:
    """Take a CA over that exists, with its key. An encrypted key is decrypted here, with CLOUD_CORE_CA_PASSPHRASE or by
    asking, and encrypted again by the core. It crosses a network over https alone."""
    chain, key = _read(chain_file), _decrypted(_read(key_file), key_file)
    if dry_run:
        tell_plan(f"Would take over the CA of {chain_file} as '{name}'.", as_json=as_json)
        return
    client = connect(url)
    _check_private(client.url)
    made = call(lambda: client.post("/api/ca/import", {"name": name, "chain": chain, "key": key}))
    _tell_ca(made, f"Took over the CA '{name}'", None, as_json=as_json)


@ca.command("list")
@common
def ca_list(url: str | None, as_json: bool) -> None:
    """List the CAs."""
    client = connect(url)
    found = call(lambda: client.get("/api/ca"))
    rows = found if as_json else [one | {"ends": _date(one["notAfter"])} for one in found]
    columns = {"NAME": "name", "KEY": "keyType", "ENDS": "ends", "SUBJECT": "subject", "FINGERPRINT": "fingerprint"}
    show(rows, columns, as_json=as_json)


@ca.command("issue")
@click.argument("name")
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder for NAME.key, NAME.pem.")
@_which_ca
@click.option("--days", default=365, show_default=True, help="How long it is valid; never longer than the CA.")
@_key_type
@dry_run
@common
def ca_issue(
    name: str, folder: Path, ca_name: str, days: int, key_type: str, dry_run: bool, url: str | None, as_json: bool
) -> None:
    """Issue a certificate to the device NAME, which need not exist yet.

    Makes the key here (NAME.key, mode 0600), has its signing request signed, and writes certificate and chain to
    NAME.pem. Overwrites nothing.
    """
    key_file, chain_file = (folder / f"{_file_name(name)}.{kind}" for kind in ("key", "pem"))
    for file in (key_file, chain_file):
        _check_free(file)
    client = connect(url)
    issuer = call(lambda: _the_ca(client, ca_name))
    if dry_run:
        tell_plan(
            f"Would have the CA '{issuer}' issue to '{name}' for {days} days: {key_file}, {chain_file}.",
            as_json=as_json,
        )
        return
    key, csr = _key_and_request(name, key_type)
    _filed(lambda: _write_new(key_file, key, 0o600))  # first: a certificate without its key is none
    try:
        issued = client.post(f"/api/ca/{quote(issuer, safe='')}/issue", {"name": name, "csr": csr, "days": days})
    except RestError as error:
        key_file.unlink()
        failed = error
        call(lambda: _raise(failed))
    _filed(lambda: _write_new(chain_file, issued["certificateChain"], 0o644))
    if as_json:
        click.echo(json.dumps(issued | {"keyFile": str(key_file), "certificateFile": str(chain_file)}, indent=2))
        return
    click.echo(f"Issued to '{name}' by the CA '{issuer}', until {_date(issued['notAfter'])}.")
    click.echo(f"key          {key_file}\ncertificate  {chain_file}\nserial       {issued['serial']}")


@ca.command("revoke")
@click.option("--device", default="", help="All certificates of the device of this name.")
@click.option("--serial", default="", help="One, by its serial number in hexadecimal.")
@click.option("--fingerprint", default="", help="One, by its SHA-256, whoever has issued it.")
@_which_ca
@click.option(
    "--reason", type=click.Choice(REASONS), default="unspecified", show_default=True, help="As RFC 5280 names them."
)
@dry_run
@common
def ca_revoke(
    device: str, serial: str, fingerprint: str, ca_name: str, reason: str, dry_run: bool, url: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Revoke certificates: nobody logs in with them any more, and who is connected is disconnected.

    There is no way back; a device gets a new certificate instead.
    """
    if sum(map(bool, (device, serial, fingerprint))) != 1:
        raise click.UsageError("Say which certificate: one of --device, --serial and --fingerprint.")
    if dry_run:
        which = (
            f"all of the device '{device}'"
            if device
            else f"{'serial' if serial else 'fingerprint'} {serial or fingerprint}"
        )
        tell_plan(f"Would revoke {which}, for the reason {reason}.", as_json=as_json)
        return
    client = connect(url)
    body = {
        "deviceName": device, "serial": serial, "fingerprint": fingerprint, "authority": ca_name, "reason": reason,
    }  # fmt: skip
    rows = call(lambda: client.post("/api/certificates/revoke", body))
    shown = rows if as_json else [_row(one) for one in rows]
    show(shown, {"REVOKED": "serial", "DEVICE": "name", "SUBJECT": "subject", "REASON": "state"}, as_json=as_json)


@ca.command("crl")
@click.argument("name", required=False, default="")
@click.option("--out", type=click.Path(path_type=Path), help="File for the list, replaced.  [default: standard output]")
@at_core
def ca_crl(name: str, out: Path | None, url: str | None) -> None:
    """Print the CA's certificate revocation list in PEM, for programs that do not fetch it themselves."""
    client = connect(url)
    path = call(lambda: f"/api/ca/{_ca_named(client, name)['id']['id']}/crl")
    text = call(lambda: client.get(path, format="pem"))
    if out is None:
        click.echo(text, nl=False)
        return
    _filed(lambda: _replace(out, text))
    click.echo(f"Wrote {out}.", err=True)


@click.command("certificates")
@click.option("--within", "days", type=int, help="Those alone that end within so many days, or have ended.")
@click.option("--search", default="", help="Part of a device's name, a subject or a serial.")
@click.option("--limit", default=100, show_default=True, help="So many of devices, those that end first foremost.")
@common
def certificates(days: int | None, search: str, limit: int, url: str | None, as_json: bool) -> None:
    """Show every certificate that the core knows, and when it ends: devices, CAs, profiles, its own."""
    client = connect(url)
    query: dict[str, Any] = {"pageSize": limit, "page": 0, "textSearch": search}
    if days is not None:
        query["endsWithinDays"] = days
    found = call(lambda: client.get("/api/certificates", **query))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = sorted([*found["others"], *found["data"]], key=lambda one: int(one["notAfter"]))
    columns = {"ENDS": "ends", "KIND": "kind", "NAME": "name", "SUBJECT": "subject", "SERIAL": "serial", "": "state"}
    show([_row(one) for one in rows], columns, as_json=False)
    if found["hasNext"]:
        click.echo(f"… {found['totalElements'] - len(found['data'])} more of devices; raise --limit or use --search.")


def certificate_of_ca(client: RestClient, name_or_file: str) -> str:
    """PEM of a CA that the core has, by its name, or of a file. Raises: RestError, OSError."""
    if Path(name_or_file).is_file():
        return Path(name_or_file).read_text(encoding="ascii", errors="replace")
    pem: str = _ca_named(client, name_or_file)["certificateChain"]
    return pem


def _ca_named(client: RestClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/api/ca/{quote(_the_ca(client, name), safe='')}")
    return found


def _the_ca(client: RestClient, name: str) -> str:
    """`name`, or that of the only CA. Raises: RestError."""
    if name:
        return name
    names = [str(one["name"]) for one in client.get("/api/ca")]
    if len(names) == 1:
        return names[0]
    if not names:
        raise RestError("There is no CA; make one with: cloud-core ca init NAME", 404)
    raise RestError(f"There are several CAs ({', '.join(names)}); say which with --ca.", 400)


def _tell_ca(made: dict[str, Any], what: str, file: Path | None, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(made | ({"certificateFile": str(file)} if file else {}), indent=2))
        return
    fingerprint = bytes.fromhex(made["fingerprint"]).hex(":").upper()
    click.echo(f"{what} ({made['keyType']}, until {_date(made['notAfter'])}).\nfingerprint  {fingerprint}")
    if file:
        click.echo(f"certificate  {file}")


def _row(one: dict[str, Any]) -> dict[str, Any]:
    if one.get("revokedTime"):
        state = f"revoked: {one.get('revocationReason') or 'unspecified'}"
    elif one.get("validUntil"):
        state = f"former, taken until {_date(one['validUntil'])}"
    else:
        state = "over" if one["notAfter"] < datetime.now(UTC).timestamp() * 1000 else ""
    return one | {"ends": _date(one["notAfter"]), "state": state}


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")


# -- keys and files -------------------------------------------------------------------------------


def _key_and_request(name: str, key_type: str) -> tuple[str, str]:
    """PEM of a new key, and of a signing request with it."""
    key = ec.generate_private_key(CURVES[key_type]())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name)] if len(name.encode()) <= MAX_COMMON_NAME_BYTES else []
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private.decode("ascii"), request.public_bytes(Encoding.PEM).decode("ascii")


def _check_private(url: str) -> None:
    """A CA's key must not cross a network in the clear."""
    where = urlsplit(url)
    if where.scheme != "https" and where.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise click.UsageError(f"{url} would get the key unencrypted; use https, or a shell on the core's machine.")


def _decrypted(pem: str, file: Path) -> str:
    """The key as PKCS#8 without a password, which is asked for where there is one."""
    if "ENCRYPTED" not in pem:
        return pem
    password = os.environ.get("CLOUD_CORE_CA_PASSPHRASE") or click.prompt(f"Passphrase of {file}", hide_input=True)
    try:
        key = load_pem_private_key(pem.encode(), password.encode())
    except ValueError:
        _fail(f"The passphrase does not open {file}.")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def _file_name(name: str) -> str:
    """The name, as far as a file can be called so."""
    return re.sub(r"[^\w.@+-]", "-", name).lstrip(".-") or "device"


def _read(file: Path) -> str:
    return _filed(lambda: file.read_text(encoding="ascii", errors="replace"))


def _check_free(file: Path) -> None:
    if file.exists():
        _fail(f"{file} exists already; move it away, or choose another place with --out.")
    if not file.parent.is_dir():
        _fail(f"There is no folder {file.parent}; make it first.")


def _write_new(file: Path, text: str, mode: int) -> None:
    """A file that is not there yet, never readable by more people than `mode` says; whole, or not at all."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError:
        file.unlink(missing_ok=True)
        raise


def _replace(file: Path, text: str) -> None:
    """Whoever reads it meanwhile gets the old text or the new one, whole."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    _write_new(new, text, 0o644)
    new.replace(file)


def _filed(work: Callable[[], R]) -> R:
    try:
        return work()
    except OSError as error:
        _fail(f"Cannot use {error.filename}: {error.strerror}.")


def _raise(error: RestError) -> NoReturn:
    raise error


def _fail(message: str) -> NoReturn:
    click.echo(f"cloud-core: {message}", err=True)
    sys.exit(EXIT_FILE)
