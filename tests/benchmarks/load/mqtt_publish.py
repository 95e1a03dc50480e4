"""Publishing with QoS 1: N connections, each with W messages in flight, every acknowledgement checked.

A message counts once its PUBACK has come back, in order and with the right packet id. Latency runs from the
`send` of the message, or, at a paced rate, from the moment it was due: a late client or a full window is not
hidden.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque

from . import bodies, mqtt_wire
from .measure import Meter, Plan
from .mqtt_ring import ACKNOWLEDGEMENTS, RING, MessageRing

TOPIC = "v1/devices/me/telemetry"
READ_BYTES = 65_536


class Publisher:
    """One connection: its ring of messages, what is in flight, and what the socket did not take yet."""

    __slots__ = (
        "acked",
        "dead",
        "in_flight",
        "leftover",
        "position",
        "ring",
        "sent_at",
        "sock",
        "unwritten",
        "window",
    )

    def __init__(self, sock: socket.socket, ring: MessageRing, window: int) -> None:
        self.sock = sock
        self.ring = ring
        self.window = window
        self.position = 0  # next message in the ring
        self.acked = 0  # next acknowledgement expected, as a position in the ring
        self.in_flight = 0
        self.sent_at: deque[tuple[int, float]] = deque()  # (messages, time) oldest first
        self.leftover = b""
        self.unwritten = b""
        self.dead = False

    def send(self, count: int, since: float) -> int:
        """Send up to `count` more messages whose latency runs from `since`; returns how many the window
        allowed.
        """
        count = min(count, self.window - self.in_flight)
        if count <= 0 or self.unwritten:
            return 0
        sent, ring = 0, self.ring
        while sent < count and not self.unwritten:
            run = min(count - sent, RING - self.position)
            stretch = ring.packets[self.position * ring.size : (self.position + run) * ring.size]
            self._write(stretch)
            sent += run
            self.position += run
            if self.position == RING:
                self.position = 0
                ring.next_lap()
        self.in_flight += sent
        self.sent_at.append((sent, since))
        return sent

    def _write(self, stretch: memoryview) -> None:
        try:
            written = self.sock.send(stretch)
        except BlockingIOError:
            written = 0
        if written < len(stretch):
            self.unwritten = bytes(stretch[written:])

    def flush(self) -> None:
        """Write what an earlier `send` left behind."""
        try:
            self.unwritten = self.unwritten[self.sock.send(self.unwritten) :]
        except BlockingIOError:
            return

    def receive(self, now: float, meter: Meter) -> int:
        """Read acknowledgements; returns how many, or -1 when the connection is of no more use."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return 0
        except ConnectionError as error:
            return self._lost(f"connection lost: {error}", meter)
        if not data:
            return self._lost("the server closed the connection", meter)
        if self.leftover or len(data) % 4:
            data = self.leftover + data
            whole = len(data) & ~3
            self.leftover, data = data[whole:], data[:whole]
        count = len(data) // 4
        if not self._expected(data, count):
            return self._lost(f"not the acknowledgements expected: {data[:16].hex()}", meter)
        self.acked = (self.acked + count) % RING
        self.in_flight -= count
        self._record(count, now, meter)
        return count

    def _expected(self, data: bytes, count: int) -> bool:
        start = self.acked * 4
        return count <= self.in_flight and data == ACKNOWLEDGEMENTS[start : start + len(data)]

    def _record(self, count: int, now: float, meter: Meter) -> None:
        sent_at = self.sent_at
        while count:
            messages, since = sent_at[0]
            if messages > count:
                sent_at[0] = (messages - count, since)
                meter.record(now - since, count)
                return
            sent_at.popleft()
            meter.record(now - since, messages)
            count -= messages

    def _lost(self, reason: str, meter: Meter) -> int:
        self.dead = True
        meter.fail(reason)
        return -1


