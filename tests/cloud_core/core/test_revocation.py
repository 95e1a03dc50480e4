"""Checks of a path for revocation: what is asked, in which order, what is kept, and what no answer means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as ocsp_library
from cryptography.x509.ocsp import OCSPCertStatus

from cloud_core.core.certificates import revocation
from cloud_core.core.certificates.revocation import FetchFailed, RevocationChecker
from cloud_core.core.certificates.trust import Fault
from cloud_core.model import Revocation
from shared.errors import UntrustedCertificate
from tests.support.pki import Holder, Leaf, Pki

PKI = Pki()
NOW_MS = int(PKI.now.timestamp() * 1000)
MINUTE_MS = 60_000
ROOT_CRL, LINE_CRL, OCSP = "http://ca.example/root.crl", "https://ca.example:8443/line.crl", "http://ocsp.example/"
ROOT = PKI.root("Root")
LINE = ROOT.intermediate("Line", crl_url=ROOT_CRL, ocsp_url=OCSP)
DEVICE = LINE.leaf("sensor-1", crl_url=LINE_CRL, ocsp_url=OCSP)
CRL, BOTH, ONLY_OCSP = Revocation(crl=True), Revocation(crl=True, ocsp=True), Revocation(ocsp=True)


class Web:
    """Answers at once, by address, or later when `is_slow`."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | FetchFailed | Callable[[bytes], bytes]] = {
            ROOT_CRL: ROOT.crl(), LINE_CRL: LINE.crl(),
        }  # fmt: skip
        self.asked: list[str] = []
        self.under_way: list[Callable[[], None]] = []
        self.is_slow = False

    def fetch(self, url: str, body: bytes | None, content_type: str, done: Any) -> None:
        assert (content_type == "application/ocsp-request") == (body is not None)
        self.asked.append(url)
        page = self.pages.get(url, FetchFailed("it answered with status 404"))
        outcome = page(body or b"") if callable(page) else page
        if self.is_slow:
            self.under_way.append(lambda: done(outcome))
        else:
            done(outcome)

    def answer(self) -> None:
        waiting, self.under_way = self.under_way, []
        for one in waiting:
            one()


class Checked:
    def __init__(self) -> None:
        self.web = Web()
        self.checker = RevocationChecker(fetch=self.web.fetch)

    def start(self, policy: Revocation, now_ms: int = NOW_MS, leaf: Leaf = DEVICE) -> list[Any]:
        """What `done` is called with, perhaps later."""
        outcomes: list[Any] = []
        path = [leaf.certificate, *(ca.certificate for ca in leaf.chain)]
        self.checker.check(path, policy, now_ms, outcomes.append)
        return outcomes

    def outcome(self, policy: Revocation, now_ms: int = NOW_MS, leaf: Leaf = DEVICE) -> UntrustedCertificate | None:
        (outcome,) = self.start(policy, now_ms, leaf)
        assert outcome is None or isinstance(outcome, UntrustedCertificate)
        return outcome


@pytest.fixture
def checked() -> Checked:
    return Checked()


def responding(*revoked: Holder, status: OCSPCertStatus = OCSPCertStatus.GOOD) -> Callable[[bytes], bytes]:
    """An OCSP server of both CAs."""

    def answer(body: bytes) -> bytes:
        request = ocsp_library.load_der_ocsp_request(body)
        nonce = request.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
        about: Holder = next(one for one in (DEVICE, LINE) if one.certificate.serial_number == request.serial_number)
        assert about.issuer
        return about.issuer.ocsp(about, OCSPCertStatus.REVOKED if about in revoked else status, nonce=nonce)

    return answer


def test_nothing_is_asked_when_it_is_off(checked: Checked) -> None:
    """The default."""
    assert checked.outcome(Revocation()) is None
    assert checked.web.asked == []


def test_leaf_and_intermediates_are_looked_up_where_they_say(checked: Checked) -> None:
    """Not the anchor, which says nothing."""
    assert checked.outcome(CRL) is None
    assert checked.web.asked == [LINE_CRL, ROOT_CRL]


