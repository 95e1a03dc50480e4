"""Histories over REST: aggregation and removal (wire-contract.md section 6.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from cloud_core.transports.http.rest import data_routes
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import StoreUnderTest

HOUR = 3_600_000


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    without_threads(monkeypatch)
    sqlite_store.add_profile()
    peer = Rest(sqlite_store)
    yield peer
    peer.close()


@pytest.fixture
def path(rest: Rest) -> str:
    """Of a device with values at 0 s to 9 s, and one of two hours later."""
    device = rest.made("/api/device", {"name": "d", "type": "sensor"})
    found = f"/api/plugins/telemetry/DEVICE/{id_of(device)}"
    packs = [{"ts": n * 1000, "values": {"n": n, "word": f"w{n}"}} for n in range(10)]
    packs += [{"ts": 2 * HOUR, "values": {"n": 0.5, "other": True}}]
    assert rest.call("POST", f"{found}/timeseries/ANY", packs) == (200, None)
    return found


def history(rest: Rest, path: str, query: str) -> Any:
    status, answer = rest.call("GET", f"{path}/values/timeseries?useStrictDataTypes=true&{query}")
    assert status == 200, answer
    return {key: [(point["ts"], point["value"]) for point in points] for key, points in answer.items()}


def refusal(rest: Rest, method: str, path: str) -> str:
    rest.send(f"{method} {path} HTTP/1.1\r\nHost: h\r\n{rest.headers(None)}Content-Length: 0\r\n\r\n".encode())
    ((status, _, body),) = rest.responses()
    assert status == 400
    return body.decode()


def test_a_long_history_is_made_into_json_beside_the_reactor(
    rest: Rest, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices are served meanwhile; the answer is the same as that of a short one."""
    whole = f"keys=n,word&startTs=0&endTs={3 * HOUR}"
    wanted, threads = history(rest, path, whole), []

    def in_thread(work: Callable[[], bytes]) -> Deferred[bytes]:
        threads.append(work)
        return succeed(work())

    monkeypatch.setattr(data_routes, "deferToThread", in_thread)
    assert (history(rest, path, whole), len(threads)) == (wanted, 0)
    monkeypatch.setattr(data_routes, "SHAPED_AT_ONCE", 20)
    assert (history(rest, path, whole), len(threads)) == (wanted, 1)


@pytest.mark.parametrize(
    ("agg", "points"),
    [
        ("MIN", [(2500, 0), (7500, 5)]), ("MAX", [(2500, 4), (7500, 9)]), ("AVG", [(2500, 2.0), (7500, 7.0)]),
        ("SUM", [(2500, 10), (7500, 35)]), ("COUNT", [(2500, 5), (7500, 5)]),
    ],
)  # fmt: skip
def test_a_history_in_intervals(rest: Rest, path: str, agg: str, points: Any) -> None:
    """One point for each interval with data, at its middle; in the other order where that is asked."""
    query = f"keys=n&startTs=0&endTs=10000&interval=5000&agg={agg}"
    assert history(rest, path, query) == {"n": points}
    assert history(rest, path, query + "&orderBy=DESC") == {"n": points[::-1]}
    assert history(rest, f"{path}", query.replace("endTs=10000", "endTs=9999"))["n"][1][0] == 7499


