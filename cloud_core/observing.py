"""Puts the numbers of all parts together: what `/metrics` shows beside what the device API counts itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

from cloud_core.core.api import DeviceApi
from cloud_core.core.certificates import expiry
from cloud_core.measures import Family, counter, gauge, one
from cloud_core.process_metrics import ProcessMetrics
from cloud_core.storage.store import SqlStore
from cloud_core.tls_service import TlsService
from cloud_core.transports.coap.service import CoapService
from cloud_core.transports.http.service import HttpService
from cloud_core.transports.mqtt.service import MqttService

CERTIFICATES_FRESH_S = 300.0
DAY_MS = 86_400_000
_NOT_TAKEN = ("malformed", "unknown_topic", "not_authorized", "rate_limited", "delayed", "refused", "undeliverable")
_PEERS = ("refused_logins", "violations")


class Observing:
    """Registers the sources of `api.metrics`; nothing runs until somebody scrapes."""

    def __init__(
        self, *, api: DeviceApi, store: SqlStore, mqtt: MqttService, http: HttpService, coap: CoapService,
        tls: TlsService | None,
        server_certificates: Callable[[], list[tuple[str, int]]], data_dir: str,
    ) -> None:  # fmt: skip
        self._api, self._store, self._mqtt, self._http, self._coap, self._tls = api, store, mqtt, http, coap, tls
        self._server_certificates = server_certificates
        self._data_dir = data_dir
        self._ends: dict[expiry.Kind, int] = {}  # kind -> ms since the epoch
        self._ends_at_s = float("-inf")
        api.metrics.sources += [
            self.transports, store.families, self.rates, self.certificates, self.state, ProcessMetrics().families
        ]  # fmt: skip

    def transports(self) -> list[Family]:
        counters = self._mqtt.counters
        return [
            gauge("mqtt_connections", "Open MQTT connections.", one(self._mqtt.connection_count)),
            gauge("http_long_polls", "HTTP requests that wait.", one(self._http.long_poll_count)),
            gauge("coap_observations", "Open CoAP observations.", one(self._coap.observation_count)),
            gauge("dtls_sessions", "Open DTLS sessions.", one(self._coap.session_count)),
            counter(
                "mqtt_messages_not_taken_total",
                "MQTT messages that were not taken or not delivered.",
                [({"reason": name}, getattr(counters, name)) for name in _NOT_TAKEN],
            ),
            counter(
                "mqtt_peers_refused_total",
                "MQTT connections that opened no session or broke the protocol.",
                [({"reason": name}, getattr(counters, name)) for name in _PEERS],
            ),
            counter("tls_handshakes_total", "TLS and DTLS handshakes.", self._handshakes()),
        ]

    def rates(self) -> list[Family]:
        hits = [({"scope": scope}, count) for scope, count in self._api.rates.refused().items()]
        return [counter("rate_limit_hits_total", "Messages above a rate limit.", hits)]

    def certificates(self) -> list[Family]:
        """What the last look-up found, at most CERTIFICATES_FRESH_S old; the first scrape begins the first."""
        if time.monotonic() - self._ends_at_s > CERTIFICATES_FRESH_S:
            self._ends_at_s = time.monotonic()
            self._store.survey(expiry.soonest, (self._api.now_ms(),), self._found)
        ends = dict(self._ends)
        shown = [end_ms for _, end_ms in self._server_certificates()]
        if shown:
            ends[expiry.Kind.SERVER] = min(shown)
        now_ms = self._api.now_ms()
        days = [({"kind": kind.value.lower()}, round((end - now_ms) / DAY_MS, 3)) for kind, end in sorted(ends.items())]
        return [gauge("certificate_days_left", "Days until the next certificate of a kind ends.", days)]

    def state(self) -> list[Family]:
        is_ready = not self._api.health.reasons()
        return [gauge("ready", "1 while the core serves.", one(int(is_ready))), *self._disk()]

    def _disk(self) -> list[Family]:
        try:
            usage = shutil.disk_usage(self._data_dir)
        except OSError:
            return []
        return [
            gauge("disk_free_bytes", "Left on the disk of the data directory.", one(usage.free)),
            gauge("disk_bytes", "Size of that disk.", one(usage.total)),
        ]

    def _found(self, outcome: Any) -> None:  # Any: dict, or a refusal of the store, after which the next scrape asks
        if isinstance(outcome, dict):
            self._ends = outcome
        else:
            self._ends_at_s = float("-inf")

    def _handshakes(self) -> list[tuple[dict[str, str], float]]:
        counts = dict(self._tls.handshakes()) if self._tls is not None else {}
        if self._coap.dtls_port is not None:
            counts["coaps"] = self._coap.handshakes
        return [
            ({"port": port, "outcome": outcome}, count)
            for port, pair in sorted(counts.items())
            for outcome, count in zip(("ok", "failed"), pair, strict=True)
        ]
