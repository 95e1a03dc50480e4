"""Devices that show a certificate: whose it is, and whether one that nobody knows yet may come in by its chain.

Everything here runs on the reactor thread but for the functions of a transaction; an honest chain takes less than
a millisecond of it.

Source: wire-contract.md sections 1.7, 1.8, 2.6 and 4.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from cryptography import x509

from cloud_core.core.authentication import LookUp, LookUps, certificate_ids, confirm
from cloud_core.core.certificates import chain_matching, chain_provisioning, trust, trust_faults
from cloud_core.core.certificates.certificate_memory import CertificateMemory, RecentRefusals
from cloud_core.core.certificates.certificate_queries import Found, anchors, find
from cloud_core.core.certificates.chain_matching import Match, NoMatch
from cloud_core.core.certificates.chain_provisioning import Admitted, Overtaken, Place, Wanted
from cloud_core.core.certificates.trust import Fault
from cloud_core.core.downlinks import Ending
from cloud_core.core.limits import FailedAttempts
from cloud_core.core.metrics import SUCCESS, Metrics
from cloud_core.core.provisioning import Policy
from cloud_core.core.tokens import new_reference
from cloud_core.model import DeviceProfile, Identity, KnownCertificate, Login, Peer, PresentedChain, Revocation
from cloud_core.storage.interface import Done, Store
from shared import certificates
from shared.certificates import MalformedCertificate
from shared.errors import (
    FAILED_ATTEMPTS_TEXT,
    InvalidDeviceName,
    PlatformError,
    ProvisionRefused,
    RateLimited,
    Unavailable,
    UntrustedCertificate,
)

MAX_ROUNDS = 5  # of a chain that is overtaken by changes while it is decided
NOWHERE = Place()
RECHECK_MS = 60_000  # a certificate whose revocation is looked at is not remembered for longer


class ChecksRevocation(Protocol):
    """`core.revocation.RevocationChecker`."""

    def check(
        self, path: Sequence[x509.Certificate], policy: Revocation, now_ms: int,
        done: Callable[[UntrustedCertificate | None], None],
    ) -> None: ...  # fmt: skip


@dataclass(slots=True)
class _Arrival:
    """A peer on its way in. `look_up` is open from the first question to the answer."""

    presented: PresentedChain
    chain: trust.Chain
    peer: Peer
    done: Done[Identity]
    look_up: LookUp
    rounds: int
    place: Place = NOWHERE  # whom it concerns, as far as that is known
    name: str = ""


class CertificateLogins:
    """The door for peers that have shown a certificate in a TLS or DTLS handshake.

    `forget_logins` and `device_changed` as in `DeviceApi`; without `revocation` nothing is looked up elsewhere.
    """

    def __init__(
        self, *, store: Store, now_ms: Callable[[], int], look_ups: LookUps, failed_attempts: FailedAttempts,
        policy: Policy, forget_logins: Callable[[int], None], device_changed: Callable[[int, Ending], None],
        on_logged: Callable[..., None], revocation: ChecksRevocation | None = None, metrics: Metrics | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._now_ms = now_ms
        self._look_ups = look_ups
        self._failed_attempts = failed_attempts
        self._policy = policy
        self._forget_logins = forget_logins
        self._device_changed = device_changed
        self._on_logged = on_logged  # `Events.logged`
        self._revocation = revocation
        self._metrics = metrics or Metrics()
        self._memory = CertificateMemory()
        self._refused = RecentRefusals()
        self._anchors_changed: list[Callable[[], None]] = []

    # -- for adapters -----------------------------------------------------------------------------

    def known(self, leaf: bytes) -> Identity | None:
        """The identity of a certificate (DER) that has logged in before; None says: ask `authenticate`."""
        return self._memory.get(certificates.fingerprint(leaf), self._now_ms())

    def authenticate(self, chain: PresentedChain, peer: Peer, done: Done[Identity]) -> None:
        """Who shows this chain. A device that is not known yet is created or matched where a profile says so.

        Refuses by UntrustedCertificate (nobody knows it, no path to a CA, ended, revoked), RateLimited, Unavailable
        or another refusal of provisioning; logged, with a `ref`.
        """
        known = self.known(chain.leaf) or self._refused.get(_shown(chain, peer), self._now_ms())
        if known is not None:
            done(known)
        else:
            self._begin(chain, peer, done, MAX_ROUNDS)

    # -- for administration -----------------------------------------------------------------------

    def forget(self, device_id: int) -> None:
        """The device's certificates are looked up again at its next login."""
        self._memory.forget(device_id)
        self._refused.clear()

    def profile_changed(self) -> None:
        self._memory.clear()
        self._refused.clear()
        self.anchors_changed()

    def anchors_changed(self) -> None:
        """Profiles with certificates, or authorities, have come, gone or changed."""
        for callback in self._anchors_changed:
            callback()

    def on_anchors_changed(self, callback: Callable[[], None]) -> None:
        """`callback` runs whenever `anchors` may answer something else than before."""
        self._anchors_changed.append(callback)

    def anchors(self, done: Done[list[bytes]]) -> None:
        """The CAs (DER) that a device's chain may lead to: of the profiles, those that help to lead there, ours."""
        self._store.survey(anchors, (), done)

    # -- a look at what is known ------------------------------------------------------------------

    def _begin(self, presented: PresentedChain, peer: Peer, done: Done[Identity], rounds: int) -> None:
        try:
            chain = trust.parse(presented)
        except UntrustedCertificate as error:
            self._answer(error, presented, peer, done)
            return
        arrival = _Arrival(presented, chain, peer, done, self._look_ups.begin(), rounds)
        args = (
            certificate_ids(presented.leaf), certificates.fingerprint(presented.leaf),
            chain_matching.name_hashes(chain), self._now_ms(), self._revocation is not None,
        )  # fmt: skip
        self._store.read(find, args, lambda outcome: self._found(arrival, outcome))

    def _again(self, arrival: _Arrival) -> None:
        """From the start: something has changed meanwhile."""
        self._look_ups.end(arrival.look_up)
        if arrival.rounds > 1:
            self._begin(arrival.presented, arrival.peer, arrival.done, arrival.rounds - 1)
        else:
            arrival.done(Unavailable(retry_after_s=1.0))

    def _found(self, arrival: _Arrival, outcome: Found | PlatformError) -> None:
        if isinstance(outcome, PlatformError):
            self._end(arrival, outcome)
        elif arrival.look_up.is_overtaken([outcome.login]):
            self._again(arrival)
        elif outcome.login is not None:
            identity = outcome.login.identity
            arrival.place = Place(identity.tenant_id, identity.profile_id, identity.device_id)
            arrival.name = identity.device_name
            self._known(arrival, outcome.login, outcome.certificate, outcome.profiles)
        elif outcome.certificate is not None and outcome.certificate.revoked_ms is not None:
            arrival.place = Place(outcome.certificate.tenant_id)
            self._refuse(arrival, _revoked(arrival.chain))
        else:
            self._unknown(arrival, outcome.profiles)

    # -- the certificate of a device --------------------------------------------------------------

    def _known(
        self, arrival: _Arrival, login: Login, certificate: KnownCertificate | None, profiles: list[DeviceProfile]
    ) -> None:
        if certificate is not None and certificate.revoked_ms is not None:
            self._refuse(arrival, _revoked(arrival.chain))
            return
        try:
            trust.check_validity(arrival.chain.leaf, self._now_ms())
        except UntrustedCertificate as error:
            self._refuse(arrival, error)
            return
        until_ms = certificates.not_after_ms(arrival.chain.leaf)
        if certificate is not None and certificate.until_ms is not None:
            until_ms = min(until_ms, certificate.until_ms)
        profile = profiles[0] if profiles else None
        if profile is None or not profile.provision.revocation.is_on:
            self._open(arrival, login, until_ms)
            return
        until_ms = min(until_ms, self._now_ms() + RECHECK_MS)
        path = chain_matching.path_of(arrival.chain, profile)
        self._check_revocation(arrival, path, profile.provision.revocation,
                               lambda: self._open(arrival, login, until_ms))  # fmt: skip

    def _open(self, arrival: _Arrival, login: Login, until_ms: int) -> None:
        if arrival.look_up.is_overtaken([login]):
            self._again(arrival)
        elif login.is_confirmed:
            self._let_in(arrival, login.identity, until_ms)
        else:
            args = (login.identity.device_id, login.credentials, self._now_ms())

            def confirmed(outcome: PlatformError | None) -> None:
                if isinstance(outcome, PlatformError):
                    self._end(arrival, outcome)
                elif arrival.look_up.is_overtaken([login]):
                    self._again(arrival)  # revoked meanwhile, maybe: the credentials are still the same then
                else:
                    self._let_in(arrival, login.identity, until_ms)

            self._store.submit(confirm, args, confirmed)

    def _let_in(self, arrival: _Arrival, identity: Identity, until_ms: int) -> None:
        if not arrival.look_up.concerns(identity.device_id):
            from_ms = certificates.not_before_ms(arrival.chain.leaf)
            self._memory.put(certificates.fingerprint(arrival.presented.leaf), identity, from_ms, until_ms)
        self._end(arrival, identity)

    def _end(self, arrival: _Arrival, outcome: Identity | PlatformError) -> None:
        self._look_ups.end(arrival.look_up)
        arrival.done(outcome)

    # -- the certificate of nobody ----------------------------------------------------------------

    def _unknown(self, arrival: _Arrival, profiles: list[DeviceProfile]) -> None:
        wait_s = self._failed_attempts.wait_s(arrival.peer.address, _issuer_key(arrival.chain), self._now_ms() / 1000)
        if wait_s > 0:
            self._refuse(arrival, RateLimited(FAILED_ATTEMPTS_TEXT, retry_after_s=wait_s))
            return
        try:
            match = chain_matching.match(arrival.chain, profiles, self._now_ms())
        except NoMatch as fault:
            arrival.place = Place(fault.profile.tenant_id, fault.profile.id) if fault.profile else NOWHERE
            self._refuse(arrival, fault.error)
            return
        arrival.place, arrival.name = Place(match.profile.tenant_id, match.profile.id), match.name
        policy = match.profile.provision.revocation
        if self._revocation is not None and policy.is_on:
            self._check_revocation(arrival, match.path, policy, lambda: self._admit(arrival, match))
        else:
            self._admit(arrival, match)

    def _admit(self, arrival: _Arrival, match: Match) -> None:
        profile, chain = match.profile, arrival.chain
        wanted = Wanted(
            profile.tenant_id, profile.uuid, profile.version, match.name, chain.leaf, chain.leaf_der, arrival.peer
        )

        began_s = perf_counter()

        def decided(outcome: Admitted | Overtaken | ProvisionRefused | PlatformError) -> None:
            if not isinstance(outcome, Overtaken):
                said = outcome.reason.value if isinstance(outcome, PlatformError) else SUCCESS
                self._metrics.provisioned(arrival.peer.transport, "certificate", said, perf_counter() - began_s)
            if isinstance(outcome, Admitted):
                self._on_logged(outcome.line, profile.name, is_new_device=outcome.is_new_device)
                self._admitted(arrival, outcome, profile)
            elif isinstance(outcome, Overtaken):
                self._again(arrival)
            elif isinstance(outcome, ProvisionRefused):
                self._record(arrival.peer, chain)
                place, leaf = Place(profile.tenant_id, profile.id), chain.leaf
                now_ms, stage = self._now_ms(), outcome.stage
                self._on_logged(
                    chain_provisioning.refused_attempt(outcome, stage, leaf, arrival.peer, now_ms, place, match.name),
                    profile.name,
                )
                self._refused.put(_shown(arrival.presented, arrival.peer), outcome, self._now_ms())
                self._end(arrival, outcome)
            else:
                outcome.ref = outcome.ref or new_reference()
                self._end(arrival, outcome)

        self._store.submit(chain_provisioning.admit, (wanted, self._now_ms(), self._policy), decided)

    def _admitted(self, arrival: _Arrival, admitted: Admitted, profile: DeviceProfile) -> None:
        device_id = admitted.identity.device_id
        self._look_ups.end(arrival.look_up)  # what follows is no change to this one
        if admitted.ends_sessions:
            self._device_changed(device_id, Ending.CREDENTIALS_CHANGED)
        elif admitted.forgets:
            self._forget_logins(device_id)
        until_ms = certificates.not_after_ms(arrival.chain.leaf)
        if profile.provision.revocation.is_on:
            until_ms = min(until_ms, self._now_ms() + RECHECK_MS)
        self._let_in(arrival, admitted.identity, until_ms)

    # -- refusals ---------------------------------------------------------------------------------

    def _check_revocation(
        self, arrival: _Arrival, path: Sequence[x509.Certificate], policy: Revocation, proceed: Callable[[], None]
    ) -> None:
        if self._revocation is None:
            proceed()
            return
        if len(path) < 2:
            if policy.allows_unknown:
                proceed()
            else:
                self._refuse(arrival, _no_issuer(arrival.chain))
            return

        def checked(error: UntrustedCertificate | None) -> None:
            if error is None:
                proceed()
            else:
                self._refuse(arrival, error)

        self._revocation.check(path, policy, self._now_ms(), checked)

    def _refuse(self, arrival: _Arrival, error: PlatformError) -> None:
        """Logged with a `ref`; spends of the source's ration."""
        self._look_ups.end(arrival.look_up)
        name = arrival.name or chain_matching.common_name(arrival.chain.leaf)
        self._answer(error, arrival.presented, arrival.peer, arrival.done, arrival.chain, arrival.place, name)

    def _answer(
        self, error: PlatformError, presented: PresentedChain, peer: Peer, done: Done[Identity],
        chain: trust.Chain | None = None, place: Place = NOWHERE, name: str = "",
    ) -> None:  # fmt: skip
        wait_s = self._failed_attempts.wait_s(peer.address, _issuer_key(chain), self._now_ms() / 1000)
        if wait_s > 0 and not isinstance(error, RateLimited):
            error = RateLimited(FAILED_ATTEMPTS_TEXT, retry_after_s=wait_s)
        if not isinstance(error, RateLimited):
            self._record(peer, chain)
        error.ref = new_reference()
        self._metrics.provisioned(peer.transport, "certificate", error.reason.value, 0.0)
        leaf = chain.leaf if chain is not None else _leaf_of(presented)
        line = chain_provisioning.refused_attempt(error, _stage(error), leaf, peer, self._now_ms(), place, name)
        self._store.submit(chain_provisioning.log, (line,), _ignore)
        self._on_logged(line)
        self._refused.put(_shown(presented, peer), error, self._now_ms())
        done(error)

    def _record(self, peer: Peer, chain: trust.Chain | None) -> None:
        self._failed_attempts.record(peer.address, _issuer_key(chain), self._now_ms() / 1000)


