"""A device that goes on whatever happens to its connection, and remembers what it was told."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
import requests

WAIT_S = 20.0


class Sender:
    """Sends numbered telemetry with QoS 1; tries the next of `ports` when a connection is lost or refused.

    `acknowledged`: the times of messages whose PUBACK came. Commands are answered by what they ask.
    """

    def __init__(self, ports: Sequence[int], token: str, *, every_s: float = 0.005) -> None:
        self.acknowledged: set[int] = set()
        self.answered = 0
        self._ports = itertools.cycle(ports)
        self._token = token
        self._every_s = every_s
        self._is_over = threading.Event()
        self._ts = itertools.count(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join(WAIT_S)

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                self._session(next(self._ports))
            except OSError:
                time.sleep(0.05)

    def _session(self, port: int) -> None:
        """One connection, until it is lost. What was not acknowledged is sent again under the same time later."""
        pending: dict[int, int] = {}
        lost = threading.Event()
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, f"c-{self._token}", reconnect_on_failure=False)
        client.username_pw_set(self._token)
        client.on_connect = lambda c, d, f, code, p: c.subscribe("v1/devices/me/rpc/request/+", 1)
        client.on_disconnect = lambda *_: lost.set()
        client.on_publish = lambda c, d, mid, *_: self._published(pending, mid)
        client.on_message = self._answer
        client.connect("127.0.0.1", port, keepalive=5)
        client.loop_start()
        try:
            while not self._is_over.is_set() and not lost.wait(self._every_s):
                ts = next(self._ts)
                message = client.publish("v1/devices/me/telemetry", json.dumps({"ts": ts, "values": {"n": ts}}), 1)
                pending[message.mid] = ts
        finally:
            client.disconnect()
            client.loop_stop()

    def _published(self, pending: dict[int, int], mid: int) -> None:
        for _ in range(100):  # paho may tell of the PUBACK before `publish` has come back
            if mid in pending:
                self.acknowledged.add(pending[mid])
                return
            time.sleep(0.001)

    def _answer(self, client: Any, _data: Any, message: Any) -> None:
        self.answered += 1
        client.publish(message.topic.replace("request", "response"), message.payload, 1)


class Arrivals:
    """Devices that provision over HTTP one after the other, at whichever of `urls` answers; asks again until told.

    `tokens`: what was granted, by name.
    """

    def __init__(self, urls: Sequence[str], profile: dict[str, str], prefix: str) -> None:
        self.tokens: dict[str, str] = {}
        self.refused: list[Any] = []
        self._urls = itertools.cycle(urls)
        self._profile = profile
        self._prefix = prefix
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join(2 * WAIT_S)

    def _run(self) -> None:
        for number in itertools.count():
            if self._is_over.is_set():
                return
            self._arrive(f"{self._prefix}-{number}")

    def _arrive(self, name: str) -> None:
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            try:
                body = {"deviceName": name, **self._profile}
                answer = requests.post(f"{next(self._urls)}/api/v1/provision", json=body, timeout=3).json()
            except (requests.RequestException, ValueError):
                continue  # no answer: the same request again, as a device does
            if answer.get("status") == "SUCCESS":
                self.tokens[name] = answer["credentialsValue"]
                return
            if answer.get("reason") != "UNAVAILABLE":
                self.refused.append(answer)
                return
            time.sleep(0.1)


def stored_times(get: Callable[..., Any], device_id: str) -> set[int]:
    """The times of what `Sender` has sent and the core has stored; `get`: of a `RestClient`."""
    path = f"/api/plugins/telemetry/DEVICE/{device_id}/values/timeseries"
    history = get(path, keys="n", startTs=0, endTs=10**9, limit=10**6, useStrictDataTypes="true")
    return {point["ts"] for point in history.get("n", [])}