def test_kinds_of_values_are_aggregated_each_in_their_way(rest: Rest, path: str) -> None:
    """Without an interval over the whole range; texts have a least and a greatest but no sum."""
    whole = f"startTs=0&endTs={3 * HOUR}&agg="
    assert history(rest, path, whole + "MAX")["word"] == [(3 * HOUR // 2, "w9")]
    assert history(rest, path, whole + "MIN")["n"] == [(3 * HOUR // 2, 0)]
    assert set(history(rest, path, whole + "SUM")) == {"n"}
    assert {key: points[0][1] for key, points in history(rest, path, whole + "COUNT").items()} == {
        "n": 11, "word": 10, "other": 1,
    }  # fmt: skip
    status, answer = rest.call("GET", f"{path}/values/timeseries?keys=n&{whole}AVG")
    assert (status, answer["n"][0]["value"]) == (200, str(45.5 / 11))


def test_the_older_name_of_the_history(rest: Rest, path: str) -> None:
    status, answer = rest.call("GET", f"{path}/values/timeseries/history?keys=n&startTs=0&endTs=1001&orderBy=ASC")
    assert (status, [point["value"] for point in answer["n"]]) == (200, ["0", "1"])
    assert "startTs" in refusal(rest, "GET", f"{path}/values/timeseries/history?keys=n")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("agg=MEDIAN&startTs=0&endTs=1", "'agg' must be one of NONE, MIN, MAX, AVG, SUM, COUNT"),
        ("agg=AVG&startTs=0&endTs=100000000000&interval=1", "Number of intervals is too high"),
        ("agg=AVG&startTs=5&endTs=5&interval=1", "endTs must be above startTs"),
        ("agg=AVG&startTs=0&endTs=9&intervalType=MONTH", "'intervalType' must be MILLISECONDS"),
        ("startTs=0", "'endTs' is not present"),
        ("startTs=0&endTs=9&orderBy=UP", "'orderBy' must be ASC or DESC"),
    ],
)
def test_unusable_queries_of_histories(rest: Rest, path: str, query: str, text: str) -> None:
    assert text in refusal(rest, "GET", f"{path}/values/timeseries?keys=n&{query}")


def test_a_range_of_a_key_is_removed(rest: Rest, path: str) -> None:
    """Other keys of the same times stay, and so does the latest value outside of the range."""
    answer = rest.call("DELETE", f"{path}/timeseries/delete?keys=n&startTs=2000&endTs=9000")
    assert answer == (200, None)
    left = history(rest, path, f"keys=n,word&startTs=0&endTs={3 * HOUR}&orderBy=ASC")
    assert [value for _, value in left["n"]] == [0, 1, 9, 0.5] and len(left["word"]) == 10
    assert history(rest, path, "keys=n") == {"n": [(2 * HOUR, 0.5)]}


@pytest.mark.parametrize(
    ("options", "value"), [("", None), ("&deleteLatest=false", 0.5), ("&rewriteLatestIfDeleted=true", 9)]
)
def test_the_latest_value_within_the_range(rest: Rest, path: str, options: str, value: Any) -> None:
    """Goes, stays, or gives way to the newest that is older."""
    removal = f"{path}/timeseries/delete?keys=n&startTs={HOUR}&endTs={3 * HOUR}{options}"
    assert rest.call("DELETE", removal) == (200, None)
    assert history(rest, path, "keys=n")["n"][0][1] == value
    assert len(history(rest, path, f"keys=n&startTs=0&endTs={3 * HOUR}")["n"]) == 10


def test_all_data_of_keys_is_removed(rest: Rest, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part by part, whatever the parts are."""
    monkeypatch.setattr("cloud_core.core.histories.REMOVED_AT_ONCE", 3)
    assert rest.call("DELETE", f"{path}/timeseries/delete?keys=n,none&deleteAllDataForKeys=true") == (200, None)
    assert set(history(rest, path, f"startTs=0&endTs={3 * HOUR}")) == {"word", "other"}
    assert rest.call("GET", f"{path}/keys/timeseries") == (200, ["other", "word"])


def test_unusable_removals(rest: Rest, path: str) -> None:
    assert refusal(rest, "DELETE", f"{path}/timeseries/delete") == "Empty keys: []"
    assert refusal(rest, "DELETE", f"{path}/timeseries/delete?keys=n&startTs=1") == (
        "When deleteAllDataForKeys is false, start and end timestamp values shouldn't be empty"
    )


def test_telemetry_with_a_time_to_live_is_stored(rest: Rest, path: str) -> None:
    assert rest.call("POST", f"{path}/timeseries/ANY/3600", {"fresh": 1}) == (200, None)
    assert "fresh" in history(rest, path, "")
    assert "whole number of seconds" in refusal(rest, "POST", f"{path}/timeseries/ANY/soon")
