"""Whether the certificates of a path have been revoked, by what their CAs publish: OCSP first, else lists (CRL).

The leaf and the CAs between it and the anchor are looked at, not the anchor. One good answer is enough; one that says
"revoked" ends it. Where no answer can be had the path is refused, unless the policy allows unknown ones. Answers are
kept until their end, or for an hour and then renewed behind a check that still uses them; that an address fails is
remembered for half a minute. Each question is asked once, however many wait for it.

The address in the policy wins over those in the certificates. Time comes in as `now_ms`, answers through `fetch`.

Source: RFC 5280 section 6.3, RFC 6960.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Protocol
from urllib.parse import urlsplit

from cryptography import x509

from cloud_core.core.certificates import crl, ocsp, trust_faults
from cloud_core.core.certificates.crl import RevocationList, Revoked, StatusUnusable
from cloud_core.core.certificates.trust_faults import Fault, of, refusal
from cloud_core.entropy import random_bytes
from cloud_core.model import Revocation
from shared import certificates
from shared.errors import UntrustedCertificate

FRESH_MS = 3_600_000  # an answer that is older is renewed, if it is still valid
FAILURE_MS = 30_000
MAX_ADDRESSES = 3  # of one kind that are tried for a certificate
MAX_KEPT = 50_000  # answers
MAX_KEPT_BYTES = 64 << 20
MAX_FAILURES = 10_000
MAX_ASKING = 64  # requests under way at a time
MAX_WAITING = 1_000  # questions that wait for one of these
ANSWER_BYTES = 500  # what one answer about one certificate takes, roughly


class FetchFailed(Exception):
    """`str()` is the reason, for people: no address in it."""


class Fetch(Protocol):
    """Gets what is at `url`; posts `body` there if it is not None.

    `done` gets the content of a 200 answer, within seconds and at most 4 MiB; it may be called at once.
    """

    def __call__(
        self, url: str, body: bytes | None, content_type: str, done: Callable[[bytes | FetchFailed], None]
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class _Question:
    """About one certificate (OCSP), or about all that a CA has issued (a list), at one address."""

    url: str
    subject: bytes  # fingerprint: of the certificate, or of the CA
    places: tuple[str, ...] = ()  # of a list: where it may say that it belongs
    is_about_cas: bool = False
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: ocsp.Answer | RevocationList
    renew_ms: int
    until_ms: int
    bytes: int


Answered = Callable[["ocsp.Answer | RevocationList | StatusUnusable"], None]


@dataclass(slots=True)
class _Asked:
    """A request that is under way, or waits to be."""

    certificate: x509.Certificate
    issuer: x509.Certificate
    now_ms: int
    waiting: list[Answered] = field(default_factory=list)


class RevocationChecker:
    """Asks, keeps what it hears, and judges paths by it."""

    def __init__(self, *, fetch: Fetch) -> None:
        self._fetch = fetch
        self._kept: OrderedDict[_Question, _Kept] = OrderedDict()
        self._kept_bytes = 0
        # What failed -> until when it is left alone, and why. An address, or what it said of one CA or certificate.
        self._failures: OrderedDict[str | _Question, tuple[int, str]] = OrderedDict()
        self._is_sending = False
        self._asking: dict[_Question, _Asked] = {}
        self._queued: OrderedDict[_Question, _Asked] = OrderedDict()

    def check(
        self,
        path: Sequence[x509.Certificate],
        policy: Revocation,
        now_ms: int,
        done: Callable[[UntrustedCertificate | None], None],
    ) -> None:
        """`path` is the leaf, CAs and the anchor, each issued by the next. `done` is called once, perhaps at once."""
        if not policy.is_on:
            done(None)
            return
        _PathCheck(self, path, policy, now_ms, done).next_certificate()

    def ask(
        self, question: _Question, certificate: x509.Certificate, issuer: x509.Certificate, now_ms: int,
        answered: Answered,
    ) -> None:  # fmt: skip
        """The answer that is kept, or else a new one."""
        kept = self._kept.get(question)
        if kept and now_ms <= kept.until_ms:
            self._kept.move_to_end(question)
            if now_ms >= kept.renew_ms and self._failure(question, now_ms) is None:
                self._start(question, _Asked(certificate, issuer, now_ms))
            answered(kept.answer)
            return
        under_way = self._asking.get(question) or self._queued.get(question)
        failure = self._failure(question, now_ms)
        if under_way:
            under_way.waiting.append(answered)
        elif failure is not None:
            answered(StatusUnusable(failure))
        else:
            self._start(question, _Asked(certificate, issuer, now_ms, [answered]))

    def _start(self, question: _Question, asked: _Asked) -> None:
        if question in self._asking or question in self._queued:
            return
        if len(self._asking) < MAX_ASKING and not self._is_fetched(question):
            self._send(question, asked)
        elif len(self._queued) < MAX_WAITING:
            self._queued[question] = asked
        else:
            for answered in asked.waiting:
                answered(StatusUnusable("too many other checks are waiting"))

    def _is_fetched(self, question: _Question) -> bool:
        """Lists of one address, for several CAs of one path, are fetched one after the other."""
        return question.is_list and any(one.is_list and one.url == question.url for one in self._asking)

    def _send(self, question: _Question, asked: _Asked) -> None:
        self._asking[question] = asked
        nonce = b"" if question.is_list else random_bytes(ocsp.NONCE_BYTES)
        body = None if question.is_list else ocsp.request(asked.certificate, asked.issuer, nonce)
        content_type = "" if question.is_list else ocsp.REQUEST_TYPE

        def fetched(outcome: bytes | FetchFailed) -> None:
            self._fetched(question, nonce, outcome)

        self._fetch(question.url, body, content_type, fetched)

    def _fetched(self, question: _Question, nonce: bytes, outcome: bytes | FetchFailed) -> None:
        asked = self._asking.pop(question)
        answer: ocsp.Answer | RevocationList | StatusUnusable
        try:
            if isinstance(outcome, FetchFailed):
                raise StatusUnusable(str(outcome))
            answer = _read(question, asked, nonce, outcome)
        except StatusUnusable as error:
            answer = error
            what = question.url if isinstance(outcome, FetchFailed) else question
            self._fail(what, asked.now_ms, str(error))
        else:
            self._keep(question, answer, asked.now_ms)
        for answered in asked.waiting:
            answered(answer)
        self._send_queued()

    def _send_queued(self) -> None:
        if self._is_sending:
            return  # by the loop below, whose request failed at once
        self._is_sending = True
        try:
            self._send_what_waits()
        finally:
            self._is_sending = False

    def _send_what_waits(self) -> None:
        while len(self._asking) < MAX_ASKING:
            question = next((one for one in self._queued if not self._is_fetched(one)), None)
            if question is None:
                return
            self._send(question, self._queued.pop(question))

    def _keep(self, question: _Question, answer: ocsp.Answer | RevocationList, now_ms: int) -> None:
        until_ms = _ms(answer.until)
        renew_ms = min(now_ms + FRESH_MS, until_ms - (until_ms - now_ms) // 10)
        size = answer.bytes if isinstance(answer, RevocationList) else ANSWER_BYTES
        self._forget(question)
        self._kept[question] = _Kept(answer, renew_ms, until_ms, size)
        self._kept_bytes += size
        while len(self._kept) > MAX_KEPT or self._kept_bytes > MAX_KEPT_BYTES:
            self._forget(next(iter(self._kept)))

    def _forget(self, question: _Question) -> None:
        kept = self._kept.pop(question, None)
        self._kept_bytes -= kept.bytes if kept else 0

    def _fail(self, what: str | _Question, now_ms: int, why: str) -> None:
        self._failures[what] = now_ms + FAILURE_MS, why
        self._failures.move_to_end(what)
        while len(self._failures) > MAX_FAILURES:
            self._failures.popitem(last=False)

    def _failure(self, question: _Question, now_ms: int) -> str | None:
        for what in (question, question.url):
            until_ms, why = self._failures.get(what, (0, ""))
            if until_ms - FAILURE_MS <= now_ms < until_ms:
                return why
        return None


class _PathCheck:
    """One path, certificate by certificate, address by address."""

    def __init__(
        self,
        checker: RevocationChecker,
        path: Sequence[x509.Certificate],
        policy: Revocation,
        now_ms: int,
        done: Callable[[UntrustedCertificate | None], None],
    ) -> None:
        self._checker = checker
        self._rest = list(pairwise(path))
        self._policy = policy
        self._now_ms = now_ms
        self._done = done
        self._questions: list[_Question] = []
        self._failed: list[str] = []

    def next_certificate(self) -> None:
        if not self._rest:
            self._done(None)
            return
        certificate, issuer = self._rest[0]
        self._failed = []
        self._questions = _questions(certificate, issuer, self._policy)
        self._next_address()

    def _next_address(self) -> None:
        certificate, issuer = self._rest[0]
        if not self._questions:
            self._unknown(certificate)
            return
        question = self._questions.pop(0)

        def answered(answer: ocsp.Answer | RevocationList | StatusUnusable) -> None:
            source = f"{'the CRL' if question.is_list else 'OCSP'} of {_host(question.url)}"
            if isinstance(answer, StatusUnusable):
                self._failed.append(f"{source}: {answer}")
                self._next_address()
                return
            revoked = answer.status(certificate) if isinstance(answer, RevocationList) else answer.revoked
            if revoked:
                self._done(_revoked(certificate, revoked, source))
                return
            self._pass()

        self._checker.ask(question, certificate, issuer, self._now_ms, answered)

    def _pass(self) -> None:
        self._rest.pop(0)
        self.next_certificate()

    def _unknown(self, certificate: x509.Certificate) -> None:
        if self._policy.allows_unknown:
            self._pass()
        else:
            self._done(_unknown(certificate, self._failed))


def _questions(certificate: x509.Certificate, issuer: x509.Certificate, policy: Revocation) -> list[_Question]:
    """In the order in which they are asked, without repetitions."""
    found: list[_Question] = []
    if policy.ocsp:
        subject = certificates.fingerprint(certificates.der(certificate))
        urls = [policy.ocsp_url] if policy.ocsp_url else ocsp.urls_of(certificate)
        found += [_Question(url, subject) for url in urls[:MAX_ADDRESSES]]
    if policy.crl:
        subject = certificates.fingerprint(certificates.der(issuer))
        own = crl.urls_of(certificate)[:MAX_ADDRESSES]
        urls = [policy.crl_url] if policy.crl_url else own
        places = tuple(dict.fromkeys((*urls, *own)))
        is_ca = trust_faults.is_ca(certificate)
        found += [_Question(url, subject, places, is_about_cas=is_ca, is_list=True) for url in urls]
    return list(dict.fromkeys(one for one in found if crl.is_web_address(one.url)))


def _read(question: _Question, asked: _Asked, nonce: bytes, raw: bytes) -> ocsp.Answer | RevocationList:
    """Raises: StatusUnusable."""
    now = trust_faults.second_of(asked.now_ms)
    if question.is_list:
        return crl.read(raw, asked.issuer, question.places, now, is_about_cas=question.is_about_cas)
    return ocsp.read(raw, asked.certificate, asked.issuer, nonce, now)


def _revoked(certificate: x509.Certificate, revoked: Revoked, source: str) -> UntrustedCertificate:
    why = f" ({revoked.reason})" if revoked.reason else ""
    at = revoked.at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return refusal(
        Fault.REVOKED,
        f"The certificate {of(certificate)} was revoked at {at}{why}, says {source}: give the device a new one.",
    )


def _unknown(certificate: x509.Certificate, failed: Sequence[str]) -> UntrustedCertificate:
    name = of(certificate)
    if not failed:
        return refusal(
            Fault.STATUS_UNKNOWN,
            f"Neither the certificate {name} nor the profile says where to learn whether it was revoked: set crlUrl or "
            "ocspUrl in the profile, or allowUnknown.",
        )
    return refusal(
        Fault.STATUS_UNKNOWN,
        f"Whether the certificate {name} was revoked could not be learnt from {'; '.join(failed)}: mend that, or set "
        "allowUnknown in the profile.",
    )


def _host(url: str) -> str:
    """The rest of an address may hold secrets."""
    return (urlsplit(url).hostname or "")[:100]


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
