"""One device, five ways to speak: the same calls over MQTT 3.1.1, MQTT 5, HTTP (both paths) and CoAP.

Each driver uses a stock client library over a real socket. What differs between transports stays in here; the
behaviours in the test files know nothing of it.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import aiocoap
import paho.mqtt.client as paho
import requests

from tests.support.server import CoreProcess

WAIT_S = 15.0


class Refused(Exception):
    """The server would not have it; `str()` is what it said, in the transport's words."""


class Device(Protocol):
    """A device that has logged in, or is named by its token in each request."""

    def post(self, what: str, body: Any) -> None:
        """`what` is `telemetry`, `attributes` or `claim`; returns once it is acknowledged. Raises: Refused."""

    def attributes(self, *, client: str | None = None, shared: str | None = None) -> dict[str, Any]:
        """What the server answers to a request for these comma lists."""

    def call(self, method: str, params: Any) -> Any:
        """A method of the server."""

    def listen(self, what: str) -> None:
        """From here on `heard` gets `attributes` changes or `rpc` commands."""

    def heard(self) -> Any:
        """The next message; waits for it. A command is `{"id", "method", "params"}`."""

    def reply(self, number: Any, body: Any) -> None: ...

    def firmware(self, *, title: str, version: str, chunk_bytes: int, chunk: int) -> bytes: ...


class Driver(Protocol):
    """A transport."""

    name: str

    def provision(self, request: dict[str, Any] | bytes) -> dict[str, Any]:
        """The answer's JSON, whatever its code says."""

    def device(self, token: str) -> Any:
        """A context that gives a `Device`."""


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


# --- MQTT ----------------------------------------------------------------------------------------


class MqttDevice:
    """A paho client that waits for each acknowledgement."""

    def __init__(self, port: int, protocol: int, username: str) -> None:
        self._protocol = protocol
        self._messages: queue.Queue[Any] = queue.Queue()
        self._others: queue.Queue[Any] = queue.Queue()
        self._connected: queue.Queue[int] = queue.Queue()
        self._subscribed: queue.Queue[list[Any]] = queue.Queue()
        self._published: queue.Queue[Any] = queue.Queue()
        self._next_id = 0
        self.client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id="c",
            protocol=protocol,  # type: ignore[arg-type]
        )
        client.username_pw_set(username)
        client.on_connect = lambda c, d, f, code, p: self._connected.put(code.value)
        client.on_message = lambda c, d, message: self._route(message)
        client.on_subscribe = lambda c, d, mid, codes, p: self._subscribed.put(codes)
        client.on_publish = lambda c, d, mid, code, p: self._published.put(code)
        client.connect("127.0.0.1", port)
        client.loop_start()
        code = self._connected.get(timeout=WAIT_S)
        if code != 0:
            self.close()
            raise Refused(f"CONNACK {code}")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _route(self, message: Any) -> None:
        is_push = message.topic == "v1/devices/me/attributes" or message.topic.startswith("v1/devices/me/rpc/request/")
        (self._messages if is_push else self._others).put((message.topic, message.payload))

    def publish(self, topic: str, body: Any) -> None:
        self.client.publish(topic, encoded(body), 1)
        code = self._published.get(timeout=WAIT_S)
        if code.value >= 0x80:
            raise Refused(f"PUBACK {code}")

    def subscribe(self, topic: str) -> int:
        self.client.subscribe(topic, 1)
        granted: int = self._subscribed.get(timeout=WAIT_S)[0].value
        return granted

    def answer(self) -> tuple[str, bytes]:
        topic, payload = self._others.get(timeout=WAIT_S)
        return topic, payload

    def post(self, what: str, body: Any) -> None:
        self.publish(f"v1/devices/me/{what}", b"" if body is None else body)

    def attributes(self, *, client: str | None = None, shared: str | None = None) -> dict[str, Any]:
        self._next_id += 1
        asked = {"clientKeys": client, "sharedKeys": shared}
        body = {name: keys for name, keys in asked.items() if keys is not None}
        self.publish(f"v1/devices/me/attributes/request/{self._next_id}", body)
        topic, payload = self.answer()
        assert topic == f"v1/devices/me/attributes/response/{self._next_id}"
        answer: dict[str, Any] = json.loads(payload)
        return answer

    def call(self, method: str, params: Any) -> Any:
        self._next_id += 1
        self.publish(f"v1/devices/me/rpc/request/{self._next_id}", {"method": method, "params": params})
        topic, payload = self.answer()
        assert topic == f"v1/devices/me/rpc/response/{self._next_id}"
        return json.loads(payload)

    def listen(self, what: str) -> None:
        topic = {"attributes": "v1/devices/me/attributes", "rpc": "v1/devices/me/rpc/request/+"}[what]
        assert self.subscribe(topic) == 1

    def heard(self) -> Any:
        topic, payload = self._messages.get(timeout=WAIT_S)
        content = json.loads(payload)
        if "/rpc/" in topic:
            content["id"] = topic.rpartition("/")[2]
        return content

    def reply(self, number: Any, body: Any) -> None:
        self.publish(f"v1/devices/me/rpc/response/{number}", body)

    def firmware(self, *, title: str, version: str, chunk_bytes: int, chunk: int) -> bytes:
        self._next_id += 1
        self.publish(f"v2/fw/request/{self._next_id}/chunk/{chunk}", str(chunk_bytes).encode())
        topic, payload = self.answer()
        if topic != f"v2/fw/response/{self._next_id}/chunk/{chunk}":
            raise Refused(payload.decode())
        return payload


