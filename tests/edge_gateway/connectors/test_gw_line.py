"""Lines over real sockets and a pseudo terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from edge_gateway.connectors.line import KINDS
from edge_gateway.connectors.line import connector as module
from edge_gateway.connectors.line.framing import Framer, FramingLost
from edge_gateway.connectors.plugin.conformance import check_connector
from edge_gateway.model import Call, CallFailed, Health, Refusal
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_coap_sites import RecordingSite, problems_of, running, settings_of

KIND = KINDS[0]
MAP = {"match": r"^(?P<unit>\w+)=", "device": "{unit}", "format": "text", "telemetry": ["regex:=(.+) -> v: float"]}


def call(method: str, params: Any = None, device: str = "a") -> Call:
    return Call(device=device, method=method, params=params, timeout_s=5)


# --- framing ---------------------------------------------------------------------------------------


def test_lines_end_at_the_delimiter_wherever_the_bytes_are_cut() -> None:
    """Byte by byte or at once, with CRLF and empty lines."""
    stream = b"one\r\n\ntwo\nthr"
    assert Framer().feed(stream) == [b"one", b"two"]
    framer = Framer()
    assert [frame for byte in stream for frame in framer.feed(bytes([byte]))] == [b"one", b"two"]
    two = Framer(delimiter=b"##")
    assert two.feed(b"a#") + two.feed(b"#b##") == [b"a", b"b"]


def test_a_line_that_is_too_long_is_skipped_alone() -> None:
    """The next one is taken, and memory is bounded."""
    framer = Framer(max_bytes=5)
    frames = [frame for _piece in range(100) for frame in framer.feed(b"x" * 10)]
    frames += framer.feed(b"\nok\ntoolong\nfine\n")
    assert (frames, framer.skipped) == ([b"ok", b"fine"], 2)


def test_fixed_lengths_and_length_prefixes() -> None:
    """Both ways."""
    assert Framer(length=3).feed(b"abcdefg") == [b"abc", b"def"]
    prefixed = Framer(prefix="uint16", max_bytes=10)
    assert prefixed.feed(prefixed.wrap(b"abc") + b"\0") == [b"abc"]
    assert prefixed.feed(b"\x01z") == [b"z"]
    assert Framer(prefix="uint16-little").wrap(b"a") == b"\1\0a"
    with pytest.raises(FramingLost, match="max_frame"):
        prefixed.feed(b"\xff\xff")


# --- TCP -------------------------------------------------------------------------------------------


@asyncio_test
async def test_a_listener_takes_lines_and_acknowledges_what_is_on_disk() -> None:
    """`ack` after `done`, `refuse` with its words."""
    site = RecordingSite()
    site.is_holding = True
    settings = settings_of(KIND, listen="tcp://127.0.0.1:0", map=[MAP], ack="OK {device}", refuse="NO {reason}")
    connector: Any = KIND.build(settings, site)
    async with running(connector, site):
        reader, writer = await asyncio.open_connection("127.0.0.1", connector.port)
        writer.write(b"a=1.5\nb=2\nnonsense\n")
        await site.until(lambda: len(site.held) == 2)
        assert [(one.device, one.telemetry) for one in site.readings] == [("a", {"v": 1.5}), ("b", {"v": 2.0})]
        assert await reader.readline() == b"NO no map matches the message\n"
        site.held[0](None)
        site.held[1](Refusal(reason="full", retry_after_s=1))
        assert [await reader.readline(), await reader.readline()] == [b"OK a\n", b"NO full\n"]
        writer.close()
        await site.until(lambda: sorted(site.gone_devices) == ["a", "b"])


@asyncio_test
async def test_calls_go_to_the_connection_where_the_device_spoke() -> None:
    """The answer is the next line that fits; other lines stay readings."""
    site = RecordingSite()
    rpc = {"set": {"write": "SET {device} {$.params.n}", "reply": r"^DONE (\S+)"}, "beep": {"write": "BEEP"}}
    settings = settings_of(KIND, listen="tcp://127.0.0.1:0", map=[MAP], rpc=rpc, shared="{key}:={$.value}")
    connector: Any = KIND.build(settings, site)
    async with running(connector, site):
        with pytest.raises(CallFailed, match="must connect"):
            await connector.call(call("beep"))
        reader, writer = await asyncio.open_connection("127.0.0.1", connector.port)
        writer.write(b"a=1\n")
        await site.until(lambda: site.readings)
        answer = asyncio.ensure_future(connector.call(call("set", {"n": 4})))
        assert await reader.readline() == b"SET a 4\n"
        writer.write(b"a=2\nDONE 17\n")
        assert await answer == 17
        assert await connector.call(call("beep")) is None
        await connector.attributes_changed("a", {"limit": 5}, [])
        assert [await reader.readline(), await reader.readline()] == [b"BEEP\n", b"limit:=5\n"]
        with pytest.raises(CallFailed, match="it knows set, beep"):
            await connector.call(call("other"))
        lost = asyncio.ensure_future(connector.call(call("set", {"n": 4})))
        await reader.readline()
        writer.close()
        with pytest.raises(CallFailed, match="connection was lost"):
            await lost
        assert [one["v"] for one in site.values] == [1, 2]


@asyncio_test
async def test_a_congested_gateway_stops_reading() -> None:
    """The sender is held back by TCP; nothing is lost."""
    site = RecordingSite()
    connector: Any = KIND.build(settings_of(KIND, listen="tcp://127.0.0.1:0", map=[MAP]), site)
    async with running(connector, site):
        _, writer = await asyncio.open_connection("127.0.0.1", connector.port)
        site.is_congested = True
        writer.write(b"a=1\n")
        await asyncio.sleep(0.02)
        writer.write(b"a=2\n")
        await asyncio.sleep(0.05)
        assert site.readings == []
        site.make_room()
        await site.until(lambda: len(site.readings) == 2)
        writer.close()


@asyncio_test
async def test_what_is_refused_for_now_waits_where_nobody_can_be_told() -> None:
    """Without `refuse` a sender sends no reading twice: it is offered again, in order, and the sender is held back."""
    site = RecordingSite()
    site.outcome = Refusal(reason="full", retry_after_s=0.02)
    settings = settings_of(KIND, listen="tcp://127.0.0.1:0", map=[MAP], ack="OK {device}", idle_timeout=0.01)
    connector: Any = KIND.build(settings, site)
    async with running(connector, site):
        reader, writer = await asyncio.open_connection("127.0.0.1", connector.port)
        writer.write(b"a=1\na=2\n")
        await site.until(lambda: site.readings)
        await asyncio.sleep(0.05)
        writer.write(b"a=3\n")
        connector._close_silent()
        site.outcome = None
        site.readings.clear()
        for _line in range(3):
            assert await asyncio.wait_for(reader.readline(), 5) == b"OK a\n"
        assert [one["v"] for one in site.values] == [1, 2, 3]
        writer.close()


@asyncio_test
async def test_a_burst_is_taken_as_fast_as_the_gateway_can() -> None:
    """What came in one read waits in the connection, in order, also when the sender has gone meanwhile: it is not
    thrown at a gateway that is behind."""
    site = RecordingSite()
    site.is_holding = True
    settings = settings_of(KIND, listen="tcp://127.0.0.1:0", map=[MAP], ack="OK", refuse="NO")
    connector: Any = KIND.build(settings, site)
    async with running(connector, site):
        _, writer = await asyncio.open_connection("127.0.0.1", connector.port)
        writer.write(b"".join(b"a=%d\n" % number for number in range(2_000)))
        writer.write_eof()
        await site.until(lambda: site.held)
        await asyncio.sleep(0.05)
        assert len(site.held) == len(site.readings) == 256
        site.is_congested = True
        site.release()
        assert len(site.readings) == 256
        site.make_room()
        while len(site.readings) < 2_000:
            await site.until(lambda: site.held)
            assert len(site.held) <= 256
            site.release()
            await asyncio.sleep(0)
        assert [one["v"] for one in site.values] == list(range(2_000))
        writer.close()


@asyncio_test
async def test_a_lost_connection_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """DEGRADED with the reason meanwhile; a silent one is closed after idle_timeout."""
    monkeypatch.setattr(module, "BACKOFF_MIN_S", 0.05)
    site, greeted = RecordingSite(), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        writer.write(b"a=%d\n" % greeted)
        if greeted == 1:
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = settings_of(KIND, connect=f"tcp://127.0.0.1:{port}", map=[MAP], idle_timeout="200 ms")
    async with running(KIND.build(settings, site), site):
        await site.until(lambda: len(site.readings) >= 3)
    server.close()
    reasons = [reason for health, reason in site.healths if health is Health.DEGRADED]
    assert "closed the connection" in reasons[0] and "silent for 0.2 s" in reasons[1]


@asyncio_test
async def test_a_port_where_nobody_is_degrades() -> None:
    """The reason names the place."""
    site = RecordingSite()
    connector = KIND.build(settings_of(KIND, connect="tcp://127.0.0.1:1", map=[MAP]), site)
    async with running(connector, site):
        assert site.healths[0][0] is Health.DEGRADED and "tcp://127.0.0.1:1" in site.healths[0][1]
        with pytest.raises(CallFailed, match="no method"):
            await connector.call(call("x"))


@asyncio_test
async def test_connections_are_bounded() -> None:
    """One too many is closed at once."""
    site = RecordingSite()
    connector: Any = KIND.build(settings_of(KIND, listen="tcp://127.0.0.1:0", map=[MAP], max_connections=1), site)
    async with running(connector, site):
        _, first = await asyncio.open_connection("127.0.0.1", connector.port)
        first.write(b"a=1\n")
        await site.until(lambda: site.readings)
        reader, second = await asyncio.open_connection("127.0.0.1", connector.port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert site.healths[-1][0] is Health.DEGRADED
        first.close()
        second.close()


# --- UDP and serial -------------------------------------------------------------------------------


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.received.put_nowait(data)


@asyncio_test
async def test_datagrams_are_lines_of_their_own() -> None:
    """With or without delimiter; the acknowledgement goes back to the sender."""
    site = RecordingSite()
    connector: Any = KIND.build(settings_of(KIND, listen="udp://127.0.0.1:0", map=[MAP], ack="OK"), site)
    async with running(connector, site):
        loop = asyncio.get_running_loop()
        transport, device = await loop.create_datagram_endpoint(Datagrams, remote_addr=("127.0.0.1", connector.port))
        transport.sendto(b"a=1")
        transport.sendto(b"a=2\nb=3\n")
        for _line in range(3):
            assert await asyncio.wait_for(device.received.get(), 5) == b"OK\n"
        assert [(one.device, one.telemetry) for one in site.readings] == [
            ("a", {"v": 1.0}), ("a", {"v": 2.0}), ("b", {"v": 3.0}),
        ]  # fmt: skip
        transport.close()


@asyncio_test
async def test_a_serial_port_is_read_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a pseudo terminal; unplugged, it is DEGRADED."""
    monkeypatch.setattr(module, "BACKOFF_MIN_S", 0.05)
    device, port = os.openpty()
    path = os.ttyname(port)
    site = RecordingSite()
    settings = settings_of(
        KIND,
        connect=f"serial://{path}?baud=19200",
        map=[{"device": "scale", "format": "bytes", "telemetry": ["bytes:0-1 -> raw: uint16"]}],
        length=2,
        rpc={"tare": {"write": "TT", "reply": "^AK"}},
    )
    connector = KIND.build(settings, site)
    async with running(connector, site):
        assert site.healths == [(Health.HEALTHY, "")]
        os.write(device, b"\x01")
        os.write(device, b"\x02\x03\x04")
        await site.until(lambda: len(site.values) == 2)
        assert site.values == [{"raw": 0x0102}, {"raw": 0x0304}]
        answer = asyncio.ensure_future(connector.call(call("tare", device="scale")))
        assert await asyncio.to_thread(os.read, device, 10) == b"TT"
        os.write(device, b"AK")
        assert await answer == "AK"
        os.close(device)
        os.close(port)
        await site.until(lambda: site.healths[-1][0] is Health.DEGRADED)
        assert site.gone_devices == ["scale"]