@pytest.mark.parametrize("who", [DEVICE, LINE], ids=["device", "intermediate"])
@pytest.mark.parametrize("policy", [CRL, ONLY_OCSP, BOTH, Revocation(crl=True, allows_unknown=True)], ids=str)
def test_what_was_revoked_is_refused(checked: Checked, who: Holder, policy: Revocation) -> None:
    """Whoever says it; the sentence names the certificate and the host."""
    assert who.issuer
    checked.web.pages |= {ROOT_CRL: ROOT.crl(LINE), LINE_CRL: LINE.crl(DEVICE)}
    checked.web.pages[LINE_CRL if who is DEVICE else ROOT_CRL] = who.issuer.crl(who)
    if who is LINE:
        checked.web.pages[LINE_CRL] = LINE.crl()
    checked.web.pages[OCSP] = responding(who)
    refused = checked.outcome(policy)
    assert refused
    assert refused.fault == Fault.REVOKED
    assert who.certificate.subject.rfc4514_string() in refused.detail
    assert ("ocsp.example" if policy.ocsp else "ca.example") in refused.detail


def test_ocsp_comes_first_and_one_good_answer_is_enough(checked: Checked) -> None:
    """Lists are asked where OCSP has none."""
    checked.web.pages[OCSP] = responding()
    assert checked.outcome(BOTH) is None
    assert checked.web.asked == [OCSP, OCSP]
    checked.web.asked.clear()
    checked.web.pages[OCSP] = responding(status=OCSPCertStatus.UNKNOWN)
    fresh = Checked()
    fresh.web.pages |= checked.web.pages
    assert fresh.outcome(BOTH) is None
    assert fresh.web.asked == [OCSP, LINE_CRL, OCSP, ROOT_CRL]


def test_no_answer_is_a_refusal_that_names_the_host(checked: Checked) -> None:
    """And its reason; not the rest of the address, which may hold secrets."""
    secret = "http://ca.example/CANARY?key=CANARY"
    leaf = LINE.leaf("device", crl_url=secret, ocsp_url=OCSP)
    checked.web.pages[secret] = FetchFailed("no answer in time")
    refused = checked.outcome(BOTH, leaf=leaf)
    assert refused
    assert refused.fault == Fault.STATUS_UNKNOWN
    assert "OCSP of ocsp.example: it answered with status 404" in refused.detail
    assert "the CRL of ca.example: no answer in time" in refused.detail
    assert "CANARY" not in refused.detail


def test_unknown_can_be_allowed(checked: Checked) -> None:
    """A switch of the policy; what is known to be revoked stays refused."""
    checked.web.pages.clear()
    assert checked.outcome(Revocation(crl=True, ocsp=True, allows_unknown=True)) is None


def test_a_certificate_that_names_no_place_is_unknown(checked: Checked) -> None:
    """The sentence says which settings mend it."""
    leaf = ROOT.leaf("device")
    refused = checked.outcome(BOTH, leaf=leaf)
    assert refused
    assert refused.fault == Fault.STATUS_UNKNOWN
    assert "crlUrl" in refused.detail
    assert checked.outcome(Revocation(crl=True, allows_unknown=True), leaf=leaf) is None


def test_the_addresses_of_the_policy_win(checked: Checked) -> None:
    """For every certificate of the path; one file may hold the lists of both CAs."""
    lists = [x509.load_der_x509_crl(one).public_bytes(Encoding.PEM) for one in (ROOT.crl(), LINE.crl(DEVICE))]
    checked.web.pages["http://mirror.example/all.pem"] = b"".join(lists)
    refused = checked.outcome(Revocation(crl=True, crl_url="http://mirror.example/all.pem"))
    assert refused
    assert refused.fault == Fault.REVOKED
    assert set(checked.web.asked) == {"http://mirror.example/all.pem"}
    checked.web.pages["http://other.example/"] = responding()
    assert checked.outcome(Revocation(ocsp=True, ocsp_url="http://other.example/")) is None
    assert OCSP not in checked.web.asked


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://ca.example/crl", "gopher://x", "http://", "http://a\nb/"])
def test_only_the_web_is_asked(checked: Checked, url: str) -> None:
    """Whatever a policy says."""
    assert checked.outcome(Revocation(crl=True, ocsp=True, crl_url=url, ocsp_url=url))
    assert checked.web.asked == []


