"""Composition root: builds everything, starts it in order, stops it in reverse order."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from cloud_core import local_token
from cloud_core.config import Audit as AuditSection
from cloud_core.config import Config, Gateway, Rpc
from cloud_core.configured_passwords import ConfiguredPassword
from cloud_core.core import health
from cloud_core.core.admin import AdminApi
from cloud_core.core.api import DeviceApi, Options
from cloud_core.core.asking import answered
from cloud_core.core.certificates.revocation import RevocationChecker
from cloud_core.core.gateways import GatewayOptions
from cloud_core.core.limits import AttemptRations, FailedAttempts, Ration
from cloud_core.core.nodes import changes
from cloud_core.core.nodes.leases import MAINTENANCE
from cloud_core.core.nodes.siblings import Place, Siblings
from cloud_core.core.people import audit
from cloud_core.core.people.access import POLL_S
from cloud_core.core.presence import CHECK_S
from cloud_core.core.provisioning import Policy
from cloud_core.core.rates import RatePolicy, Rates
from cloud_core.core.rpc.commands import RpcOptions, SubmitStrategy
from cloud_core.core.tokens import new_secret
from cloud_core.fabric.alone import Alone
from cloud_core.fabric.opening import FabricFailed, OpenFabric, open_fabric
from cloud_core.observing import Observing
from cloud_core.secrets_file import master_key, write_private
from cloud_core.storage.interface import Tx
from cloud_core.storage.store import SqlStore, sqlite_url
from cloud_core.storage.vault import Vault
from cloud_core.tls_service import TlsService, server_tls
from cloud_core.tracing import Tracing, TracingFailed
from cloud_core.transports.coap.service import CoapService
from cloud_core.transports.endpoints import COAP, COAPS, HTTP, MQTT, Endpoints
from cloud_core.transports.handshakes import Handshakes
from cloud_core.transports.http.service import HttpService
from cloud_core.transports.http.status_fetcher import StatusFetcher
from cloud_core.transports.http.webhooks import Webhooks
from cloud_core.transports.listener import ListenFailed, listen_tcp
from cloud_core.transports.mqtt.service import MqttService, Settings, Timeouts
from cloud_core.transports.proxied import ProxiedFactory
from cloud_core.transports.proxies import TrustedProxies
from cloud_core.transports.tcp import FastPort
from cloud_core.transports.tls import TlsFailed
from cloud_core.workers.assignment import Assignment, inherited
from shared.errors import InvalidArgument, Unavailable
from shared.mqtt.connection import Limits as MqttLimits

log = Logger()
MAINTENANCE_S = 60.0
BEAT_S = 15.0  # of live events
DAY_MS = 86_400_000
PACKET_OVERHEAD_BYTES = 2_048  # topic, properties and header beside the payload
DEFAULT_ADMIN = "admin@localhost"
JWT_PURPOSE = "administrator tokens"
FABRIC_PURPOSE = "subjects of the fabric"
FABRIC_REALM_BYTES = 8
JWT_KEY_BYTES = 64  # HS512: as long as its hash (RFC 7518 section 3.2)


class StartFailed(Exception):
    """The program cannot start; `str()` is one sentence per problem."""


def database_url(config: Config) -> str:
    """The configured database, or SQLite in the data directory."""
    return config.database.url or sqlite_url(Path(config.data_dir) / "muster.db")


def open_vault(config: Config) -> Vault:
    """The vault with the installation's master key. Raises: StartFailed."""
    data_dir = Path(config.data_dir)
    key_file = Path(config.database.key_file) if config.database.key_file else data_dir / "master.key"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Vault(master_key(config.database.key, key_file))
    except OSError as error:
        raise StartFailed(f"Cannot use the data directory {data_dir}: {error.strerror}.") from error
    except ValueError as error:
        raise StartFailed(str(error)) from error


def open_tls(config: Config, reactor: Any) -> TlsService | None:
    """TLS where the configuration asks for it. Raises: StartFailed."""
    try:
        tls = server_tls(config)
    except (OSError, ValueError) as error:
        raise StartFailed(f"Cannot prepare TLS: {error}") from error
    if tls is None:
        return None
    limits = config.limits
    handshakes = Handshakes(max_per_address=limits.tls_handshakes_per_address, max_in_all=limits.tls_handshakes)
    return TlsService(tls, reactor=reactor, handshake_s=limits.connect_timeout_s, handshakes=handshakes)


