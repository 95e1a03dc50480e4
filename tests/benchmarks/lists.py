"""How long lists and searches of a large fleet take over REST: `python -m tests.benchmarks.lists [--devices 100000]`.

A real server and one client on one connection. Each route is asked for all combinations of its filters, searches and
orders, at the first page, half way and at the end. Other programs run beside: each round says its own figures, and
what counts is the best of the rounds; the server's CPU time by call stands beside it.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import requests
from sqlalchemy import Connection, create_engine, func, insert, select

from cloud_core.storage import schema
from cloud_core.storage.interface import NewDevice
from tests.support.server import CoreProcess
from tests.support.stores import KEY, TENANT, open_store

PROFILES = 20
CUSTOMERS = 500
USERS = 1_000
BATCHES = 200
GATEWAY_EVERY, BEHIND_EACH = 50, 20
SORTED_BY = ("createdTime", "name", "label", "type", "deviceProfileName")
SEARCHES = ("", "sn-", "12", "sn-12", "sensor 77", "type 1", "zzzz")
OUTCOMES = ("SUCCESS", "DEVICE_EXISTS", "INVALID_PROVISION_CREDENTIALS", "RATE_LIMITED")
NOW_MS = int(time.time() * 1000)
BEGAN_MS = NOW_MS - 5 * 86_400_000  # nothing is old enough to be cleared away
ROUNDS = 4


class Call(NamedTuple):
    """One call; what is measured is told by `group`."""

    group: str
    path: str
    parameters: dict[str, Any]


class Timed(NamedTuple):
    ms: float
    call: Call


def fill(url: str, count: int) -> None:
    """Names and labels as fleets have them, nothing in order; beside the devices what grows with them."""
    store, chance = open_store(url), random.Random(1)
    profiles = [store.add_profile(f"type {number}") for number in range(PROFILES)]

    def insert_some(tx: Any, first: int, last: int) -> None:
        for number in range(first, last):
            is_gateway = number % GATEWAY_EVERY == 0
            tx.insert_device(
                NewDevice(
                    uuid=uuid4(), tenant_id=TENANT, profile_id=chance.choice(profiles),
                    name=f"SN-{chance.randrange(10**9):09d}-{number:06d}",
                    label=f"Sensor {chance.randrange(5000)} hall {number % 50}",
                    created_ms=BEGAN_MS + number // 10, document={"additionalInfo": {"gateway": is_gateway}},
                    is_gateway=is_gateway,
                )
            )  # fmt: skip

    for first in range(0, count, 5_000):
        store.run(insert_some, first, min(first + 5_000, count))
    store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        _fill_beside(connection, count, profiles, chance)
    engine.dispose()


def _fill_beside(connection: Connection, count: int, profiles: list[int], chance: random.Random) -> None:
    numbers = [row[0] for row in connection.execute(select(schema.device.c.id).order_by(schema.device.c.id))]
    common = {"tenant_id": TENANT, "created_ms": BEGAN_MS}
    _add(connection, schema.customer, (
        {"uuid": uuid4().bytes, "title": f"Customer {one:04d}", "document": "{}", "version": 1, **common}
        for one in range(CUSTOMERS)
    ))  # fmt: skip
    customers = [row[0] for row in connection.execute(select(schema.customer.c.id))]
    owned = schema.device.update().where(schema.device.c.id % 3 == 0)
    connection.execute(owned.values(customer_id=customers[0] + schema.device.c.id % CUSTOMERS))
    _add(connection, schema.presence, (
        {"device_id": one, "is_active": one % 4 != 0, "last_connect_ms": 1, "last_disconnect_ms": 0,
         "last_activity_ms": NOW_MS, "inactivity_alarm_ms": 0} for one in numbers
    ))  # fmt: skip
    gateways = numbers[::GATEWAY_EVERY]
    _add(connection, schema.sub_device, (
        {"device_id": gateway + 1 + one, "gateway_id": gateway, "connected_ms": 1, "is_created_by_gateway": True,
         "is_type_guessed": False} for gateway in gateways for one in range(BEHIND_EACH) if gateway + one < numbers[-1]
    ))  # fmt: skip
    _add(connection, schema.provisioning_log, (_attempt(one, numbers, profiles, chance) for one in range(count)))
    _add(connection, schema.certificate, (
        {"device_id": one, "authority_id": None, "fingerprint": chance.randbytes(32), "serial": f"{one:032x}",
         "subject": f"CN=SN-{one}", "issuer": "CN=Fleet", "not_before_ms": 1, "not_after_ms": BEGAN_MS + one * 60_000,
         "until_ms": None, "revoked_ms": None, "revocation_reason": "", **common} for one in numbers
    ))  # fmt: skip
    _add(connection, schema.admin_user, (
        {"uuid": uuid4().bytes, "username": f"user{one:05d}@example.org", "password_hash": "-",
         "authority": "TENANT_ADMIN", "customer_id": None, "role": "VIEWER", "generation": 0, "document": "{}",
         **common}
        for one in range(USERS)
    ))  # fmt: skip
    _add(connection, schema.batch, (
        {"uuid": uuid4().bytes, "touched_ms": NOW_MS, "state": "APPLIED", "is_atomic": False, "options": "{}",
         "idempotency_key": None, "digest": bytes(32), "row_count": 500, "position": 500,
         "counts": '{"CREATED":500}', "problem": "", **common} for _ in range(BATCHES)
    ))  # fmt: skip
    batches = [row[0] for row in connection.execute(select(schema.batch.c.id))]
    _add(connection, schema.batch_row, (
        {"batch_id": one, "number": number, "status": "CREATED", "name": f"SN-{number}", "code": "", "detail": "",
         "device_uuid": None, "source_sealed": None} for one in batches for number in range(1, 501)
    ))  # fmt: skip


def _attempt(one: int, numbers: list[int], profiles: list[int], chance: random.Random) -> dict[str, Any]:
    outcome = OUTCOMES[0] if chance.random() < 0.7 else chance.choice(OUTCOMES[1:])
    is_known = outcome != "INVALID_PROVISION_CREDENTIALS"
    return {
        "ref": f"R-{one:010x}", "at_ms": BEGAN_MS + one * 1_000, "transport": chance.choice(("mqtt", "http", "coap")),
        "source": f"10.{chance.randrange(4)}.{chance.randrange(256)}.{chance.randrange(256)}", "outcome": outcome,
        "stage": "stored", "detail": "" if outcome == OUTCOMES[0] else f"device {one} of profile type {one % 20}",
        "tenant_id": TENANT if is_known else None, "profile_id": chance.choice(profiles) if is_known else None,
        "device_id": numbers[one % len(numbers)], "device_name": f"SN-{chance.randrange(10**9):09d}-{one:06d}",
        "key_hint": "abcd…", "request": '{"deviceName":"SN","present":["provisionDeviceKey","provisionDeviceSecret"]}',
    }  # fmt: skip


def _add(connection: Connection, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    connection.execute(insert(table), list(rows))


# -- what is asked --------------------------------------------------------------------------------


class Known(NamedTuple):
    """Ids that paths and filters need."""

    customers: list[str]
    profiles: list[str]
    gateways: list[str]
    devices: list[str]
    batches: list[str]
    attempt_names: list[str]
    attempts_began_ms: int


def known_of(url: str) -> Known:
    engine = create_engine(url)
    with engine.connect() as connection:

        def ids(table: Any, *where: Any, at_most: int = 3) -> list[str]:
            return [
                str(UUID(bytes=row[0])) for row in connection.execute(select(table.c.uuid).where(*where).limit(at_most))
            ]

        log = schema.provisioning_log.c
        names = connection.execute(select(log.device_name).limit(3)).scalars().all()
        began_ms = connection.execute(select(func.min(log.at_ms))).scalar_one()
        found = Known(
            ids(schema.customer), ids(schema.device_profile, schema.device_profile.c.name == "type 7"),
            ids(schema.device, schema.device.c.is_gateway.is_(True)), ids(schema.device, at_most=20),
            ids(schema.batch), list(names), began_ms,
        )  # fmt: skip
    engine.dispose()
    return found


def _pages(group: str, path: str, count: int, *, size: int = 20, **parameters: Any) -> Iterator[Call]:
    """Shallow, half way and at the end."""
    for page in sorted({0, count // size // 2, max(0, count // size - 1)}):
        yield Call(group, path, {"pageSize": size, "page": page, **parameters})


def _sorted_pages(
    group: str, path: str, count: int, columns: tuple[str, ...], searches: tuple[str, ...] = ("",), **parameters: Any
) -> Iterator[Call]:
    for text in searches:
        for column in columns:
            for order in ("ASC", "DESC"):
                searched = {"textSearch": text} if text else {}
                yield from _pages(
                    group + (", search" if text else ""), path, count, sortProperty=column, sortOrder=order,
                    **searched, **parameters,
                )  # fmt: skip


def device_calls(count: int, known: Known) -> Iterator[Call]:
    for path, group in (("/api/tenant/devices", "devices"), ("/api/tenant/deviceInfos", "deviceInfos")):
        yield from _sorted_pages(group, path, count, SORTED_BY, SEARCHES)
        for column in SORTED_BY[:3]:
            yield from _pages(f"{group}, 100 a page", path, count, size=100, sortProperty=column)
        of_profile = count // PROFILES
        yield from _sorted_pages(f"{group} by type", path, of_profile, SORTED_BY[:3], ("", "12"), type="type 7")
    yield from _sorted_pages(
        "deviceInfos by profile", "/api/tenant/deviceInfos", count // PROFILES, SORTED_BY[:3], ("", "sn-"),
        deviceProfileId=known.profiles[0],
    )  # fmt: skip
    for active in ("true", "false"):
        yield from _sorted_pages(
            "deviceInfos by active", "/api/tenant/deviceInfos", count // 4, SORTED_BY, active=active
        )
    for customer in known.customers:
        path = f"/api/customer/{customer}/devices"
        yield from _sorted_pages("devices of customer", path, count // CUSTOMERS // 3, SORTED_BY, ("", "12"))
    yield Call("devices by ids", "/api/devices", {"deviceIds": ",".join(known.devices)})
    yield Call("device types", "/api/device/types", {})


def other_calls(count: int, known: Known) -> Iterator[Call]:
    names, gateways = ("createdTime", "name"), count // GATEWAY_EVERY
    yield from _sorted_pages("deviceProfiles", "/api/deviceProfiles", PROFILES, names, ("", "1"))
    yield from _sorted_pages("deviceProfileInfos", "/api/deviceProfileInfos", PROFILES, names, ("", "1"))
    yield Call("deviceProfile names", "/api/deviceProfile/names", {})
    yield from _sorted_pages("gateways", "/api/gateways", gateways, SORTED_BY[:4], ("", "12", "sensor 77"))
    for one in known.gateways:
        yield from _sorted_pages(
            "behind a gateway", f"/api/gateway/{one}/devices", BEHIND_EACH, SORTED_BY[:4], ("", "1")
        )
    yield from _sorted_pages("customers", "/api/customers", CUSTOMERS, ("createdTime", "title"), ("", "12"))
    yield from _sorted_pages("users", "/api/users", USERS, ("createdTime", "email", "role"), ("", "12"))
    yield from _sorted_pages("API keys", "/api/apiKeys", 1, names)
    columns = ("createdTime", "notAfter", "subject")
    yield from _sorted_pages("certificates", "/api/certificates", count, columns, ("", "12", "sn-77"))
    yield from _sorted_pages("certificates that end", "/api/certificates", count // 2, columns, endsWithinDays=30)
    yield from _pages("imports", "/api/imports", BATCHES)
    for one in known.batches:
        yield from _pages("rows of an import", f"/api/imports/{one}/rows", 500)
        yield from _pages("rows of an import", f"/api/imports/{one}/rows", 500, status="CREATED")
    yield from _sorted_pages("otaPackages", "/api/otaPackages", 1, ("createdTime", "title"))


def attempt_calls(count: int, known: Known) -> Iterator[Call]:
    path, columns = "/api/provisioning/attempts", ("createdTime", "outcome", "deviceName", "source")
    yield Call("attempts, newest", path, {"limit": 100})
    yield from _sorted_pages("attempts", path, count, columns, ("", "sn-", "12", "10.2.77", "profile type 7", "zzzz"))
    for outcome in OUTCOMES:
        yield from _sorted_pages("attempts by outcome", path, count // 10, columns, ("", "12"), outcome=outcome)
    for name in known.attempt_names:
        yield from _sorted_pages("attempts by device", path, 1, columns, deviceName=name)
    yield from _sorted_pages(
        "attempts by profile", path, count // PROFILES, columns, ("", "12"), deviceProfileId=known.profiles[0]
    )
    span = {"startTs": known.attempts_began_ms + count * 500, "endTs": known.attempts_began_ms + count * 600}
    yield from _sorted_pages("attempts by time", path, count // 10, columns, ("", "12"), **span)


# -- measuring ------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """What the process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(core: CoreProcess, calls: list[Call]) -> tuple[list[Timed], dict[str, float]]:
    """Each call's time, and by group the server's CPU time in ms by call."""
    session, found, used = requests.Session(), list[Timed](), dict[str, float]()
    session.headers["X-Authorization"] = f"Bearer {core.jwt}"
    by_group = defaultdict[str, list[Call]](list)
    for call in calls:
        by_group[call.group].append(call)
    for group, members in by_group.items():
        before_s = cpu_s(core.pid)
        for call in members:
            started = time.perf_counter()
            answer = session.get(core.http + call.path, params=call.parameters, timeout=60)
            found.append(Timed((time.perf_counter() - started) * 1000, call))
            assert answer.status_code == 200, f"{call}: {answer.text}"
        used[group] = (cpu_s(core.pid) - before_s) * 1000 / len(members)
    return found, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default="", help="groups whose names begin so")
    parser.add_argument("--url", help="of an empty database; a file of SQLite without it")
    parser.add_argument("--keep", type=Path, help="folder to fill once and use again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = (arguments.keep or Path(folder)) / "data"
        url = arguments.url or f"sqlite:///{data / 'fleet.db'}"
        if not data.exists():
            data.mkdir(parents=True)
            fill(url, arguments.devices)
        known, count = known_of(url), arguments.devices
        calls = [*device_calls(count, known), *other_calls(count, known), *attempt_calls(count, known)]
        calls = [one for one in calls if one.group.startswith(arguments.only)]
        core = CoreProcess(data, CLOUD_CORE__DATABASE__URL=url, CLOUD_CORE__DATABASE__KEY=KEY.hex())
        core.start()
        try:
            report([measured(core, calls) for _ in range(arguments.rounds)])
        finally:
            core.stop()


def report(rounds: list[tuple[list[Timed], dict[str, float]]]) -> None:
    """The best of the rounds, group by group, and the slowest calls of all by their best."""
    print(f"{'ms, best of ' + str(len(rounds)) + ' rounds':28}      p50      p95    worst  CPU/call     n")
    for group in rounds[0][1]:
        cpu_ms, count = min(used[group] for _, used in rounds), len(_times(rounds[0][0], group))
        print(f"{group:28} {_line([_times(timed, group) for timed, _ in rounds])} {cpu_ms:9.1f} {count:5}")
    print(f"{'all':28} {_line([_times(timed) for timed, _ in rounds])}")
    best = [min(same, key=lambda one: one.ms) for same in zip(*(timed for timed, _ in rounds), strict=True)]
    for ms, call in sorted(best, key=lambda one: -one.ms)[:25]:
        print(f"{ms:7.1f} ms {call.path} {call.parameters}")


def _times(timed: list[Timed], group: str | None = None) -> list[float]:
    return sorted(one.ms for one in timed if group in (None, one.call.group))


def _line(rounds: list[list[float]]) -> str:
    p50 = min(map(statistics.median, rounds))
    p95 = min(times[int(len(times) * 0.95)] for times in rounds)
    return f"{p50:8.1f} {p95:8.1f} {min(times[-1] for times in rounds):8.1f}"


if __name__ == "__main__":
    main()
