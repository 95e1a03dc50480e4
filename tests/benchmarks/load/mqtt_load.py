"""MQTT load: `python -m tests.benchmarks.load.mqtt_load publish|connect|provision --port N …`.

Prints one line of JSON; see README.md for its members. Exits 1 when anything was not acknowledged as it must
be.
"""

from __future__ import annotations

import argparse
import sys

from . import bodies, measure, mqtt_dialogue, mqtt_publish


def main(arguments: list[str] | None = None) -> int:
    """Run one load and print its result; returns the exit code."""
    options = _parser().parse_args(arguments)
    plan = measure.plan_from(options)
    result = _run(options, plan)
    measure.print_result(result)
    return 1 if result["errors"] else 0


def _run(options: argparse.Namespace, plan: measure.Plan) -> dict[str, object]:
    tokens = measure.tokens_from(options.tokens)
    if options.what == "publish":
        return mqtt_publish.run(
            plan,
            connections=options.connections,
            window=options.in_flight,
            tokens=tokens,
            ts_base_ms=options.ts_base,
            server_time=options.server_time,
        )
    if options.what == "connect":
        return mqtt_dialogue.run_connect(plan, concurrent=options.connections, tokens=tokens, sources=options.sources)
    provision_bodies = bodies.ProvisionBodies(prefix=options.prefix, key=options.key, secret=options.secret)
    return mqtt_dialogue.run_provision(
        plan, concurrent=options.connections, provision_bodies=provision_bodies, sources=options.sources
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("publish", "connect", "provision"))
    measure.add_arguments(parser)
    measure.add_telemetry_arguments(parser)
    parser.add_argument("--connections", type=int, default=100, help="publish: connections; else dialogues at a time")
    parser.add_argument("--in-flight", type=int, default=10, help="publish: unacknowledged messages per connection")
    parser.add_argument("--sources", type=int, default=64, help="local addresses to connect from")
    measure.add_provision_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
