"""Gateway load: `python -m tests.benchmarks.load.gateway_load publish --port N …`.

N gateways, each with W messages to `v1/gateway/telemetry` in flight, QoS 1; a message has one sample of each of
ten devices. The devices are found or created during the warm-up. Prints one line of JSON; see README.md for its
members. Exits 1 when anything was not acknowledged as it must be.
"""

from __future__ import annotations

import argparse
import sys

from . import bodies, measure, mqtt_wire
from .mqtt_publish import Publisher, PublishLoad, connected
from .mqtt_ring import RING, RING_DIGITS, MessageRing

TOPIC = "v1/gateway/telemetry"
DEVICES_PER_MESSAGE = 10
DEVICES_PER_GATEWAY = 100


def telemetry(gateway: int, ts_ms: int, number: int) -> bytes:
    """Message `number` of a gateway: ten neighbours of its hundred devices, one reading each, all at `ts_ms`."""
    first = number * DEVICES_PER_MESSAGE % DEVICES_PER_GATEWAY
    entries = [
        b'"meter-%05d-%03d":[%b]' % (gateway, first + place, bodies.telemetry(ts_ms, number + place))
        for place in range(DEVICES_PER_MESSAGE)
    ]
    return b"{%b}" % b",".join(entries)


class GatewayRing(MessageRing):
    """The messages of one gateway; a lap patches the `ts` of every device."""

    __slots__ = ()

    def __init__(self, *, gateway: int, ts_base_ms: int) -> None:
        """`ts_base_ms` must be a multiple of the ring's length."""
        self._lap = ts_base_ms // RING
        self._buffer = bytearray()
        for position in range(RING):
            body = telemetry(gateway, ts_base_ms + position, position)
            self._buffer += mqtt_wire.publish(TOPIC, body, packet_id=position + 1)
        self.size = len(self._buffer) // RING
        self.packets = memoryview(self._buffer)
        self._patched = tuple(
            (at + digit, digit) for at in self._stamps() for digit in range(bodies.TS_DIGITS - RING_DIGITS)
        )

    def _stamps(self) -> list[int]:
        """Where the time stamps of the first message begin."""
        marks, at = [], -1
        while (at := self._buffer.find(b'{"ts":', at + 1, self.size)) >= 0:
            marks.append(at + len(b'{"ts":'))
        return marks


def run(plan: measure.Plan, *, gateways: int, window: int, tokens: list[str], ts_base_ms: int) -> dict[str, object]:
    """Publish as planned. Raises: ConnectionError, ValueError for a window larger than the ring."""
    if not 1 <= window <= RING:
        raise ValueError(f"--in-flight must be 1 to {RING}")
    if gateways > len(tokens):
        raise ValueError(f"{gateways} gateways need as many tokens; there are {len(tokens)}")
    ts_base_ms = ts_base_ms // RING * RING
    publishers = [
        Publisher(
            connected(plan, client_id=f"gateway-{number:05d}", token=tokens[number]),
            GatewayRing(gateway=number, ts_base_ms=ts_base_ms),
            window,
        )
        for number in range(gateways)
    ]
    meter = measure.Meter(plan)
    load = PublishLoad(plan, publishers, meter)
    load.run()
    for publisher in publishers:
        publisher.sock.close()
    extra = {"body_bytes": len(telemetry(0, ts_base_ms, 0)), "samples_per_message": DEVICES_PER_MESSAGE}
    return meter.result(sent=load.sent, acknowledged=load.acknowledged, extra=extra)


def main(arguments: list[str] | None = None) -> int:
    """Run the load and print its result; returns the exit code."""
    options = _parser().parse_args(arguments)
    result = run(
        measure.plan_from(options),
        gateways=options.connections,
        window=options.in_flight,
        tokens=measure.tokens_from(options.tokens),
        ts_base_ms=options.ts_base,
    )
    measure.print_result(result)
    return 1 if result["errors"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("publish",))
    measure.add_arguments(parser)
    measure.add_telemetry_arguments(parser)
    parser.add_argument("--connections", type=int, default=20, help="gateways")
    parser.add_argument("--in-flight", type=int, default=10, help="unacknowledged messages per gateway")
    return parser


if __name__ == "__main__":
    sys.exit(main())