def open_tracing(config: Config) -> Tracing | None:
    """Traces where the configuration asks for them. Raises: StartFailed."""
    section = config.tracing
    if not section.endpoint:
        return None
    try:
        return Tracing(endpoint=section.endpoint, sampled=section.sampled, sampled_messages=section.sampled_messages)
    except TracingFailed as error:
        raise StartFailed(str(error)) from error


def fabric_of(config: Config, vault: Vault) -> OpenFabric:
    """What joins this node with others, where the configuration names any. Raises: StartFailed."""
    try:
        realm = vault.derive(FABRIC_PURPOSE, length=FABRIC_REALM_BYTES).hex()
        return open_fabric(config.cluster.fabric, cluster=config.cluster.name, realm=realm)
    except FabricFailed as error:
        raise StartFailed(str(error)) from error


def options_of(config: Config) -> Options:
    """What the configuration says about the device API."""
    return Options(
        rpc=_rpc_options(config.rpc),
        gateway=_gateway_options(config.gateway),
        is_claiming_allowed=config.claims.allowed_by_default,
        max_package_bytes=config.packages.max_bytes,
        inactivity_s=config.presence.inactivity_s,
        presence_flush_s=config.presence.flush_s,
        is_success_logged=config.log.level == "debug",
        rates=RatePolicy(
            device=rates_of(config, "device"),
            gateway=rates_of(config, "gateway"),
            sub_devices=rates_of(config, "sub_device"),
        ),
    )


def rates_of(config: Config, whose: str) -> Rates:
    names = ("messages", "telemetry_messages", "telemetry_data_points")
    return Rates(**{name: getattr(config.rates, f"{whose}_{name}") for name in names})


