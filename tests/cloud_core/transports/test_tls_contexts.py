"""The server's certificate: what is offered, what is taken of clients, new files while connections are open."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat
from OpenSSL import SSL
from twisted.logger import formatEvent, globalLogPublisher

from cloud_core.transports.tls import Intermediates, ServerTls, TlsFailed
from cloud_core.transports.tls import now_ms as server_now_ms
from shared import certificates
from tests.support.pki import SERVER, Leaf
from tests.support.tls import Site, TlsClient, TlsListener, client_context, is_resumed

DAY_MS = 86_400_000
UNCOMPRESSED = PublicFormat.UncompressedPoint
OID_P256, OID_SM2 = "06082a8648ce3d030107", "06082a811ccf5501822d"
SPKI_P256 = "301306072a8648ce3d0201" + OID_P256 + "034200"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def lines() -> Iterator[list[tuple[str, str]]]:
    """Level and text of what the log hears of TLS."""
    heard: list[tuple[str, str]] = []

    def observe(event: Any) -> None:
        if "tls" in event["log_namespace"]:
            heard.append((event["log_level"].name, formatEvent(event)))

    globalLogPublisher.addObserver(observe)
    yield heard
    globalLogPublisher.removeObserver(observe)


def shown_to(client: TlsClient) -> str:
    certificate = client.ssl.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return certificates.common_name(certificate)


def renew(site: Site, name: str, **options: Any) -> Leaf:
    """Writes another pair into the files of the server."""
    leaf = site.server_root.leaf(name, extended_usage=(SERVER,), **options)
    leaf.write(site.folder, "server")
    return leaf


# -- what is offered ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newest", "cipher"), [(SSL.TLS1_2_VERSION, "ECDHE-ECDSA"), (SSL.TLS1_3_VERSION, "TLS_")], ids=["1.2", "1.3"]
)
def test_both_versions_have_forward_secrecy(site: Site, newest: int, cipher: str) -> None:
    client = TlsClient(TlsListener(site.tls), newest=newest).shake_hands()
    assert (client.ssl.get_cipher_name() or "").startswith(cipher)
    assert client.ssl.get_group_name() == "x25519"


def test_older_versions_are_refused(site: Site) -> None:
    client = TlsClient(TlsListener(site.tls), newest=SSL.TLS1_1_VERSION, ciphers=b"ALL:@SECLEVEL=0").shake_hands()
    assert "protocol version" in str(client.fault)


def test_any_certificate_of_a_client_passes_the_handshake(site: Site) -> None:
    """Whom it opens a door to is decided later, and possession of the key is proven all the same."""
    for leaf in (site.device, site.pki.self_signed("stranger")):
        client = TlsClient(TlsListener(site.tls), leaf).shake_hands()
        presented = client.connection.presented()
        assert presented is not None and presented.leaf == leaf.der


# -- new files ------------------------------------------------------------------------------------


def test_new_connections_see_new_files_and_open_ones_stay(site: Site) -> None:
    """Without a restart, the sessions of the old certificate included (X3)."""
    listener = TlsListener(site.tls)
    before = TlsClient(listener, site.device).shake_hands()
    renew(site, "renewed")
    assert site.tls.reload()
    after = TlsClient(listener, site.device).shake_hands()
    before.send(b"still here")
    assert (shown_to(before), shown_to(after)) == ("localhost", "renewed")
    assert before.application.received == [b"still here"]
    presented = after.connection.presented()
    assert presented is not None and len(presented.others) == 2


def test_sessions_are_resumed_across_new_files(site: Site) -> None:
    """A fleet need not shake hands anew because the server's certificate was renewed."""
    listener = TlsListener(site.tls)
    before = TlsClient(listener, site.device, newest=SSL.TLS1_2_VERSION).shake_hands()
    renew(site, "renewed")
    site.tls.reload()
    after = TlsClient(listener, context=before.context, session=before.ssl.get_session()).shake_hands()
    presented = after.connection.presented()
    assert presented is not None and is_resumed(after.ssl)
    assert (presented.leaf, presented.others) == (site.device.der, ())  # nobody had asked for the chain before


def test_another_kind_of_key_takes_the_place_of_the_former(site: Site) -> None:
    """Also for clients that know both."""
    listener = TlsListener(site.tls)
    renew(site, "rsa", key="rsa2048")
    assert site.tls.reload()
    assert shown_to(TlsClient(listener).shake_hands()) == "rsa"


def test_datagrams_get_the_new_certificate_too(site: Site) -> None:
    """Every context that was handed out follows."""
    site.tls.context(SSL.TLS_SERVER_METHOD)
    site.tls.context(SSL.DTLS_SERVER_METHOD)
    renew(site, "renewed")
    assert site.tls.reload()