@asyncio_test
async def test_a_broken_datagram_spoils_no_other() -> None:
    """Half a message, or an absurd length, costs that datagram alone: the sender's next one is read as it is."""
    fixed = {"device": "scale", "format": "bytes", "telemetry": ["bytes:0-1 -> raw: uint16"]}
    for framing, broken, whole in (
        ({"length": 2}, b"\x09", b"\1\2"),
        ({"length_prefix": "uint16"}, b"\xff\xff", b"\0\2\1\2"),
    ):
        site = RecordingSite()
        settings = settings_of(KIND, listen="udp://127.0.0.1:0", map=[fixed], max_frame="1 KiB", **framing)
        connector: Any = KIND.build(settings, site)
        async with running(connector, site):
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(Datagrams, remote_addr=("127.0.0.1", connector.port))
            transport.sendto(broken)
            transport.sendto(whole)
            await site.until(lambda site=site: len(site.rejected) + len(site.readings) >= 2)  # type: ignore[misc]
            assert site.values == [{"raw": 0x0102}]
            assert [payload for _, payload, _ in site.rejected] == [broken]
            transport.close()


@asyncio_test
async def test_a_serial_port_whose_framing_is_lost_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One corrupt length prefix does not silence the port for ever."""
    monkeypatch.setattr(module, "BACKOFF_MIN_S", 0.05)
    device, port = os.openpty()
    site = RecordingSite()
    settings = settings_of(
        KIND,
        connect=f"serial://{os.ttyname(port)}",
        map=[{"device": "scale", "format": "bytes", "telemetry": ["bytes:0-1 -> raw: uint16"]}],
        length_prefix="uint16",
        max_frame="1 KiB",
    )
    async with running(KIND.build(settings, site), site):
        os.write(device, b"\xff\xff\x00")
        await site.until(lambda: site.healths[-1][0] is Health.DEGRADED)
        assert "65535 bytes" in site.healths[-1][1]
        await site.until(lambda: site.healths[-1][0] is Health.HEALTHY)
        os.write(device, b"\0\2\1\2")
        await site.until(lambda: site.values == [{"raw": 0x0102}])
    os.close(device)
    os.close(port)


@asyncio_test
async def test_a_peer_that_vanished_is_noticed() -> None:
    """Without a word, as by a power cut, on both sides: the system asks, so that dead connections do not fill the
    listener, and a client does not wait for ever."""
    site = RecordingSite()
    connector: Any = KIND.build(settings_of(KIND, listen="tcp://127.0.0.1:0", map=[MAP]), site)
    async with running(connector, site):
        caller = RecordingSite()
        settings = settings_of(KIND, connect=f"tcp://127.0.0.1:{connector.port}", map=[MAP])
        client: Any = KIND.build(settings, caller)
        async with running(client, caller):
            async with asyncio.timeout(5):
                while not (connector._sessions and client._sessions):
                    await asyncio.sleep(0.01)
            for one in (connector, client):
                wire = next(iter(one._sessions)).link._transport.get_extra_info("socket")
                assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
                assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 120_000


@asyncio_test
async def test_a_line_keeps_the_contract(tmp_path: Path) -> None:
    """Also that a source is told only when all is on disk."""

    async def send(connector: Any) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", connector.port)
        try:
            writer.write(b"a=1\n")
            assert await reader.readline() == b"OK\n"
        finally:
            writer.close()
            await writer.wait_closed()

    table = {"listen": "tcp://127.0.0.1:0", "map": [MAP], "ack": "OK"}
    assert await check_connector(KIND, table, send=send) == []


@pytest.mark.parametrize(
    "table, words",
    [
        ({"map": [MAP]}, "either connect"),
        ({"connect": "http://x:1", "map": [MAP]}, "is no line"),
        ({"connect": "udp://x:1", "map": [MAP]}, "connect takes tcp:// or serial://"),
        ({"connect": "serial:///dev/ttyS0?buad=1", "map": [MAP]}, "did you mean 'baud'"),
        ({"connect": "serial:///dev/ttyS0?parity=X", "map": [MAP]}, "no serial line"),
        ({"connect": "tcp://x:1"}, "needs [[line.map]]"),
        ({"connect": "tcp://x:1", "map": [MAP | {"match": "("}]}, "map.0.match: no regular expression"),
        ({"connect": "tcp://x:1", "map": [MAP], "length": 1, "length_prefix": "uint8"}, "not both"),
        ({"connect": "tcp://x:1", "map": [MAP], "length": 70_000}, "length: 70000 is above max_frame"),
        ({"connect": "tcp://x:1", "map": [MAP], "max_frame": 0}, "max_frame: "),
        ({"connect": "tcp://x:1", "map": [MAP], "rpc": {"m": {"write": "x", "reply": "["}}}, "rpc.m.reply"),
    ],
)
def test_mistakes_are_named(table: dict[str, Any], words: str) -> None:
    """`check` finds what the types cannot say."""
    assert re.search(re.escape(words), " | ".join(problems_of(KIND, **table)))
