"""`DeviceApi`: the one door for transports, one method per operation.

Methods answer through `done(outcome)` in the reactor thread, with the result or with a
`PlatformError`, exactly once, at once or later. A callback and not an awaitable: a coroutine and its
Deferred cost more than everything else that happens to a telemetry message here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter, time_ns
from typing import Any, Protocol

from twisted.logger import Logger

from cloud_core.core import provisioning
from cloud_core.core.attributes import AttributesApi
from cloud_core.core.authentication import LoginCache, LookUps, candidate_ids, choose, confirm
from cloud_core.core.certificates.certificate_logins import CertificateLogins, ChecksRevocation
from cloud_core.core.certificates.enrolment import Enrolment
from cloud_core.core.claiming import ClaimsApi
from cloud_core.core.downlinks import Downlinks, Ending
from cloud_core.core.events import Events
from cloud_core.core.gateways import GatewayApi, GatewayOptions
from cloud_core.core.health import Health
from cloud_core.core.keys.adoption import Adoption
from cloud_core.core.letting_go import let_go
from cloud_core.core.limits import FailedAttempts
from cloud_core.core.metrics import SUCCESS, Metrics
from cloud_core.core.nodes.changes import Changes
from cloud_core.core.nodes.here import Here
from cloud_core.core.nodes.leases import Leases
from cloud_core.core.nodes.others import Others
from cloud_core.core.packages import MAX_PACKAGE_BYTES, PackagesApi
from cloud_core.core.people.audit import Audit
from cloud_core.core.people.permissions import may
from cloud_core.core.presence import DEFAULT_FLUSH_S, DEFAULT_INACTIVITY_S, Presence
from cloud_core.core.rates import RateLimits, RatePolicy
from cloud_core.core.rpc.commands import RpcApi, RpcOptions
from cloud_core.core.rpc.server_methods import ServerMethods
from cloud_core.core.tokens import new_attempt_id, new_reference
from cloud_core.core.traces import Traces
from cloud_core.fabric.alone import Alone
from cloud_core.fabric.interface import Fabric
from cloud_core.model import (
    PROVISIONING_IDENTITY,
    Identity,
    Login,
    Peer,
    PresentedCredentials,
    ServerMethod,
)
from cloud_core.storage.interface import Done, ReadTx, Store
from shared.credentials import AccessToken
from shared.errors import (
    FAILED_ATTEMPTS_TEXT,
    ApprovalPending,
    NotAuthenticated,
    NotAuthorized,
    PlatformError,
    ProvisionRefused,
    RateLimited,
)
from shared.messages import ProvisionRequest, ProvisionResponse, Sample
from shared.operations import Operation
from shared.payloads import redacted_provision_request

log = Logger()
ALONE = Alone()


class WallClock(Protocol):
    """Seconds since the Unix epoch, as `reactor.seconds` gives them."""

    def __call__(self) -> float: ...


# `reactor.callLater`, and the sender of webhooks (see `ServerMethods`).
CallLater = Callable[..., Any]
PostWebhook = Callable[[ServerMethod, bytes, Callable[[bytes | None], None]], None]

MAX_PAYLOAD_BYTES = 65_536  # told in `getSessionLimits`
MAX_INFLIGHT_MESSAGES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the configuration says about the device API."""

    rpc: RpcOptions = field(default_factory=RpcOptions)
    gateway: GatewayOptions = field(default_factory=GatewayOptions)
    rates: RatePolicy = field(default_factory=RatePolicy)
    inactivity_s: float = DEFAULT_INACTIVITY_S
    presence_flush_s: float = DEFAULT_FLUSH_S
    is_claiming_allowed: bool = True
    max_package_bytes: int = MAX_PACKAGE_BYTES
    is_success_logged: bool = False  # a line for each provision attempt that was granted, at level debug


def _no_timers(_delay_s: float, _callback: Callable[[], Any]) -> Any:
    raise RuntimeError("this DeviceApi was built without a clock")


