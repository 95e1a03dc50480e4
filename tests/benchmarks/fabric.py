"""Messages between two nodes through NATS: `python -m tests.benchmarks.fabric [--messages 200000]`.

Two processes and a nats-server of its own. One way: told in turns of the reactor of 1, 10 and 100 messages, until the
other has heard all. Both ways: a question to the other node and its answer, one at a time, then 32 on their way.
Beside it a bare nats-py, one publish for each message.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nats

from cloud_core.fabric.addresses import addresses_of
from cloud_core.fabric.nats import NatsFabric
from tests.support.nats_servers import NatsServer

BODY = {"id": 123_456_789, "device": 4_711, "method": "setRelay", "params": {"on": True}, "expires": 1_790_000_000_000}
TURNS = (1, 10, 100)
QUESTIONS = 5_000
FULL_BYTES = 1_000_000


async def joined(url: str, node: str) -> NatsFabric:
    fabric = NatsFabric(addresses_of(url), cluster="bench", node=node)
    await fabric.start()
    while not fabric.others:
        await asyncio.sleep(0.01)
    return fabric


async def answering(url: str) -> None:
    """The other process: counts news and answers questions until it is told to end."""
    fabric = NatsFabric(addresses_of(url), cluster="bench", node="other")
    heard, ended = 0, asyncio.Event()

    def news(sender: str, body: Any) -> None:
        nonlocal heard
        heard += 1
        if body["id"] == 0:
            fabric.tell(sender, "heard", heard)
            heard = 0

    fabric.hear("news", news)
    fabric.hear("question", lambda sender, body: fabric.tell(sender, "answer", body))
    fabric.hear("end", lambda *_: ended.set())
    await fabric.start()
    client = await nats.connect(url)
    arrived = 0

    async def bare(message: Any) -> None:
        nonlocal arrived
        arrived += 1
        if not message.data:
            await client.publish("bare.heard", str(arrived).encode())
            arrived = 0

    await client.subscribe("bare", cb=bare)
    await ended.wait()
    await client.close()
    await fabric.stop()


async def one_way(fabric: NatsFabric, count: int, each_turn: int) -> float:
    """Messages a second, from the first told to the last heard."""
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    fabric.hear("heard", lambda _, body: heard.set_result(body))
    began_s = time.perf_counter()
    for start in range(0, count, each_turn):
        for _ in range(each_turn):
            fabric.tell_all("news", BODY)
        while fabric._outgoing_bytes > FULL_BYTES:
            await asyncio.sleep(0.001)
        if start:
            await asyncio.sleep(0)
    fabric.tell_all("news", {"id": 0})
    assert await heard == count + 1
    return count / (time.perf_counter() - began_s)


async def both_ways(fabric: NatsFabric, count: int, on_their_way: int) -> list[float]:
    """Seconds from question to answer, of each."""
    took: list[float] = []
    asked_s: dict[int, float] = {}
    over = asyncio.Event()
    numbers = iter(range(count))

    def ask() -> None:
        number = next(numbers, None)
        if number is not None:
            asked_s[number] = time.perf_counter()
            fabric.tell("other", "question", {**BODY, "id": number})

    def answered(_sender: str, body: Any) -> None:
        took.append(time.perf_counter() - asked_s.pop(body["id"]))
        ask()
        if len(took) == count:
            over.set()

    fabric.hear("answer", answered)
    for _ in range(on_their_way):
        ask()
    await over.wait()
    return took


async def bare_way(url: str, count: int) -> float:
    client = await nats.connect(url)
    over = asyncio.Event()

    async def heard(_message: Any) -> None:
        over.set()

    await client.subscribe("bare.heard", cb=heard)
    began_s = time.perf_counter()
    for _ in range(count):
        await client.publish("bare", b"x" * 100)
    await client.publish("bare", b"")
    await over.wait()
    took_s = time.perf_counter() - began_s
    await client.close()
    return count / took_s


async def measure(url: str, count: int) -> None:
    fabric = await joined(url, "one")
    for each_turn in TURNS:
        rate = await one_way(fabric, count if each_turn > 1 else count // 4, each_turn)
        print(f"told and heard, {each_turn:3} in a turn: {rate:9,.0f}/s")
    print(f"bare nats-py, one publish each: {await bare_way(url, count // 4):9,.0f}/s")
    for on_their_way in (1, 32):
        began_s = time.perf_counter()
        took = await both_ways(fabric, QUESTIONS, on_their_way)
        rate = QUESTIONS / (time.perf_counter() - began_s)
        what = f"question and answer, {on_their_way:2} on their way"
        p50, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
        print(f"{what}: p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms, {rate:,.0f}/s")
    fabric.tell("other", "end", None)
    await fabric.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--answer", help="URL; what the other process is started with")
    options = parser.parse_args()
    if options.answer:
        asyncio.run(answering(options.answer))
        return
    program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
    if program is None:
        sys.exit("nats-server is not installed (Debian package nats-server)")
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(program, Path(folder)).start()
        other = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.fabric", "--answer", server.url])
        try:
            asyncio.run(measure(server.url, options.messages))
            other.wait(10)
        finally:
            other.kill()
            server.kill()


if __name__ == "__main__":
    main()
