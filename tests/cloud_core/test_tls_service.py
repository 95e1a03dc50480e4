"""What looks after the server's certificate while the core runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.task import Clock

from cloud_core.config import load
from cloud_core.service import StartFailed, open_tls
from cloud_core.tls_service import LOOK_S, REPORT_S, RETRY_S, TlsService, server_tls
from shared.errors import Unavailable
from tests.support.pki import SERVER
from tests.support.tls import RecorderFactory, Site, TlsClient, TlsListener


class AnchorsFake:
    """`core.certificate_logins.CertificateLogins`, as far as anchors go; answers when the test says so."""

    def __init__(self) -> None:
        self.outcome: Any = []
        self.waiting: list[Callable[[Any], None]] = []
        self.changed: list[Callable[[], None]] = []

    def anchors(self, done: Any) -> None:
        self.waiting.append(done)

    def on_anchors_changed(self, callback: Callable[[], None]) -> None:
        self.changed.append(callback)

    def answer(self, outcome: Any) -> None:
        self.waiting.pop(0)(outcome)


class ReactorFake(Clock):
    def callFromThread(self, call: Callable[[], object]) -> None:
        call()


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The process keeps its own answer to SIGHUP."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def serving(site: Site) -> tuple[TlsService, ReactorFake]:
    reactor = ReactorFake()
    service = TlsService(site.tls, reactor=reactor, handshake_s=10.0)
    service.factory(RecorderFactory(), name="mqtts")
    return service, reactor


def test_all_listeners_share_one_context(tmp_path: Path) -> None:
    """A session that began on one port is resumed on the other."""
    service, _ = serving(Site(tmp_path))
    https, mqtts = (service.factory(RecorderFactory(), name=name) for name in ("https", "mqtts"))
    assert https.context is mqtts.context


def test_new_files_are_found_within_seconds(tmp_path: Path) -> None:
    site = Site(tmp_path)
    service, reactor = serving(site)
    service.start()
    site.server_root.leaf("renewed", extended_usage=(SERVER,)).write(site.folder, "server")
    reactor.pump([LOOK_S] * 2)
    shown = site.tls.expiry()
    assert shown is not None and shown.subject == "CN=renewed"
    service.stop()


def test_a_hang_up_takes_new_files_at_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    service, _ = serving(site)
    service.start()
    site.server_root.leaf("renewed", extended_usage=(SERVER,)).write(site.folder, "server")
    signal.raise_signal(signal.SIGHUP)
    shown = site.tls.expiry()
    assert shown is not None and shown.subject == "CN=renewed"
    service.stop()


def test_the_end_of_the_certificate_is_said_at_start_and_once_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing goes on when the core has stopped."""
    site = Site(tmp_path)
    said: list[int] = []
    monkeypatch.setattr(site.tls, "report", said.append)
    service, reactor = serving(site)
    service.start()
    reactor.advance(REPORT_S)
    assert len(said) == 2
    service.stop()
    assert reactor.getDelayedCalls() == []


def test_strict_waits_for_the_anchors_and_follows_them(tmp_path: Path) -> None:
    """Nobody is refused because the core has just started, nor let in by a CA that was removed."""
    site, anchors = Site(tmp_path, is_strict=True), AnchorsFake()
    service, _ = serving(site)
    fired: list[Any] = []
    service.trusting(anchors).addCallback(fired.append)
    assert fired == []
    anchors.answer([site.factory_root.der])
    listener = TlsListener(site.tls)
    assert fired == [None] and TlsClient(listener, site.device).shake_hands().application is not None
    anchors.changed[0]()
    anchors.answer([])
    assert TlsClient(listener, site.device).shake_hands().application is None


def test_anchors_that_cannot_be_read_stay_as_they_were(tmp_path: Path) -> None:
    """A busy database opens no door and closes none."""
    site, anchors = Site(tmp_path, is_strict=True), AnchorsFake()
    service, _ = serving(site)
    service.trusting(anchors)
    anchors.answer([site.factory_root.der])
    anchors.changed[0]()
    anchors.answer(Unavailable())
    assert TlsClient(TlsListener(site.tls), site.device).shake_hands().application is not None


def test_anchors_that_could_not_be_read_are_asked_for_again(tmp_path: Path) -> None:
    """Also at start: without them nobody would get in until the next change."""
    site, anchors = Site(tmp_path, is_strict=True), AnchorsFake()
    service, reactor = serving(site)
    fired: list[Any] = []
    service.trusting(anchors).addCallback(fired.append)
    anchors.answer(Unavailable())
    assert fired == [None]
    reactor.advance(RETRY_S)
    anchors.answer([site.factory_root.der])
    assert TlsClient(TlsListener(site.tls), site.device).shake_hands().application is not None
    assert reactor.getDelayedCalls() == [] and anchors.waiting == []


def test_many_changes_of_the_anchors_are_one_question_at_a_time(tmp_path: Path) -> None:
    """The last answer is to a question behind the last change."""
    site, anchors = Site(tmp_path, is_strict=True), AnchorsFake()
    service, _ = serving(site)
    service.trusting(anchors)
    for _change in range(3):
        anchors.changed[0]()
    assert len(anchors.waiting) == 1
    anchors.answer([site.factory_root.der])
    anchors.answer([])
    assert anchors.waiting == []
    assert TlsClient(TlsListener(site.tls), site.device).shake_hands().application is None


def test_nothing_is_asked_when_the_core_has_stopped(tmp_path: Path) -> None:
    site, anchors = Site(tmp_path, is_strict=True), AnchorsFake()
    service, reactor = serving(site)
    service.trusting(anchors)
    anchors.answer(Unavailable())
    service.stop()
    anchors.changed[0]()
    assert reactor.getDelayedCalls() == [] and anchors.waiting == []


def test_an_error_of_ours_does_not_end_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are looked at again the next time."""
    site = Site(tmp_path)
    looks: list[None] = []

    def broken() -> bool:
        looks.append(None)
        raise RuntimeError("of ours")

    monkeypatch.setattr(site.tls, "reload_if_changed", broken)
    service, reactor = serving(site)
    service.start()
    reactor.pump([LOOK_S] * 2)
    assert len(looks) == 2
    service.stop()


def test_without_a_certificate_there_is_no_tls(tmp_path: Path) -> None:
    assert server_tls(load(None, {}, {}, data_dir=str(tmp_path))) is None


def test_the_configuration_says_how_strict_it_is(tmp_path: Path) -> None:
    """With the certificate for development too."""
    options = {"tls": {"development": True, "client_certificates": "strict"}}
    tls = server_tls(load(None, {}, options, data_dir=str(tmp_path)))
    assert tls is not None and tls.is_strict
    assert tls.context(SSL.TLS_SERVER_METHOD) is not None


def test_damaged_files_for_development_stop_the_start(tmp_path: Path) -> None:
    """With one sentence."""
    config = load(None, {}, {"tls": {"development": True}}, data_dir=str(tmp_path))
    server_tls(config)
    (tmp_path / "dev-tls" / "ca.pem").write_text("nonsense")
    with pytest.raises(StartFailed, match="remove that directory"):
        open_tls(config, Clock())