class PublishLoad:
    """All connections together: fills windows (or follows the pace), counts, and drains at the end."""

    def __init__(self, plan: Plan, publishers: list[Publisher], meter: Meter) -> None:
        self._plan = plan
        self._meter = meter
        self._publishers = {publisher.sock.fileno(): publisher for publisher in publishers}
        self._poll = select.epoll()
        for fd in self._publishers:
            self._poll.register(fd, select.EPOLLIN)
        self._turn = deque(publishers)
        self._living = len(publishers)
        self._refilling = plan.rate is None
        self.sent = 0
        self.acknowledged = 0

    def run(self) -> None:
        """Warm up, measure, drain."""
        plan, meter = self._plan, self._meter
        started = time.perf_counter()
        if self._refilling:
            for publisher in self._publishers.values():
                self._send(publisher, publisher.window, started)
        self._load(started)
        self._refilling = False
        drained_by = time.perf_counter() + plan.answer_timeout
        while self.acknowledged < self.sent and time.perf_counter() < drained_by and self._living:
            self._step(0.1)
        meter.end(time.perf_counter())  # a run by count ends with its last answer
        if self.acknowledged < self.sent:
            meter.fail("acknowledgements missing", self.sent - self.acknowledged)

    def _load(self, started: float) -> None:
        plan, meter = self._plan, self._meter
        opens = started + plan.warmup
        closes = float("inf") if plan.count else opens + plan.seconds
        wait_s = 0.1 if plan.rate is None else 0.001
        while self._living:
            now = time.perf_counter()
            if not meter.measuring and now >= opens:
                meter.begin(now)
            if now >= closes or (plan.count and self.sent >= plan.count):
                break
            if plan.rate is not None:
                self._keep_pace(started, now)
            self._step(wait_s)
        if not plan.count:
            meter.end(time.perf_counter())

    def _step(self, wait_s: float) -> None:
        for fd, events in self._poll.poll(wait_s):
            publisher = self._publishers[fd]
            if events & select.EPOLLOUT:
                self._flush(publisher)
            if events == select.EPOLLOUT:
                continue
            now = time.perf_counter()
            count = publisher.receive(now, self._meter)
            if count < 0:
                self._living -= 1
                self._poll.unregister(fd)
                continue
            self.acknowledged += count
            if self._refilling:
                self._send(publisher, publisher.window, now)

    def _send(self, publisher: Publisher, count: int, since: float) -> int:
        if self._plan.count:
            count = min(count, self._plan.count - self.sent)
        sent = publisher.send(count, since)
        self.sent += sent
        if publisher.unwritten:
            self._poll.modify(publisher.sock, select.EPOLLIN | select.EPOLLOUT)
        return sent

    def _keep_pace(self, started: float, now: float) -> None:
        """Send what is due, one message per connection in turn, until the schedule or all windows are
        exhausted.
        """
        rate = self._plan.rate or 0.0
        due, turn = int((now - started) * rate), self._turn
        full = 0
        while self.sent < due and full < len(turn):
            publisher = turn[0]
            turn.rotate(-1)
            full = 0 if not publisher.dead and self._send(publisher, 1, started + self.sent / rate) else full + 1

    def _flush(self, publisher: Publisher) -> None:
        publisher.flush()
        if not publisher.unwritten:
            self._poll.modify(publisher.sock, select.EPOLLIN)
            if self._refilling:
                self._send(publisher, publisher.window, time.perf_counter())


def open_publishers(
    plan: Plan, *, connections: int, window: int, tokens: list[str], ts_base_ms: int, server_time: bool
) -> list[Publisher]:
    """Connect all before the clock starts. Raises: ConnectionError when one is refused."""
    publishers = []
    for index in range(connections):
        sock = connected(plan, client_id=f"load-{index:05d}", token=tokens[index % len(tokens)])
        # Connections that share a token are one device: keep their time stamps apart.
        ts_base = ts_base_ms + index // len(tokens) * 1_000_000_000
        ring = MessageRing(topic=TOPIC, ts_base_ms=ts_base, seed=index, server_time=server_time)
        publishers.append(Publisher(sock, ring, window))
    return publishers


def connected(plan: Plan, *, client_id: str, token: str) -> socket.socket:
    """A non-blocking socket after CONNACK 0. Raises: ConnectionError when the server refuses."""
    sock = socket.create_connection((plan.host, plan.port), timeout=plan.answer_timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(mqtt_wire.connect(client_id=client_id, username=token))
    answer = b""
    while len(answer) < len(mqtt_wire.CONNACK_ACCEPTED):
        data = sock.recv(4 - len(answer))
        if not data:
            raise ConnectionError(f"connection closed before CONNACK ({client_id})")
        answer += data
    if answer != mqtt_wire.CONNACK_ACCEPTED:
        raise ConnectionError(f"CONNECT refused: {answer.hex()} ({client_id})")
    sock.setblocking(False)
    return sock


def run(
    plan: Plan, *, connections: int, window: int, tokens: list[str], ts_base_ms: int, server_time: bool
) -> dict[str, object]:
    """Publish as planned. Raises: ConnectionError, ValueError for a window larger than the ring."""
    if not 1 <= window <= RING:
        raise ValueError(f"--window must be 1 to {RING}")
    publishers = open_publishers(
        plan,
        connections=connections,
        window=window,
        tokens=tokens,
        ts_base_ms=ts_base_ms // RING * RING,
        server_time=server_time,
    )
    meter = Meter(plan)
    load = PublishLoad(plan, publishers, meter)
    load.run()
    for publisher in publishers:
        publisher.sock.close()
    body = bodies.flat_telemetry(0) if server_time else bodies.telemetry(ts_base_ms, 0)
    return meter.result(sent=load.sent, acknowledged=load.acknowledged, extra={"body_bytes": len(body)})
