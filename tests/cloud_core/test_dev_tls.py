"""The development CA: made once, kept, renewed when it must be."""

from __future__ import annotations

import socket
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cloud_core import dev_tls
from cloud_core.dev_tls import DevelopmentFiles, prepare

BINDS = ("127.0.0.1",)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(files: DevelopmentFiles) -> set[str]:
    extension = certificate(files.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(one.value) for one in extension.value}


def test_the_certificate_names_this_machine_and_is_signed_by_the_ca(tmp_path: Path) -> None:
    """Keys are for us alone."""
    files = prepare(tmp_path / "dev-tls", ("192.0.2.7", "0.0.0.0", ""))
    assert names(files) == {"localhost", "127.0.0.1", "::1", socket.gethostname(), "192.0.2.7"}
    certificate(files.certificate).verify_directly_issued_by(certificate(files.authority))
    for key in (files.private_key, tmp_path / "dev-tls" / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_both_are_kept_over_restarts(tmp_path: Path) -> None:
    """Clients need the CA once."""
    first = {path: path.read_bytes() for path in _paths(prepare(tmp_path, BINDS))}
    assert {path: path.read_bytes() for path in _paths(prepare(tmp_path, BINDS))} == first


def test_a_new_address_gives_a_new_certificate_of_the_same_ca(tmp_path: Path) -> None:
    files = prepare(tmp_path, BINDS)
    authority = files.authority.read_bytes()
    prepare(tmp_path, ("192.0.2.7",))
    assert "192.0.2.7" in names(files)
    assert files.authority.read_bytes() == authority


def test_what_is_near_its_end_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's certificate within its year, the CA within ten."""
    files = prepare(tmp_path, BINDS)
    before = [path.read_bytes() for path in (files.authority, files.certificate)]
    for days, changed in ((300, [False, False]), (340, [False, True]), (3_640, [True, True])):
        at = datetime.now(UTC) + timedelta(days=days)
        monkeypatch.setattr(dev_tls, "datetime", type("Later", (), {"now": staticmethod(lambda _zone, at=at: at)}))
        prepare(tmp_path, BINDS)
        after = [path.read_bytes() for path in (files.authority, files.certificate)]
        assert [one != other for one, other in zip(before, after, strict=True)] == changed
    certificate(files.certificate).verify_directly_issued_by(certificate(files.authority))


@pytest.mark.parametrize("interrupted", ["server.key", "ca"])
def test_a_start_that_was_cut_off_while_it_renewed_is_made_good(tmp_path: Path, interrupted: str) -> None:
    """The pair does not fit, or is of the former CA, which had the same name."""
    other, files = prepare(tmp_path / "other", BINDS), prepare(tmp_path / "dev-tls", BINDS)
    for name in ("ca.key", "ca.pem") if interrupted == "ca" else (interrupted,):
        (tmp_path / "dev-tls" / name).write_bytes((other.authority.parent / name).read_bytes())
    prepare(tmp_path / "dev-tls", BINDS)
    certificate(files.certificate).verify_directly_issued_by(certificate(files.authority))
    key = load_pem_private_key(files.private_key.read_bytes(), None)
    assert key.public_key() == certificate(files.certificate).public_key()


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    """That says what to do."""
    prepare(tmp_path, BINDS).authority.write_text("nonsense")
    with pytest.raises(ValueError, match="are damaged; remove that directory"):
        prepare(tmp_path, BINDS)


def _paths(files: DevelopmentFiles) -> tuple[Path, ...]:
    return files.authority, files.certificate, files.private_key