class MqttDriver:
    """MQTT 3.1.1 or 5."""

    def __init__(self, core: CoreProcess, protocol: int) -> None:
        self._core = core
        self._protocol = protocol
        self.name = "mqtt5" if protocol == paho.MQTTv5 else "mqtt3"

    def provision(self, request: dict[str, Any] | bytes) -> dict[str, Any]:
        device = MqttDevice(self._core.mqtt_port, self._protocol, "provision")
        try:
            device.subscribe("/provision/response")
            device.publish("/provision/request", request)
            answer: dict[str, Any] = json.loads(device.answer()[1])
            return answer
        finally:
            device.close()

    @contextmanager
    def device(self, token: str) -> Iterator[Device]:
        device = MqttDevice(self._core.mqtt_port, self._protocol, token)
        try:
            yield device
        finally:
            device.close()


# --- HTTP ----------------------------------------------------------------------------------------


class HttpDevice:
    """Requests on one session; long polls in a thread of their own, one after the other."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._session = requests.Session()
        self._messages: queue.Queue[Any] = queue.Queue()
        self._is_over = threading.Event()
        self._polls: list[threading.Thread] = []
        if self._post("telemetry", {}).status_code == 401:
            raise Refused("401")

    def close(self) -> None:
        self._is_over.set()
        for poll in self._polls:
            poll.join(WAIT_S)
        self._session.close()

    def _post(self, path: str, body: Any) -> requests.Response:
        return self._session.post(
            f"{self._base}/{path}", data=encoded(body) if body is not None else b"", timeout=WAIT_S
        )

    def _good(self, answer: requests.Response) -> requests.Response:
        if answer.status_code != 200:
            raise Refused(f"{answer.status_code} {answer.text}")
        return answer

    def post(self, what: str, body: Any) -> None:
        self._good(self._post(what, body))

    def attributes(self, *, client: str | None = None, shared: str | None = None) -> dict[str, Any]:
        params = {"clientKeys": client, "sharedKeys": shared}
        answer = self._session.get(f"{self._base}/attributes", params=params, timeout=WAIT_S)
        found: dict[str, Any] = self._good(answer).json()
        return found

    def call(self, method: str, params: Any) -> Any:
        return self._good(self._post("rpc", {"method": method, "params": params})).json()

    def listen(self, what: str) -> None:
        path = {"attributes": "attributes/updates", "rpc": "rpc"}[what]
        started = threading.Event()
        poll = threading.Thread(target=self._poll, args=(path, started), daemon=True)
        self._polls.append(poll)
        poll.start()
        started.wait(WAIT_S)

    def _poll(self, path: str, started: threading.Event) -> None:
        with requests.Session() as session:
            threading.Timer(0.3, started.set).start()  # the request is on its way by then
            while not self._is_over.is_set():
                answer = session.get(f"{self._base}/{path}", params={"timeout": 1000}, timeout=WAIT_S)
                if answer.status_code == 200:
                    self._messages.put(answer.json())
                elif answer.status_code != 408:
                    self._messages.put(Refused(f"{answer.status_code} {answer.text}"))
                    return

    def heard(self) -> Any:
        message = self._messages.get(timeout=WAIT_S)
        if isinstance(message, Refused):
            raise message
        return message

    def reply(self, number: Any, body: Any) -> None:
        self._good(self._post(f"rpc/{number}", body))

    def firmware(self, *, title: str, version: str, chunk_bytes: int, chunk: int) -> bytes:
        params: dict[str, Any] = {"title": title, "version": version, "size": chunk_bytes, "chunk": chunk}
        return self._good(self._session.get(f"{self._base}/firmware", params=params, timeout=WAIT_S)).content


class HttpDriver:
    """HTTP/1.1; the core decides whether the fast front or klein answers."""

    def __init__(self, core: CoreProcess, name: str) -> None:
        self._core = core
        self.name = name

    def provision(self, request: dict[str, Any] | bytes) -> dict[str, Any]:
        answer = requests.post(f"{self._core.device_http}/api/v1/provision", data=encoded(request), timeout=WAIT_S)
        content: dict[str, Any] = answer.json()
        return content

    @contextmanager
    def device(self, token: str) -> Iterator[Device]:
        device = HttpDevice(f"{self._core.device_http}/api/v1/{token}")
        try:
            yield device
        finally:
            device.close()


# --- CoAP ----------------------------------------------------------------------------------------


class CoapLoop:
    """aiocoap's client in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.context: Any = self.run(aiocoap.Context.create_client_context())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)

    def close(self) -> None:
        self.run(self.context.shutdown())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()

    def request(self, code: Any, uri: str, payload: bytes = b"") -> Any:
        async def ask() -> Any:
            return await self.context.request(aiocoap.Message(code=code, uri=uri, payload=payload)).response

        return self.run(ask())