def test_answers_are_kept(checked: Checked) -> None:
    """A list for all that its CA has issued, an OCSP answer for its certificate."""
    checked.web.pages[OCSP] = responding()
    for policy in (CRL, ONLY_OCSP):
        assert checked.outcome(policy) is None
        checked.web.asked.clear()
        assert checked.outcome(policy, NOW_MS + MINUTE_MS) is None
        assert checked.web.asked == []
    assert checked.outcome(CRL, leaf=LINE.leaf("sensor-2", crl_url=LINE_CRL)) is None
    assert checked.web.asked == []


def test_what_is_kept_is_renewed_behind_a_check_that_still_uses_it(checked: Checked) -> None:
    """After an hour; what is new counts from the next check on."""
    assert checked.outcome(CRL) is None
    checked.web.asked.clear()
    checked.web.pages[LINE_CRL] = LINE.crl(DEVICE)
    assert checked.outcome(CRL, NOW_MS + 61 * MINUTE_MS) is None
    assert checked.web.asked == [LINE_CRL, ROOT_CRL]
    refused = checked.outcome(CRL, NOW_MS + 62 * MINUTE_MS)
    assert refused
    assert refused.fault == Fault.REVOKED
    assert checked.web.asked == [LINE_CRL, ROOT_CRL]


def test_what_is_kept_is_used_until_its_end_and_no_longer(checked: Checked) -> None:
    """When it cannot be renewed; and renewal is not tried at each check."""
    assert checked.outcome(CRL) is None
    checked.web.pages.clear()
    checked.web.asked.clear()
    for after_s in range(10):
        assert checked.outcome(CRL, NOW_MS + 22 * 60 * MINUTE_MS + after_s * 1000) is None
    assert checked.web.asked == [LINE_CRL, ROOT_CRL]
    refused = checked.outcome(CRL, NOW_MS + 23 * 60 * MINUTE_MS + 1)
    assert refused
    assert refused.fault == Fault.STATUS_UNKNOWN


def test_a_short_answer_is_renewed_before_its_end(checked: Checked) -> None:
    """When nine tenths of what was left of it are over."""
    short = timedelta(hours=1, minutes=10)  # ten minutes are left
    checked.web.pages |= {ROOT_CRL: ROOT.crl(valid_for=short), LINE_CRL: LINE.crl(valid_for=short)}
    assert checked.outcome(CRL) is None
    assert checked.outcome(CRL, NOW_MS + 8 * MINUTE_MS) is None
    assert len(checked.web.asked) == 2
    checked.web.is_slow = True
    assert checked.outcome(CRL, NOW_MS + 9 * MINUTE_MS + 1) is None
    assert checked.outcome(CRL, NOW_MS + 9 * MINUTE_MS + 2) is None
    assert len(checked.web.asked) == 4


def test_each_question_is_asked_once_however_many_wait(checked: Checked) -> None:
    """All get the answer."""
    checked.web.is_slow = True
    waiting = [checked.start(CRL) for _ in range(5)]
    assert checked.web.asked == [LINE_CRL]
    checked.web.answer()
    assert checked.web.asked == [LINE_CRL, ROOT_CRL]
    assert waiting == [[]] * 5
    checked.web.answer()
    assert waiting == [[None]] * 5


def test_a_failure_is_remembered_for_a_short_time(checked: Checked) -> None:
    """The address is left alone, then asked again."""
    checked.web.pages.clear()
    for _ in range(3):
        refused = checked.outcome(CRL)
        assert refused
        assert "status 404" in refused.detail
    assert checked.web.asked == [LINE_CRL]
    checked.web.pages |= Web().pages
    assert checked.outcome(CRL, NOW_MS + revocation.FAILURE_MS) is None