class Program:
    """The running core."""

    def __init__(self, config: Config, *, reactor: Any, assignment: Assignment | None = None) -> None:
        """`assignment`: of a worker beside others."""
        # `reactor` is untyped: it stands for TCP, time and threads at once.
        self._assignment = assignment
        self._config = config
        self._reactor = reactor
        vault = open_vault(config)
        self._fabric = fabric_of(config, vault)
        node = None if isinstance(self._fabric, Alone) else self._fabric.node
        self._store = SqlStore(url=database_url(config), vault=vault, call_in_reactor=reactor.callFromThread, node=node)
        self._webhooks = Webhooks(reactor)
        self._status_fetcher = StatusFetcher(reactor)
        limits = config.limits
        self._api = DeviceApi(
            store=self._store,
            failed_attempts=FailedAttempts(
                AttemptRations(
                    per_source_and_key=Ration(
                        limits.failed_attempts_per_source_and_key, limits.failed_attempts_per_source_and_key_every_s
                    ),
                    per_source=Ration(limits.failed_attempts_per_source, limits.failed_attempts_per_source_every_s),
                )
            ),
            policy=Policy(
                max_devices_per_tenant=config.provisioning.max_devices_per_tenant, public_url=config.ca.public_url
            ),
            wall_clock=time.time,
            is_anonymous_provisioning_allowed=config.mqtt.anonymous_provisioning,
            call_later=reactor.callLater,
            post_webhook=self._webhooks.post,
            revocation=RevocationChecker(fetch=self._status_fetcher.fetch),
            options=options_of(config),
            fabric=self._fabric,
        )
        self._admin = AdminApi(
            store=self._store, api=self._api, jwt_key=vault.derive(JWT_PURPOSE, length=JWT_KEY_BYTES)
        )
        self._admin.authorities.warn_days = config.ca.warn_days
        self._mqtt = MqttService(
            api=self._api,
            reactor=reactor,
            limits=MqttLimits(
                max_payload_bytes=config.mqtt.max_payload_bytes,
                max_packet_bytes=config.mqtt.max_payload_bytes + PACKET_OVERHEAD_BYTES,
            ),
            timeouts=Timeouts(
                connect_s=limits.connect_timeout_s,
                provision_session_s=limits.provision_session_s,
                inactivity_s=limits.inactivity_s,
            ),
            settings=Settings(
                repeats_refusal=config.mqtt.repeat_refusal,
                max_chunk_bytes=config.mqtt.max_payload_bytes,
                max_whole_package_bytes=config.mqtt.max_whole_package_bytes,
                max_overrun_s=config.mqtt.disconnect_after_s_above_rate,
            ),
        )
        self._endpoints = Endpoints(config.ca.public_url)
        self._proxies = TrustedProxies(config.http.trusted_proxies)
        self._http = HttpService(
            api=self._api,
            admin=self._admin,
            reactor=reactor,
            is_fast_path_on=config.http.fast_path,
            request_timeout_s=limits.request_timeout_s,
            metrics_token=config.metrics.token,
            endpoints=self._endpoints,
            proxies=self._proxies,
        )
        self._tls = open_tls(config, reactor)
        self._admin.authorities.server_certificates = self._server_certificates
        self._coap = CoapService(
            self._api,
            bind_address=config.coap.bind or config.http.bind,
            port=config.coap.port,
            drain_s=limits.drain_s,
            tls=self._tls.tls if self._tls is not None else None,
            dtls_port=config.coap.dtls_port,
            opened=inherited(assignment),
        )
        self._observing = Observing(
            api=self._api, store=self._store, mqtt=self._mqtt, http=self._http, coap=self._coap, tls=self._tls,
            server_certificates=self._server_certificates, data_dir=config.data_dir,
        )  # fmt: skip
        self._tracing = open_tracing(config)
        if self._tracing is not None:
            self._api.traces = self._tracing
            self._http.trace(self._tracing.call)
        self._is_listening = self._is_draining = False
        self._api.health.checks = [self._what_is_wrong]
        self._api.health.degradations = [lambda: health.FABRIC if self._fabric.is_away else None]
        self._api.metrics.sources.append(self._fabric.families)
        if assignment is not None:
            place = Place(assignment.site, assignment.index, config.cluster.workers)
            self._siblings = Siblings(place, metrics=self._api.metrics, questions=self._api.others.questions)
        self._ports: list[FastPort] = []
        self._local_url: str | None = None  # where commands on this machine reach us
        self._maintenance = LoopingCall(self._maintain)
        self._gateway_report = LoopingCall(self._api.gateways.report)
        self._presence_flush = LoopingCall(self._api.presence.flush)
        self._event_beat = LoopingCall(self._api.events.beat)
        self._adoption_flush = LoopingCall(self._api.adoption.flush)
        self._presence_check = LoopingCall(self._api.presence.check)
        self._access_poll = LoopingCall(self._admin.access.poll)
        self._changes_poll = LoopingCall(self._api.changes.poll)
        self._repeated = (
            self._maintenance, self._gateway_report, self._presence_flush, self._adoption_flush, self._event_beat,
            self._presence_check, self._access_poll, self._changes_poll,
        )  # fmt: skip
        for repeated in self._repeated:
            repeated.clock = reactor

    async def start(self) -> str:
        """Opens the store, then all listeners; returns the `ready` line. Raises: StartFailed."""
        try:
            self._store.open()
        except Exception as error:
            raise StartFailed(f"Cannot open the database: {error}.") from error
        try:
            if self._store.node is not None:
                await answered(self._api.changes.start)  # before anything is remembered of the database
            self._api.presence.start()
            if self._is_first:
                await self._first_administrator()
                await self._system_administrator()
            await self._admin.access.start()
            await Deferred.fromFuture(asyncio.ensure_future(self._fabric.start()))
            line = await self._listen()
            await self._open_local_access()
        except (ListenFailed, TlsFailed, OSError, InvalidArgument, Unavailable) as error:
            await self.stop()
            raise StartFailed(str(error)) from error
        self._is_listening = True
        self._mqtt.start()
        if self._tls is not None:
            self._tls.start()
        self._api.packages.maintain()
        self._admin.imports.start()
        self._maintenance.start(MAINTENANCE_S, now=False)
        self._gateway_report.start(self._config.gateway.report_s, now=False)
        self._presence_flush.start(self._config.presence.flush_s, now=False)
        self._event_beat.start(BEAT_S, now=False)
        self._adoption_flush.start(self._config.presence.flush_s, now=False)
        self._presence_check.start(CHECK_S, now=False)
        self._access_poll.start(POLL_S, now=False)
        if self._store.node is not None:
            self._changes_poll.start(changes.POLL_S, now=True)
        return line

    async def _listen(self) -> str:
        config = self._config
        http_bind, mqtt_bind = config.http.bind, config.mqtt.bind or config.http.bind
        http_factory, mqtt_factory = (self._behind_proxies(one) for one in ("http", "mqtt"))
        http = self._listen_tcp(config.http.port, http_factory, http_bind, name="http")
        if not (config.http.proxy_protocol and self._proxies.covers("127.0.0.1")):
            self._local_url = local_token.url_on_loopback(http_bind, http.getHost().port)
        mqtt = self._listen_tcp(config.mqtt.port, mqtt_factory, mqtt_bind, name="mqtt")
        self._endpoints.opened(HTTP, http_bind, http.getHost().port)
        self._endpoints.opened(MQTT, mqtt_bind, mqtt.getHost().port)
        secure = await self._listen_secure(http_bind, mqtt_bind)
        coap_port = await self._coap.start_deferred()
        coap_bind = config.coap.bind or http_bind
        self._endpoints.opened(COAP, coap_bind, coap_port)
        if self._coap.dtls_port is not None:
            self._endpoints.opened(COAPS, coap_bind, self._coap.dtls_port)
            secure += f" coaps={coap_bind}:{self._coap.dtls_port}"
        return (
            f"ready http={http_bind}:{http.getHost().port} mqtt={mqtt_bind}:{mqtt.getHost().port}"
            f" coap={coap_bind}:{coap_port}{secure}"
        )

    def _listen_tcp(self, port: int, factory: Any, bind: str, *, name: str) -> FastPort:
        is_shared = self._assignment is not None
        opened = listen_tcp(self._reactor, port, factory, bind, name=name, is_shared=is_shared)
        self._ports.append(opened)
        return opened

    @property
    def _is_first(self) -> bool:
        """Whether this process does what only one of a machine's may do."""
        return self._assignment is None or self._assignment.is_first

    async def _listen_secure(self, http_bind: str, mqtt_bind: str) -> str:
        """Opens the TLS ports, if any; returns their part of the `ready` line."""
        if self._tls is None:
            return ""
        config, listening = self._config, ""
        if self._tls.tls.is_strict:
            await self._tls.trusting(self._api.certificates)
        for name, port, bind in (
            ("https", config.http.tls_port, http_bind),
            ("mqtts", config.mqtt.tls_port, mqtt_bind),
        ):
            opened = self._listen_tcp(port, self._behind_proxies(name), bind, name=name)
            self._endpoints.opened(name, bind, opened.getHost().port)
            listening += f" {name}={bind}:{opened.getHost().port}"
        return listening

    def _behind_proxies(self, name: str) -> Any:
        """What the port builds connections with: the PROXY protocol where it is configured, TLS, then the protocol."""
        is_http = name.startswith("http")
        factory: Any = self._http.factory() if is_http else self._mqtt
        if self._tls is not None and name.endswith("s"):
            factory = self._tls.factory(factory, name=name)
        if not (self._config.http if is_http else self._config.mqtt).proxy_protocol:
            return factory
        return ProxiedFactory(
            factory, self._proxies, name=name, reactor=self._reactor, header_s=self._config.limits.connect_timeout_s
        )

    def _what_is_wrong(self) -> str | None:
        """For `/health/ready`."""
        if self._is_draining:
            return health.DRAINING
        if not self._is_listening:
            return health.STARTING
        return health.STORE if self._store.is_failing else None

    def _server_certificates(self) -> list[tuple[str, int]]:
        """Subject and end of what TLS shows to clients."""
        shown = self._tls.tls.expiry() if self._tls is not None else None
        return [(shown.subject, shown.not_after_ms)] if shown is not None else []

    async def _first_administrator(self) -> None:
        """Made at first start; a random password is printed once and kept 0600 in the data directory."""
        admin = self._config.admin
        username = admin.username or DEFAULT_ADMIN
        password = admin.password or new_secret()
        given = ConfiguredPassword(Path(self._config.data_dir) / "admin-configured", username, password)
        is_anew = bool(admin.password) and not await deferToThread(given.is_known)
        was_made = await self._admin.ensure_admin(
            username, password, is_password_given=bool(admin.password), is_password_anew=is_anew
        )
        if is_anew:
            await deferToThread(given.keep)
        if was_made and not admin.password:
            file = Path(self._config.data_dir) / "admin-password"
            write_private(file, f"{username}\n{password}\n".encode())
            print(f"First administrator: {username} / {password} (kept in {file})", flush=True)

    async def _system_administrator(self) -> None:
        admin = self._config.admin
        if admin.system_username:
            file = Path(self._config.data_dir) / "system-admin-configured"
            given = ConfiguredPassword(file, admin.system_username, admin.system_password)
            is_anew = not await deferToThread(given.is_known)
            await self._admin.ensure_system_admin(
                admin.system_username, admin.system_password, is_password_anew=is_anew
            )
            if is_anew:
                await deferToThread(given.keep)

    async def _open_local_access(self) -> None:
        """Lets in who may read the data directory (`core.local_access`)."""
        if not self._config.admin.local_access:
            return
        if self._local_url is None:
            log.info(
                "Commands with --data-dir need a login: HTTP is not bound to loopback, or a proxy there is trusted"
            )
            return
        shared = self._assignment.local_token if self._assignment is not None else ""
        given = await self._admin.open_local_access(shared)
        if not self._is_first:
            return
        ports = {scheme: one.port for scheme, one in self._endpoints.ports.items()}
        token = local_token.LocalToken(self._local_url, given, os.getpid(), ports)
        fault = local_token.write(Path(self._config.data_dir), token)
        if fault:
            self._admin.local_access.close()
            log.warn("Commands with --data-dir need a login: {fault}", fault=fault)

    async def stop(self) -> None:
        """Stops accepting, lets work end for the drain time, closes sessions, then the store."""
        self._is_listening, self._is_draining = False, True
        self._admin.local_access.close()
        local_token.remove(Path(self._config.data_dir), os.getpid())
        for port in self._ports:
            stopped = port.stopListening()
            if isinstance(stopped, Deferred):
                await stopped
        self._ports.clear()
        for repeated in self._repeated:
            if repeated.running:
                repeated.stop()
        if self._tls is not None:
            self._tls.stop()
        self._admin.imports.stop()
        self._mqtt.stop_accepting()
        deadline_s = self._reactor.seconds() + self._config.limits.drain_s
        while self._mqtt.has_work_pending and self._reactor.seconds() < deadline_s:
            await deferLater(self._reactor, 0.05)
        self._mqtt.close_sessions()
        self._api.events.stop()
        self._http.stop()
        await self._coap.stop_deferred()
        await self._webhooks.stop()
        await self._status_fetcher.stop()
        await Deferred.fromFuture(asyncio.ensure_future(self._fabric.stop()))
        self._api.presence.stop()
        self._api.adoption.flush()
        self._api.leases.release()
        self._store.close()
        if self._tracing is not None:
            await deferToThread(self._tracing.stop)

    def _maintain(self) -> None:
        """Each node for itself; what concerns the database alone by one of them."""
        self._api.rpc.maintain()
        self._api.packages.maintain()
        self._admin.authorities.warn_of_expiry()
        self._admin.access.maintain()
        self._admin.imports.maintain()
        self._api.leases.having(MAINTENANCE, 1.5 * MAINTENANCE_S, self._tidy_up)

    def _tidy_up(self) -> None:
        now_ms = int(time.time() * 1000)
        self._api.changes.maintain()
        self._api.claims.maintain()
        provisioning, telemetry = self._config.provisioning, self._config.telemetry
        self._store.submit(
            _trim_log, (provisioning.keep_attempts, now_ms - provisioning.keep_attempts_days * DAY_MS), _maintained
        )
        self._api.gateways.maintain()
        self._admin.approvals.maintain()
        self._store.submit(audit.trim, _kept(self._config.audit, now_ms), _maintained)
        if telemetry.retention_days:
            self._store.submit(_drop_history, (now_ms - telemetry.retention_days * DAY_MS,), _maintained)