def _no_webhooks(_method: ServerMethod, _body: bytes, answer: Callable[[bytes | None], None]) -> None:
    answer(None)


class DeviceApi:
    """What devices can do. Refuses by `PlatformError`; knows no transport."""

    def __init__(
        self,
        *,
        store: Store,
        failed_attempts: FailedAttempts,
        policy: provisioning.Policy,
        wall_clock: WallClock,
        is_anonymous_provisioning_allowed: bool = True,
        call_later: CallLater = _no_timers,
        post_webhook: PostWebhook = _no_webhooks,
        options: Options | None = None,
        revocation: ChecksRevocation | None = None,
        fabric: Fabric = ALONE,
    ) -> None:
        self._store = store
        self.fabric = fabric
        self.call_later = call_later
        self.failed_attempts = failed_attempts  # of whoever guesses secrets, administrators' passwords included
        self._policy = policy
        self._wall_clock = wall_clock
        self.metrics = Metrics()
        self.traces: Traces | None = None
        self.health = Health(store=store, now_s=wall_clock, call_later=call_later)
        self._is_anonymous_allowed = is_anonymous_provisioning_allowed
        self._logins = LoginCache()
        self._look_ups = LookUps()
        self._tokens: dict[str, Identity] = {}  # confirmed access tokens only: the hot path of HTTP and CoAP
        self._token_of: dict[int, str] = {}  # device number -> its token in `_tokens`
        self._is_success_logged = options is not None and options.is_success_logged
        self._build(call_later, post_webhook, options or Options(), revocation)

    def _build(
        self, call_later: CallLater, post_webhook: PostWebhook, options: Options, revocation: ChecksRevocation | None
    ) -> None:
        """The parts, each a door of its own: `api.rpc.reply(…)`."""
        store, now_ms = self._store, self.now_ms
        self.events = Events(call_later if call_later is not _no_timers else None, fabric=self.fabric)
        self.audit = Audit(store, on_recorded=self.events.recorded)
        self.adoption = Adoption(store)
        self.downlinks = Downlinks()
        leases = Leases(store, now_ms)
        self.presence = Presence(
            store=store, now_ms=now_ms, inactivity_s=options.inactivity_s, flush_s=options.presence_flush_s,
            leases=leases,
        )  # fmt: skip
        self.others = Others(
            fabric=self.fabric, downlinks=self.downlinks, events=self.events, presence=self.presence, now_ms=now_ms,
            call_later=call_later, leases=leases,
        )  # fmt: skip
        self.certificates = CertificateLogins(
            store=store, now_ms=now_ms, look_ups=self._look_ups, failed_attempts=self.failed_attempts,
            policy=self._policy, forget_logins=self.forget_logins, device_changed=self.device_changed,
            revocation=revocation, metrics=self.metrics, on_logged=self.events.logged,
        )  # fmt: skip
        self.rates = RateLimits(options.rates, wall_clock=self._wall_clock)
        self.attributes = AttributesApi(
            store=store, downlinks=self.downlinks, presence=self.presence, now_ms=now_ms, audit=self.audit
        )
        self.rpc = RpcApi(
            store=store,
            downlinks=self.downlinks,
            now_ms=now_ms,
            call_later=call_later,
            options=options.rpc,
            audit=self.audit,
            fabric=self.fabric,
            questions=self.others.questions,
            is_outdated=self.others.takeovers.is_outdated,
        )
        self.server_methods = ServerMethods(
            store=store,
            now_ms=now_ms,
            session_limits=self._session_limits,
            post=post_webhook,
            audit=self.audit,
        )
        self.claims = ClaimsApi(
            store=store, now_ms=now_ms, is_allowed_by_default=options.is_claiming_allowed,
            failed_attempts=self.failed_attempts, audit=self.audit,
        )  # fmt: skip
        self.packages = PackagesApi(
            store=store,
            attributes=self.attributes,
            now_ms=now_ms,
            max_bytes=options.max_package_bytes,
            audit=self.audit,
        )
        self.gateways = GatewayApi(
            store=store, downlinks=self.downlinks, attributes=self.attributes, rpc=self.rpc, claims=self.claims,
            presence=self.presence, now_ms=now_ms, options=options.gateway, policy=self._policy,
            on_session=self.events.gateway_session,
        )  # fmt: skip
        self.enrolment = Enrolment(
            store=store, now_ms=now_ms, policy=self._policy, failed_attempts=self.failed_attempts,
            provision=self.provision,
            authenticate=lambda chain, peer, done: self.certificates.authenticate(chain, peer, done),
            forget_logins=self.forget_logins, device_changed=self.device_changed, on_logged=self.events.logged,
        )  # fmt: skip
        self.others.here = here = Here(self, store=store, call_later=call_later)
        self.others.changes = Changes(
            store=store, fabric=self.fabric, now_ms=now_ms, apply=here.apply, own=here.own, forget=here.forget
        )
        self.fabric.on_back(self.rpc.read_waiting)
        store.on_unknown(here.forget)

    @property
    def leases(self) -> Leases:
        return self.others.leases

    @property
    def here(self) -> Here:
        return self.others.here

    @property
    def changes(self) -> Changes:
        return self.others.changes

    # -- for adapters -----------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Time of receipt, Unix epoch UTC."""
        return int(self._wall_clock() * 1000)

    @property
    def public_url(self) -> str:
        """Where others reach the core over HTTP; empty where nobody has said so."""
        return self._policy.public_url

    @property
    def is_congested(self) -> bool:
        """Whether adapters should stop reading until the next delivery."""
        return self._store.is_congested

    def on_delivered(self, callback: Callable[[], None]) -> None:
        """`callback` runs after each batch of answers: the moment to write them out in one go."""
        self._store.on_delivered(callback)

    def device_changed(self, device_id: int, why: Ending) -> None:
        """Administration says so: what is remembered of the device is forgotten, and its connections end."""
        self.forget_logins(device_id)
        if why is Ending.DEVICE_DELETED:
            self.presence.forget(device_id)
            self.rates.forget(device_id)
        self.downlinks.end(device_id, why)

    def forget_logins(self, device_id: int) -> None:
        """The device's credentials are read anew at its next login; its connections stay."""
        self._logins.forget(device_id)
        self._tokens.pop(self._token_of.pop(device_id, ""), None)
        self._look_ups.device_changed(device_id)
        self.certificates.forget(device_id)

    def profile_changed(self) -> None:
        """Administration changed a profile: identities are read anew at the next login."""
        let_go(self.call_later, *self._logins.tables(), self._tokens, self._token_of)
        self._logins, self._tokens, self._token_of = LoginCache(), {}, {}
        self._look_ups.profile_changed()
        self.certificates.profile_changed()

    def _session_limits(self, identity: Identity) -> dict[str, Any]:
        return self.rates.session_limits(
            identity, max_payload_bytes=MAX_PAYLOAD_BYTES, max_inflight=MAX_INFLIGHT_MESSAGES
        )

    # -- authentication ---------------------------------------------------------------------------

    def known_token(self, token: str) -> Identity | None:
        """The identity of an access token that has logged in before; None says: ask `authenticate`."""
        return self._tokens.get(token)

    def authenticate(self, presented: PresentedCredentials, done: Done[Identity]) -> None:
        """Who presents these credentials; NotAuthenticated for nobody.

        The first login confirms the credentials, durably, before `done`: from then on a lost
        provision answer is not replayed any more.
        """
        self._authenticate(presented, done)

    def _authenticate(
        self, presented: PresentedCredentials, done: Done[Identity], kinds: tuple[type, ...] = (object,)
    ) -> None:
        ids = candidate_ids(presented)
        if not ids:
            done(NotAuthenticated())
            return
        cache = self._logins
        if all(map(cache.knows, ids)):
            known = [cache.get(one) for one in ids]
            # What is not remembered, another node may have made since: it must not be refused for that.
            if self._store.node is None or choose(presented, known) is not None:
                self._conclude(presented, known, done, kinds)
                return
        generation = cache.generation
        look_up = self._look_ups.begin()

        def looked_up(outcome: list[Login | None] | PlatformError) -> None:
            self._look_ups.end(look_up)
            if isinstance(outcome, PlatformError):
                done(outcome)
                return
            if look_up.is_overtaken(outcome):  # a revoked token must not be remembered
                self._authenticate(presented, done, kinds)
                return
            if generation == cache.generation:
                self._remember(ids, outcome)
            self._conclude(presented, outcome, done, kinds)

        self._store.read(_logins, (ids,), looked_up)

    def authenticate_token(self, token: str, done: Done[Identity]) -> None:
        """As `authenticate`, for transports that carry nothing but an access token (HTTP, CoAP)."""
        self._authenticate(PresentedCredentials(username=token), done, kinds=(AccessToken,))

    def _conclude(
        self,
        presented: PresentedCredentials,
        logins: list[Login | None],
        done: Done[Identity],
        kinds: tuple[type, ...],
    ) -> None:
        login = choose(presented, logins)
        if login is None or not isinstance(login.credentials, kinds):
            done(NotAuthenticated())
            return
        if login.is_confirmed:
            self._remember_token(login)
            done(login.identity)
            return
        identity, look_up = login.identity, self._look_ups.begin()

        def confirmed(outcome: PlatformError | None) -> None:
            self._look_ups.end(look_up)
            if isinstance(outcome, PlatformError):
                done(outcome)
            elif look_up.is_overtaken([login]):  # it is confirmed, and what it opens has another name, maybe
                self._authenticate(presented, done, kinds)
            else:
                done(identity)

        self._store.submit(confirm, (identity.device_id, login.credentials, self.now_ms()), confirmed)

    def _remember(self, ids: list[str], logins: list[Login | None]) -> None:
        """Caches confirmed logins, and that there is none for an id beside a known one.

        An id that opens nothing by itself is not kept: guesses must not fill the memory.
        """
        is_anyone_known = any(login is not None for login in logins)
        for credentials_id, login in zip(ids, logins, strict=True):
            if login is None and is_anyone_known:
                self._logins.put_absent(credentials_id)
            elif login is not None and login.is_confirmed:
                self._logins.put(credentials_id, login)

    def _remember_token(self, login: Login) -> None:
        if isinstance(login.credentials, AccessToken):
            if len(self._tokens) >= 200_000:
                self._tokens.clear()
                self._token_of.clear()
            self._tokens[login.credentials.token] = login.identity
            self._token_of[login.identity.device_id] = login.credentials.token

    def provisioning_identity(self, presented: PresentedCredentials) -> Identity | None:
        """The provision-only identity when the peer asks for it by name (wire-contract.md section 2.5)."""
        if "provision" in (presented.username, presented.client_id):
            return PROVISIONING_IDENTITY
        return None

    def anonymous_identity(self, presented: PresentedCredentials) -> Identity | None:
        """What a peer without user name and password gets when its client id is no credential."""
        is_anonymous = not presented.username and not presented.has_password and presented.chain is None
        return PROVISIONING_IDENTITY if is_anonymous and self._is_anonymous_allowed else None

    def may(self, identity: Identity, operation: Operation) -> bool:
        return may(identity.role, operation)

    # -- provisioning -----------------------------------------------------------------------------

    def provision(self, request: ProvisionRequest, peer: Peer, done: Done[ProvisionResponse]) -> None:
        """Decides one provision request; a refusal carries `reason` and an explainable `ref`."""
        began_s, ref = perf_counter(), new_attempt_id()
        key = request.provision_key
        wait_s = self.failed_attempts.wait_s(peer.address, key, self._wall_clock())
        if wait_s > 0:
            self.refuse_provision(RateLimited(FAILED_ATTEMPTS_TEXT, retry_after_s=wait_s), peer, done, request=request)
            return

        def decided(decision: provisioning.Decided | PlatformError) -> None:
            outcome: ProvisionResponse | PlatformError
            if isinstance(decision, PlatformError):
                outcome = decision
            else:
                outcome = decision.outcome
                self.events.attempted(decision)
                if decision.shown is not None and decision.shown.key is None:
                    self.adoption.used(decision.shown.profile.id, request.provision_secret, self.now_ms())
            self._note_attempt(peer, outcome, ref, began_s)
            if isinstance(outcome, ProvisionResponse):
                if isinstance(outcome, provisioning.Replaced):
                    self.device_changed(outcome.device_id, Ending.CREDENTIALS_CHANGED)
                if not isinstance(outcome.credentials, AccessToken):
                    self._logins.forget_absent()  # client id and user name may be somebody's now
            elif isinstance(outcome, ApprovalPending):
                pass  # it guesses nothing, and was told to ask again
            elif isinstance(outcome, ProvisionRefused):
                self.failed_attempts.record(peer.address, key, self._wall_clock())
            else:
                outcome.ref = outcome.ref or new_reference()
            done(outcome)

        digest = self._store.digest(*provisioning.digest_parts(request))
        redacted = redacted_provision_request(request)
        self._store.submit(
            provisioning.attempt, (request, digest, peer, self.now_ms(), self._policy, redacted, ref), decided
        )

    def refuse_provision(
        self,
        error: PlatformError,
        peer: Peer,
        done: Done[ProvisionResponse],
        *,
        request: ProvisionRequest | None = None,
    ) -> None:
        """Answers a request that is not evaluated (malformed, rationed): logged, with a `ref`."""
        wait_s = self.failed_attempts.wait_s(peer.address, "", self._wall_clock())
        if wait_s > 0 and not isinstance(error, RateLimited):
            error = RateLimited(FAILED_ATTEMPTS_TEXT, retry_after_s=wait_s)
        error.ref = new_reference()
        is_rationed = isinstance(error, RateLimited)
        if not is_rationed:
            self.failed_attempts.record(peer.address, "", self._wall_clock())
        error.stage = "ration" if is_rationed else "parse"
        self.metrics.provisioned(peer.transport, error.stage, error.reason.value, 0.0)
        if self.traces is not None:
            now_ns = time_ns()
            self.traces.attempt(peer, error.stage, error.reason.value, error.ref, now_ns, now_ns)
        line = provisioning.early_refusal(error, request, peer, self.now_ms())
        self._store.submit(provisioning.log, (line,), _ignore)
        self.events.logged(line)
        done(error)

    def _note_attempt(self, peer: Peer, outcome: ProvisionResponse | PlatformError, ref: str, began_s: float) -> None:
        """Counts an attempt that was evaluated; a success has a line where these are wanted."""
        if isinstance(outcome, PlatformError):
            stage, said = outcome.stage or "store", outcome.reason.value
        else:
            stage, said = "stored", SUCCESS
            if self._is_success_logged:
                log.debug(
                    "Provision request granted: {ref}", ref=ref, transport=peer.transport.value, source=peer.address
                )
        seconds = perf_counter() - began_s
        self.metrics.provisioned(peer.transport, stage, said, seconds)
        if self.traces is not None:
            ended_ns = time_ns()
            said_ref = outcome.ref or "" if isinstance(outcome, PlatformError) else ref
            self.traces.attempt(peer, stage, said, said_ref, ended_ns - int(seconds * 1e9), ended_ns)

    # -- data -------------------------------------------------------------------------------------

    def post_telemetry(self, identity: Identity, samples: list[Sample], done: Done[None]) -> None:
        """Stores samples of the device itself; `done(None)` once they are on disk."""
        if not may(identity.role, Operation.POST_TELEMETRY):
            done(NotAuthorized())
            return
        if samples:
            self._store.append(identity.device_id, samples, done)
        else:
            done(None)


def _logins(tx: ReadTx, ids: list[str]) -> list[Login | None]:
    return tx.logins(ids)


def _ignore(_outcome: Any) -> None:  # Any: whatever the store answers; a failure is already logged there
    """The answer has gone out already."""