def test_a_failure_is_not_remembered_by_a_clock_that_was_put_back(checked: Checked) -> None:
    """Nobody would be asked until it is where it was."""
    pages, checked.web.pages = checked.web.pages, {}
    assert checked.outcome(CRL, NOW_MS + 60_000) is not None
    checked.web.pages = pages
    assert checked.outcome(CRL, NOW_MS) is None


def test_what_an_address_says_wrongly_of_one_ca_does_not_count_for_another(checked: Checked) -> None:
    """Somebody's policy that points to a list of somebody else's harms nobody."""
    policy = Revocation(crl=True, crl_url=ROOT_CRL)
    refused = checked.outcome(policy)
    assert refused
    assert "by another CA" in refused.detail
    assert checked.outcome(policy, leaf=ROOT.leaf("device")) is None


def test_requests_under_way_are_bounded_and_the_rest_waits(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of those that wait too many are refused."""
    monkeypatch.setattr(revocation, "MAX_ASKING", 2)
    monkeypatch.setattr(revocation, "MAX_WAITING", 2)
    checked.web.is_slow = True
    leaves = [ROOT.leaf(f"device-{number}", ocsp_url=OCSP) for number in range(5)]
    checked.web.pages[OCSP] = lambda body: next(
        ROOT.ocsp(one) for one in leaves
        if one.certificate.serial_number == ocsp_library.load_der_ocsp_request(body).serial_number
    )  # fmt: skip
    outcomes = [checked.start(ONLY_OCSP, leaf=leaf) for leaf in leaves]
    assert len(checked.web.asked) == 2
    (refused,) = outcomes.pop()
    assert "too many other checks" in refused.detail
    checked.web.answer()
    assert (outcomes, len(checked.web.asked)) == ([[None], [None], [], []], 4)
    checked.web.answer()
    assert outcomes == [[None]] * 4


def test_a_long_queue_of_requests_that_fail_at_once_is_worked_off(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one call inside the other for each."""
    monkeypatch.setattr(revocation, "MAX_ASKING", 1)
    checked.web.is_slow = True
    leaves = [ROOT.leaf(f"device-{number}", ocsp_url=f"http://host-{number}/") for number in range(800)]
    outcomes = [checked.start(ONLY_OCSP, leaf=leaf) for leaf in leaves]
    checked.web.is_slow = False
    checked.web.answer()
    assert {one[0].fault for one in outcomes} == {Fault.STATUS_UNKNOWN}


def test_what_is_kept_is_bounded(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """By count and by bytes; the least recently used goes first."""
    monkeypatch.setattr(revocation, "MAX_KEPT", 2)
    assert checked.outcome(CRL) is None
    leaf = ROOT.leaf("device", crl_url="http://third.example/")
    checked.web.pages["http://third.example/"] = ROOT.crl()
    assert checked.outcome(CRL, leaf=leaf) is None
    checked.web.asked.clear()
    assert checked.outcome(CRL, leaf=leaf) is None
    assert checked.web.asked == []
    assert checked.outcome(CRL) is None
    assert checked.web.asked == [LINE_CRL, ROOT_CRL]
    monkeypatch.setattr(revocation, "MAX_KEPT_BYTES", 10)
    assert checked.outcome(CRL, leaf=leaf) is None
    checked.web.asked.clear()
    assert checked.outcome(CRL, leaf=leaf) is None
    assert checked.web.asked == ["http://third.example/"]


def test_remembered_failures_are_bounded(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first."""
    monkeypatch.setattr(revocation, "MAX_FAILURES", 2)
    leaves = [ROOT.leaf(f"device-{number}", ocsp_url=f"http://host-{number}/") for number in range(3)]
    for leaf in (*leaves, leaves[0], leaves[0]):
        assert checked.outcome(ONLY_OCSP, leaf=leaf)
    assert checked.web.asked == [f"http://host-{number}/" for number in (0, 1, 2, 0)]