def test_a_pair_that_does_not_fit_is_refused_and_the_old_one_stays(site: Site, lines: list[tuple[str, str]]) -> None:
    """With one line that says what is wrong."""
    listener = TlsListener(site.tls)
    renew(site, "renewed")
    site.tls.private_key.write_text(site.device.key_pem)
    assert not site.tls.reload()
    assert shown_to(TlsClient(listener).shake_hands()) == "localhost"
    assert [level for level, _ in lines] == ["error"]
    assert "does not belong to the certificate" in lines[0][1]


def test_files_are_taken_once_they_have_settled(site: Site) -> None:
    """A certificate that is written before its key is not half a pair; what was refused is not tried again."""
    listener = TlsListener(site.tls)
    assert not site.tls.reload_if_changed()
    renewed = renew(site, "renewed")
    _age(site.tls.certificate)
    assert not site.tls.reload_if_changed()  # seen
    site.tls.private_key.write_text(renewed.key_pem)
    _age(site.tls.private_key)
    assert not site.tls.reload_if_changed()  # changed again
    assert site.tls.reload_if_changed()
    assert shown_to(TlsClient(listener).shake_hands()) == "renewed"
    assert not site.tls.reload_if_changed()


def test_files_that_are_gone_are_refused_once(site: Site, lines: list[tuple[str, str]]) -> None:
    """And taken when they come back."""
    TlsListener(site.tls)
    content = site.tls.certificate.read_bytes()
    site.tls.certificate.unlink()
    for _ in range(5):
        assert not site.tls.reload_if_changed()
    assert [level for level, _ in lines] == ["error"]
    site.tls.certificate.write_bytes(content)
    site.tls.reload_if_changed()
    assert site.tls.reload_if_changed()


def _age(path: Path) -> None:
    """Another time of change, whatever the file system's clock makes of it."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000))


# -- files that cannot be used --------------------------------------------------------------------


def _failure(certificate: Path, key: Path) -> str:
    with pytest.raises(TlsFailed) as caught:
        ServerTls(certificate=certificate, private_key=key).context(SSL.TLS_SERVER_METHOD)
    return str(caught.value)


def test_files_that_cannot_be_used_are_named_with_what_is_wrong(site: Site, tmp_path: Path) -> None:
    """One sentence, before anything listens."""
    certificate, key, bad = site.tls.certificate, site.tls.private_key, tmp_path / "bad"
    assert "No such file" in _failure(tmp_path / "missing", key)
    bad.write_text("nonsense")
    assert "holds no PEM certificate" in _failure(bad, key)
    assert "holds no PEM private key" in _failure(certificate, bad)
    assert "does not belong" in _failure(*(certificate, site.device.write(tmp_path)[1]))
    secret = BestAvailableEncryption(b"secret")
    bad.write_bytes(site.server.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    assert "encrypted; store it without a password" in _failure(certificate, bad)


def test_a_certificate_with_a_key_of_an_unknown_kind_is_refused(site: Site, tmp_path: Path) -> None:
    """Cryptography does not know its curve (Chinese SM2)."""
    der = bytes.fromhex(SPKI_P256) + site.server.key.public_key().public_bytes(Encoding.X962, UNCOMPRESSED)
    other = site.server.der.replace(der, der.replace(bytes.fromhex(OID_P256), bytes.fromhex(OID_SM2)))
    assert len(other) == len(site.server.der) and other != site.server.der
    file = tmp_path / "sm2.pem"
    file.write_text(ssl.DER_cert_to_PEM_cert(other))
    assert "kind of key" in _failure(file, site.tls.private_key)


def test_a_certificate_that_openssl_finds_too_weak_is_refused(site: Site, tmp_path: Path) -> None:
    leaf = site.server_root.leaf("weak", key="rsa1024")
    assert "too small" in _failure(*leaf.write(tmp_path))


# -- strict ---------------------------------------------------------------------------------------


@pytest.fixture
def strict(tmp_path: Path) -> Site:
    site = Site(tmp_path, is_strict=True)
    site.tls.context(SSL.TLS_SERVER_METHOD)
    return site


VERSIONS = pytest.mark.parametrize("newest", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])


@VERSIONS
def test_strict_refuses_a_stranger_with_an_alert(strict: Site, lines: list[tuple[str, str]], newest: int) -> None:
    """The client hears why, and so does the log; the application hears nothing."""
    strict.tls.trust([strict.factory_root.der])
    stranger = strict.pki.root("Elsewhere").leaf("stranger")
    client = TlsClient(TlsListener(strict.tls), stranger, newest=newest).shake_hands()
    assert "alert unknown ca" in str(client.fault)
    assert client.application is None
    assert "not trusted: no CA of ours issued it" in lines[-1][1]


@VERSIONS
def test_strict_takes_what_leads_to_an_anchor_be_it_no_root(strict: Site, newest: int) -> None:
    for anchor in (strict.factory_root, strict.line):
        strict.tls.trust([anchor.der])
        client = TlsClient(TlsListener(strict.tls), strict.device, newest=newest).shake_hands()
        assert client.application is not None


def test_strict_refuses_everybody_while_it_trusts_nobody(strict: Site) -> None:
    """Closed until the anchors are known."""
    client = TlsClient(TlsListener(strict.tls), strict.device).shake_hands()
    assert client.application is None


def test_strict_lets_in_who_shows_no_certificate(strict: Site) -> None:
    """A token may open the door."""
    assert TlsClient(TlsListener(strict.tls)).shake_hands().application is not None


def test_strict_refuses_what_has_expired(strict: Site, lines: list[tuple[str, str]]) -> None:
    strict.tls.trust([strict.factory_root.der])
    now = strict.pki.now
    expired = strict.line.leaf("old", not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))
    client = TlsClient(TlsListener(strict.tls), expired).shake_hands()
    assert "alert certificate expired" in str(client.fault)
    assert "it has expired" in lines[-1][1]


def test_anchors_may_change_while_it_runs(strict: Site) -> None:
    """For new connections; who is in stays."""
    listener = TlsListener(strict.tls)
    strict.tls.trust([strict.factory_root.der])
    before = TlsClient(listener, strict.device).shake_hands()
    strict.tls.trust([strict.pki.root("Other").der])
    after = TlsClient(listener, strict.device).shake_hands()
    before.send(b"still here")
    assert (before.application.received, after.application) == ([b"still here"], None)


@VERSIONS
def test_strict_looks_at_the_certificate_each_time(strict: Site, newest: int) -> None:
    """A session of before, which TLS would resume unseen, opens nothing once its CA is trusted no more."""
    listener = TlsListener(strict.tls)
    strict.tls.trust([strict.factory_root.der])
    before = TlsClient(listener, strict.device, newest=newest).shake_hands()
    assert before.application is not None
    strict.tls.trust([])
    after = TlsClient(listener, context=before.context, session=before.ssl.get_session()).shake_hands()
    assert after.application is None


def test_an_anchor_that_is_no_certificate_does_not_count(strict: Site) -> None:
    """The others do."""
    strict.tls.trust([b"nonsense", strict.factory_root.der])
    assert TlsClient(TlsListener(strict.tls), strict.device).shake_hands().application is not None


def test_strict_shows_new_files_too(strict: Site) -> None:
    """The anchors stay when the server's certificate is renewed."""
    listener = TlsListener(strict.tls)
    strict.tls.trust([strict.factory_root.der])
    renew(strict, "renewed")
    assert strict.tls.reload()
    client = TlsClient(listener, context=client_context(strict.device)).shake_hands()
    assert (client.application is not None, shown_to(client)) == (True, "renewed")


