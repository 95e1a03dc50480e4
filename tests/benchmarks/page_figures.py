"""Figures of people who look while devices work: open pages beside ingest, and what a scraper costs."""

from __future__ import annotations

import http.client
import time

from . import report
from .figures import BASE_TS_MS, ROUND_MS, Figure
from .harness import Bench, Target, finished, row
from .report import Result, Row
from .servers import ADMIN, Core, ServerFailed

PAGES = 200
SESSIONS = 10_000
SCRAPES = 100
SCRAPE_TARGET_MS = 20.0


def live_pages(bench: Bench) -> list[Row]:
    """Ingest with 100 connections and 10 messages in flight each, without and with 200 open pages, in turn."""
    name = "live_pages"
    with bench.core(name, devices=100) as (core, devices):

        def publish(step: int) -> Result:
            load = ("--connections", 100, "--in-flight", 10, "--ts-base", BASE_TS_MS + step * ROUND_MS)
            return bench.load("mqtt_load publish", *load, "--tokens", devices.tokens_file, to=core.mqtt, watch=core)

        def beside_pages(number: int) -> Result:
            who = ("--username", ADMIN[0], "--password", ADMIN[1])
            pages = bench.start_load("live_pages", "--connections", PAGES, *who, to=core.http, watch=core)
            if pages.stdout is None:
                raise ServerFailed("the pages have no output")
            pages.stdout.readline()  # all open
            result = publish(2 * number + 1)
            shown = finished(pages, bench.options)
            errors, reason = report.errors_in([result, shown])
            return {**result, "errors": errors, "first_error": reason, "pages": shown}

        publish(-1)  # what follows meets a table that has rows already
        results = bench.alternate({"without": lambda number: publish(2 * number), "with": beside_pages})
        aim = 0.95 * report.median(results["without"], "rate")
        baselines = {"without": results["without"]}
        return [row(name, results["with"], Target(rate=aim), memory_bytes=core.memory_bytes(), baselines=baselines)]


def scrape(bench: Bench) -> list[Row]:
    """`/metrics` of a core with 10,000 MQTT sessions; nobody else asks anything."""
    name = "metrics"
    with bench.core(name, devices=SESSIONS) as (core, devices):
        load = ("--connections", SESSIONS, "--tokens", devices.tokens_file)
        client = bench.start_load("idle", *load, to=core.mqtt, watch=core)
        if client.stdout is None:
            raise ServerFailed("the idle client has no output")
        client.stdout.readline()  # all open
        took = _scrapes(core)
        result = finished(client, bench.options)  # the end of its input tells it to go on
    took.sort()
    errors, reason = report.errors_in([result])
    p99_ms = took[int(len(took) * 0.99)]
    return [
        Row(
            name=name, value=took[len(took) // 2], unit="ms", target=f"p99 ≤ {SCRAPE_TARGET_MS:g} ms",
            reached=p99_ms <= SCRAPE_TARGET_MS and not errors, p99_ms=p99_ms, errors=errors, first_error=reason,
            rounds=[{"ms": took}],
        )
    ]  # fmt: skip


def _scrapes(core: Core) -> list[float]:
    connection = http.client.HTTPConnection(core.http.host, core.http.port, timeout=60)
    took = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        response.read()
        took.append((time.perf_counter() - began) * 1000)
        if response.status != 200:
            raise ServerFailed(f"/metrics answered {response.status}")
    connection.close()
    return took


PAGE_FIGURES = (Figure("live_pages", live_pages), Figure("metrics", scrape))