def _rpc_options(section: Rpc) -> RpcOptions:
    return RpcOptions(
        submit_strategy=SubmitStrategy(section.submit_strategy),
        closes_session_on_delivery_timeout=section.close_session_on_delivery_timeout,
        ack_timeout_s=section.ack_timeout_s,
        max_retries=section.max_retries,
        max_waiting_per_device=section.max_waiting_per_device,
    )


def _gateway_options(section: Gateway) -> GatewayOptions:
    return GatewayOptions(
        adopts_foreign_devices=section.adopts_foreign_devices, tombstone_s=section.tombstone_s,
        late_type_s=section.late_type_s, max_sub_devices=section.max_sub_devices,
    )  # fmt: skip


def _kept(section: AuditSection, now_ms: int) -> tuple[int, int]:
    """How many entries, and from when."""
    return section.keep_entries or 2**62, now_ms - section.keep_days * DAY_MS if section.keep_days else 0


def _trim_log(tx: Tx, keep: int, before_ms: int) -> None:
    tx.trim_attempts(keep=keep, before_ms=before_ms)


def _drop_history(tx: Tx, before_ms: int) -> int:
    return tx.drop_buckets(before_ms)


def _maintained(outcome: object) -> None:
    if isinstance(outcome, Exception):
        log.error("Maintenance failed and is tried again in a minute: {error}", error=str(outcome))