def _leaf_of(presented: PresentedChain) -> x509.Certificate | None:
    """Of a chain that cannot be taken: the log names whose it is, where that much can be read."""
    try:
        return certificates.load(presented.leaf)
    except MalformedCertificate:
        return None


def _shown(presented: PresentedChain, peer: Peer) -> tuple[bytes, str]:
    return certificates.fingerprint(presented.leaf), peer.address


def _issuer_key(chain: trust.Chain | None) -> str:
    """What failed attempts of a source are counted by, beside the source itself."""
    return certificates.name_hash(chain.leaf.issuer).hex() if chain is not None else ""


def _stage(error: PlatformError) -> str:
    """Which check decided, for the log: of an untrusted certificate what is wrong with it."""
    if isinstance(error, RateLimited):
        return "ration"
    if isinstance(error, UntrustedCertificate):
        return error.fault
    return "name" if isinstance(error, InvalidDeviceName) else "strategy"


def _revoked(chain: trust.Chain) -> UntrustedCertificate:
    return trust_faults.refusal(
        Fault.REVOKED,
        f"The certificate {trust_faults.of(chain.leaf)} has been revoked here: give the device a new one.",
    )


def _no_issuer(chain: trust.Chain) -> UntrustedCertificate:
    return trust_faults.refusal(
        Fault.STATUS_UNKNOWN,
        f"Whether the certificate {trust_faults.of(chain.leaf)} is revoked cannot be looked up without its issuer's: "
        "put that one into the profile's PEM, or set allowUnknown in its revocation.",
    )


def _ignore(_outcome: Any) -> None:  # Any: whatever the store answers; a failure is already logged there
    """The answer has gone out already."""
