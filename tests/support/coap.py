"""CoAP in memory: encoded requests in, encoded answers out, a recording `DeviceApi` behind, time by hand."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from aiocoap import Message
from aiocoap.numbers.codes import Code
from aiocoap.numbers.types import Type

from cloud_core.core.downlinks import Downlinks
from cloud_core.core.metrics import Metrics
from cloud_core.core.rates import RateLimits, RatePolicy
from cloud_core.model import Identity, Peer, PresentedChain, Role
from cloud_core.transports.coap.adapter import CoapDeviceAdapter
from cloud_core.transports.coap.blockwise import Downloads
from cloud_core.transports.coap.fast_path import FastPath
from shared.credentials import AccessToken
from shared.errors import NotAuthenticated, PackageNotFound, PlatformError, ProvisionStatus
from shared.messages import (
    AttributesAnswer,
    AttributesRequest,
    ClaimRequest,
    PackageChunk,
    PackageRequest,
    ProvisionRequest,
    ProvisionResponse,
    RpcRequest,
)

PEER = ("::ffff:192.0.2.7", 40_000, 0, 0)
ANCILLARY = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, bytes(10) + b"\xff\xff\x7f\0\0\x01" + bytes(4))]
PROVISION = b'{"provisionDeviceKey":"k","provisionDeviceSecret":"s","deviceName":"d"}'
PROVISION_PROTOBUF = b"\x0a\x01d\x1a\x06\x0a\x01k\x12\x01s"
SUCCESS = ProvisionResponse(status=ProvisionStatus.SUCCESS, credentials=AccessToken("T0KEN"))


class FakeCertificates:
    """Answers at once what `known` or `logins` say of a leaf; records what it is asked."""

    def __init__(self) -> None:
        self.identities: dict[bytes, Identity] = {}
        self.logins: dict[bytes, Identity | PlatformError] = {}
        self.asked: list[tuple[PresentedChain, Peer]] = []
        self.held: list[Callable[[], None]] | None = None  # a list: answers wait in it

    def known(self, leaf: bytes) -> Identity | None:
        return self.identities.get(leaf)

    def authenticate(self, chain: PresentedChain, peer: Peer, done: Any) -> None:
        self.asked.append((chain, peer))
        outcome = self.logins.get(chain.leaf, NotAuthenticated())
        if self.held is None:
            done(outcome)
        else:
            self.held.append(lambda: done(outcome))


class FakeApi:
    """Records what it is asked; answers at once, or by `release` when `is_holding`."""

    def __init__(self) -> None:
        self.known = {"tok": Identity(Role.DEVICE, device_id=1, device_name="d")}
        self.logins = {"new": Identity(Role.DEVICE, device_id=2, device_name="n")}
        self.telemetry: list[Any] = []
        self.posted_attributes: list[Any] = []
        self.downlinks = Downlinks()
        self.metrics = Metrics()
        self.rates = RateLimits(RatePolicy(), wall_clock=lambda: 1.0)
        # The parts, each recorded here: `api.attributes.post` and so on.
        self.attributes = self.rpc = self.server_methods = self.claims = self.packages = self.presence = self
        self.certificates = FakeCertificates()
        self.client: dict[str, Any] = {}
        self.shared: dict[str, Any] = {}
        self.asked: list[AttributesRequest] = []
        self.replies: list[tuple[int, int, Any]] = []
        self.calls: list[RpcRequest] = []
        self.call_answer: Any = {"ok": True}
        self.offers: list[ClaimRequest] = []
        self.package: bytes | None = None
        self.fetched: list[PackageRequest] = []
        self.present: list[tuple[str, int]] = []
        self.provisioned: list[tuple[ProvisionRequest, Peer]] = []
        self.refused: list[PlatformError] = []
        self.outcome: Any = SUCCESS
        self.stored: Any = None
        self.is_holding = False
        self.held: list[Callable[[], None]] = []
        self.is_congested = False
        self.traces: Any = None

    def on_delivered(self, callback: Callable[[], None]) -> None:
        self.delivered = callback

    def now_ms(self) -> int:
        return 1_000

    def known_token(self, token: str) -> Identity | None:
        return self.known.get(token)

    def authenticate_token(self, token: str, done: Any) -> None:
        self._finish(done, self.logins.get(token, NotAuthenticated()))

    def post_telemetry(self, identity: Identity, samples: Any, done: Any) -> None:
        self.telemetry.append((identity.device_id, samples))
        self._finish(done, self.stored)

    def post(self, identity: Identity, values: Any, done: Any) -> None:
        self.posted_attributes.append((identity.device_id, dict(values)))
        self._finish(done, self.stored)

    def provision(self, request: ProvisionRequest, peer: Peer, done: Any) -> None:
        self.provisioned.append((request, peer))
        self._finish(done, self.outcome)

    def refuse_provision(self, error: PlatformError, peer: Peer, done: Any, *, request: Any = None) -> None:
        error.ref = "R-1"
        self.refused.append(error)
        self._finish(done, error)

    def may(self, identity: Identity, operation: Any) -> bool:
        return identity.role is not Role.PROVISIONING

    def request(self, identity: Identity, request: AttributesRequest, done: Any) -> None:
        self.asked.append(request)
        self._finish(done, self.stored or AttributesAnswer(client=dict(self.client), shared=dict(self.shared)))

    def reply(self, identity: Identity, number: int, value: Any, done: Any) -> None:
        self.replies.append((identity.device_id, number, value))
        self._finish(done, self.stored)

    def call(self, identity: Identity, request: RpcRequest, done: Any) -> None:
        self.calls.append(request)
        self._finish(done, self.stored or self.call_answer)

    def offer(self, identity: Identity, request: ClaimRequest, done: Any) -> None:
        self.offers.append(request)
        self._finish(done, self.stored)

    def fetch(self, identity: Identity, request: PackageRequest, done: Any) -> None:
        self.fetched.append(request)
        if self.package is None:
            self._finish(done, PackageNotFound())
            return
        start = request.chunk_bytes * request.chunk
        data = self.package[start : start + request.chunk_bytes] if request.chunk_bytes else self.package
        chunk = PackageChunk(data=data, file_name="f.bin", content_type="x", total_bytes=len(self.package))
        self._finish(done, self.stored or chunk)

    def seen(self, device_id: int) -> None:
        self.present.append(("seen", device_id))

    def connected(self, device_id: int) -> None:
        self.present.append(("connected", device_id))

    def disconnected(self, device_id: int) -> None:
        self.present.append(("disconnected", device_id))

    def release(self) -> None:
        held, self.held = self.held, []
        for finish in held:
            finish()

    def _finish(self, done: Any, outcome: Any) -> None:
        if self.is_holding:
            self.held.append(lambda: done(outcome))
        else:
            done(outcome)


class FakeLoop:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.calls.append((self.now_s + delay, callback))

    def advance(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while due := sorted((call for call in self.calls if call[0] <= end_s), key=lambda call: call[0]):
            self.calls.remove(due[0])
            self.now_s = due[0][0]
            due[0][1]()
        self.now_s = end_s


class CoapServer:
    """The fast path of one socket."""

    def __init__(self, **options: Any) -> None:
        self.api = FakeApi()
        self.loop = FakeLoop()
        self.sent: list[bytes] = []
        self.sent_to: list[Any] = []
        self._message_id = 999
        self.path = FastPath(
            CoapDeviceAdapter(self.api),  # type: ignore[arg-type]  # a fake
            loop=self.loop,
            send=self._send,
            next_message_id=self._next,
            downloads=Downloads(),
            **options,
        )

    def _send(self, data: bytes, ancillary: Any, address: Any) -> None:
        assert ancillary == ANCILLARY and address[0] == PEER[0]
        self.sent.append(data)
        self.sent_to.append(address)

    def _next(self) -> int:
        self._message_id += 1
        return self._message_id

    def receive(self, data: bytes, address: Any = PEER, flags: int = 0) -> bool:
        return self.path.receive(data, ANCILLARY, flags, address)

    def post(self, path: str, payload: bytes = b"{}", **options: Any) -> Message:
        """Sends a request that is answered at once; gives the decoded answer."""
        assert self.receive(request(path, payload, **options))
        return self.answer()

    def get(self, path: str, **options: Any) -> Message:
        return self.post(path, b"", code=Code.GET, **options)

    def answer(self) -> Message:
        return Message.decode(self.sent[-1])

    def taken(self) -> list[Message]:
        """What was sent since the last call."""
        sent = [Message.decode(one) for one in self.sent]
        self.sent.clear()
        self.sent_to.clear()
        return sent

    def acknowledge(self, message: Message, kind: Type = Type.ACK, address: Any = PEER) -> bool:
        """The peer's empty answer to a message of ours."""
        return self.receive(bytes((0x40 | kind << 4, 0, message.mid >> 8, message.mid & 255)), address)


def request(
    path: str,
    payload: bytes = b"{}",
    *,
    mid: int = 1,
    mtype: Type = Type.CON,
    code: Code = Code.POST,
    token: bytes = b"\x01\x02",
    **options: Any,
) -> bytes:
    message = Message(code=code, payload=payload, _mtype=mtype, _mid=mid, _token=token, **options)
    path, _, query = path.partition("?")
    message.opt.uri_path = tuple(path.split("/"))
    if query:
        message.opt.uri_query = tuple(query.split("&"))
    return bytes(message.encode())