class CoapDevice:
    """Confirmable requests; observations feed the queue."""

    def __init__(self, loop: CoapLoop, port: int, token: str) -> None:
        self._loop = loop
        self._port = port
        self._token = token
        self._messages: queue.Queue[Any] = queue.Queue()
        self._observed: list[Any] = []
        if str(self._request(aiocoap.POST, "telemetry", b"{}").code).startswith("4.01"):
            raise Refused("4.01")

    def close(self) -> None:
        for following in self._observed:
            self._loop.loop.call_soon_threadsafe(following.cancel)

    def _uri(self, path: str) -> str:
        return f"coap://127.0.0.1:{self._port}/api/v1/{self._token}/{path}"

    def _request(self, code: Any, path: str, payload: bytes = b"") -> Any:
        return self._loop.request(code, self._uri(path), payload)

    def _good(self, answer: Any) -> Any:
        if not answer.code.is_successful():
            raise Refused(f"{answer.code} {answer.payload.decode('utf-8', 'replace')}")
        return answer

    def post(self, what: str, body: Any) -> None:
        self._good(self._request(aiocoap.POST, what, encoded(body) if body is not None else b""))

    def attributes(self, *, client: str | None = None, shared: str | None = None) -> dict[str, Any]:
        asked = {"clientKeys": client, "sharedKeys": shared}
        query = "&".join(f"{name}={keys}" for name, keys in asked.items() if keys is not None)
        answer = self._request(aiocoap.GET, f"attributes?{query}" if query else "attributes")
        if str(answer.code).startswith("4.04"):
            return {}
        found: dict[str, Any] = json.loads(self._good(answer).payload)
        return found

    def call(self, method: str, params: Any) -> Any:
        body = encoded({"method": method, "params": params})
        return json.loads(self._good(self._request(aiocoap.POST, "rpc", body)).payload)

    def listen(self, what: str) -> None:
        async def observe() -> Any:
            message = aiocoap.Message(code=aiocoap.GET, uri=self._uri(what), observe=0)
            request = self._loop.context.request(message)
            first = await request.response
            following = asyncio.ensure_future(self._follow(request))
            return following, first

        following, first = self._loop.run(observe())
        self._observed.append(following)
        self._good(first)

    async def _follow(self, request: Any) -> None:
        try:
            async for notification in request.observation:
                self._messages.put(notification.payload)
        finally:
            request.observation.cancel()  # the client forgets it: RST from now on

    def heard(self) -> Any:
        return json.loads(self._messages.get(timeout=WAIT_S))

    def reply(self, number: Any, body: Any) -> None:
        self._good(self._request(aiocoap.POST, f"rpc/{number}", encoded(body)))

    def firmware(self, *, title: str, version: str, chunk_bytes: int, chunk: int) -> bytes:
        uri = (
            f"coap://127.0.0.1:{self._port}/fw/{self._token}"
            f"?title={title}&version={version}&size={chunk_bytes}&chunk={chunk}"
        )
        payload: bytes = self._good(self._loop.request(aiocoap.GET, uri)).payload
        return payload


class CoapDriver:
    """CoAP over UDP."""

    name = "coap"

    def __init__(self, core: CoreProcess, loop: CoapLoop) -> None:
        self._core = core
        self._loop = loop

    def provision(self, request: dict[str, Any] | bytes) -> dict[str, Any]:
        uri = f"coap://127.0.0.1:{self._core.coap_port}/api/v1/provision"
        answer: dict[str, Any] = json.loads(self._loop.request(aiocoap.POST, uri, encoded(request)).payload)
        return answer

    @contextmanager
    def device(self, token: str) -> Iterator[Device]:
        device = CoapDevice(self._loop, self._core.coap_port, token)
        try:
            yield device
        finally:
            device.close()