# -- what resumed sessions leave out --------------------------------------------------------------


def test_what_is_remembered_for_resumed_sessions_is_bounded() -> None:
    """In bytes, the least lately used goes first; too much of one device is not kept at all."""
    kept = Intermediates(max_bytes=300)
    for leaf in (b"1", b"2", b"3"):
        kept.remember(leaf, (bytes(60), bytes(40)))
    assert kept.of(b"1") == (bytes(60), bytes(40))
    kept.remember(b"4", (bytes(100),))
    assert [len(kept.of(leaf)) for leaf in (b"1", b"2", b"3", b"4")] == [2, 0, 2, 1]
    kept.remember(b"4", ())
    kept.remember(b"5", (bytes(16_385),))
    assert [len(kept.of(leaf)) for leaf in (b"1", b"3", b"4", b"5")] == [2, 2, 0, 0]


# -- the end of a certificate ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [(-300, "info", "valid until"), (-29, "warn", "soon"), (1, "error", "has ended"), (-367, "error", "only from")],
)
def test_the_end_of_the_servers_certificate_is_announced(
    site: Site, lines: list[tuple[str, str]], days: int, level: str, words: str
) -> None:
    """With its subject, and louder as it comes near; `days` are those since it ended."""
    site.tls.context(SSL.TLS_SERVER_METHOD)
    shown = site.tls.expiry()
    assert shown is not None and shown.not_after_ms == certificates.not_after_ms(site.server.certificate)
    site.tls.report(shown.not_after_ms + days * DAY_MS)
    assert lines[-1][0] == level
    assert words in lines[-1][1] and "CN=localhost" in lines[-1][1]


def test_before_the_first_context_there_is_nothing_to_announce(site: Site) -> None:
    site.tls.report(server_now_ms())
    assert site.tls.expiry() is None
