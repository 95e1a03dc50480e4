"""The local door over real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import requests
from twisted.internet import reactor

from edge_gateway.config import Config
from edge_gateway.console.local_door import MAX_TAPS, LocalDoor
from edge_gateway.console.local_port import DoorUnavailable, LocalPort
from edge_gateway.settings import Local
from tests.support.asyncio_tests import asyncio_test
from tests.support.local_doors import DoorUnderTest, FakeGateway, table

PAGE_HEADER = {"X-Edge-Gateway": "page"}
TEXT = '[[plant]]\nname = "north"\npassword = "north-pass"\n'


async def session(door: DoorUnderTest) -> dict[str, str]:
    answer = await door.ask("POST", "/api/login", json={"pin": door.pin}, headers=PAGE_HEADER)
    assert answer.status_code == 200, answer.text
    return answer.cookies.get_dict()


# -- who may come in --------------------------------------------------------------------------------


@asyncio_test
async def test_without_login_there_is_the_page_and_nothing_else(tmp_path: Path) -> None:
    """Every route of the API asks for token or PIN."""
    async with DoorUnderTest(tmp_path) as door:
        for path in ("/api/status", "/api/devices", "/api/tap", "/api/samples", "/api/config", "/api/metrics",
                     "/api/apply"):  # fmt: skip
            assert (await door.ask("GET", path)).status_code == 401, path
        for path in ("/api/check", "/api/apply", "/api/logout"):
            assert (await door.ask("POST", path, json={}, headers=PAGE_HEADER)).status_code == 401, path
        wrong = {"Authorization": "Bearer wrong"}
        assert (await door.ask("GET", "/api/status", headers=wrong)).status_code == 401
        assert (await door.ask("GET", "/")).status_code == 200


@asyncio_test
async def test_every_answer_is_locked_down(tmp_path: Path) -> None:
    """No foreign script, frame, type guess or cache; the page itself has nothing inline."""
    async with DoorUnderTest(tmp_path) as door:
        for path in (
            "/",
            "/page.js",
            "/views.js",
            "/common.js",
            "/page.css",
            "/icon.svg",
            "/api/status",
            "/none",
            "/a/b",
        ):
            answer = await door.ask("GET", path)
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "unsafe" not in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Server"] == "edge-gateway"
        page = (await door.ask("GET", "/")).text
        assert "<style" not in page and " style=" not in page and "onclick" not in page and "http" not in page


@asyncio_test
async def test_the_pin_opens_a_session_in_a_safe_cookie(tmp_path: Path) -> None:
    """Scripts cannot read it, foreign pages cannot send it, the log-out ends it."""
    async with DoorUnderTest(tmp_path) as door:
        answer = await door.ask("POST", "/api/login", json={"pin": door.pin}, headers=PAGE_HEADER)
        assert {"httponly", "samesite=strict"} <= set(answer.headers["Set-Cookie"].lower().split("; "))
        cookies = answer.cookies.get_dict()
        assert (await door.ask("GET", "/api/status", cookies=cookies)).status_code == 200
        await door.ask("POST", "/api/logout", cookies=cookies, headers=PAGE_HEADER)
        assert (await door.ask("GET", "/api/status", cookies=cookies)).status_code == 401


@asyncio_test
async def test_changes_need_what_foreign_pages_cannot_send(tmp_path: Path) -> None:
    """A session alone changes nothing: the page's header must be there, and the origin must be ours."""
    async with DoorUnderTest(tmp_path) as door:
        cookies = await session(door)
        foreign = PAGE_HEADER | {"Origin": "http://evil.example"}
        own = PAGE_HEADER | {"Origin": door.url}
        for headers, status in (({}, 403), (foreign, 403), (own, 200)):
            answer = await door.ask("POST", "/api/check", cookies=cookies, headers=headers, json={"text": ""})
            assert answer.status_code == status
        assert (await door.ask("POST", "/api/login", json={"pin": door.pin})).status_code == 403


@asyncio_test
async def test_five_wrong_pins_close_the_login_for_a_while(tmp_path: Path) -> None:
    """The answer says how long."""
    async with DoorUnderTest(tmp_path) as door:
        wrong = {"pin": "x"}
        answers = [await door.ask("POST", "/api/login", json=wrong, headers=PAGE_HEADER) for _ in range(5)]
        assert [one.status_code for one in answers] == [403] * 5
        right = await door.ask("POST", "/api/login", json={"pin": door.pin}, headers=PAGE_HEADER)
        assert right.status_code == 429 and 1 <= int(right.headers["Retry-After"]) <= 5


@asyncio_test
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8090", 200), ("127.0.0.1", 200), ("[::1]:8090", 200), ("10.0.0.5:8090", 200),
        (socket.gethostname(), 200), ("evil.example:8090", 421), ("127.0.0.1.evil.example", 421), ("[::1", 421),
        ("evil.example@127.0.0.1", 421),
    ],
)  # fmt: skip
async def test_only_own_names_are_answered(tmp_path: Path, host: str, status: int) -> None:
    """A foreign name that is made to point here is DNS rebinding."""
    async with DoorUnderTest(tmp_path) as door:
        assert (await door.ask("GET", "/healthz", headers={"Host": host})).status_code == status


@asyncio_test
async def test_bodies_are_bounded(tmp_path: Path) -> None:
    """What is too large, or of unknown length, is turned away unread."""
    async with DoorUnderTest(tmp_path) as door:
        large = await door.ask("POST", "/api/check", headers=door.token, data=b"x" * (1024 * 1024 + 1))
        assert large.status_code == 413
        chunked = await door.ask("POST", "/api/check", headers=door.token, data=iter([b"{}"]))
        assert chunked.status_code == 413
        assert (await door.ask("POST", "/api/check", headers=door.token, data=b"\xff{")).status_code == 400


@asyncio_test
async def test_a_taken_port_is_said_in_a_sentence(tmp_path: Path) -> None:
    """With what to change in the configuration."""
    async with DoorUnderTest(tmp_path) as door:
        other = LocalPort(settings=Local(port=door.port), data_dir=tmp_path, reactor=reactor, serve=door.serve)
        with pytest.raises(DoorUnavailable, match=r"cannot use 127.0.0.1:\d+: .*\[local\]"):
            await other.start()
        await other.stop()
        assert (await door.ask("GET", "/healthz")).text == "ok\n"


# -- what is asked ----------------------------------------------------------------------------------


@asyncio_test
async def test_status_names_the_configured_connectors(tmp_path: Path) -> None:
    """With kind and health, also those disabled; not those that are gone, and no samples."""
    gateway = FakeGateway(Config(connectors=(table("north"), table("spare", is_enabled=False))))
    gateway.healths |= {"gone": ("stopped", "")}
    del gateway.healths["spare"]
    async with DoorUnderTest(tmp_path, gateway=gateway) as door:
        status = await door.get("/api/status")
        assert {name: (one["kind"], one["health"]) for name, one in status["connectors"].items()} == {
            "north": ("plant", "healthy"), "spare": ("plant", "stopped"),
        }  # fmt: skip
        assert status["rates"] == {"inPerS": 0, "outPerS": 0} and status["apply"]["state"] == "none"
        assert "samples" not in status and "samples" not in status["connectors"]["north"]


@asyncio_test
async def test_samples_come_newest_first_with_their_connector(tmp_path: Path) -> None:
    """What was turned away, with the reason."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        samples = (await door.get("/api/samples"))["samples"]
        assert [(one["connector"], one["why"]) for one in samples] == [
            ("north", "no JSON"), ("", "the core does not take it"),
        ]  # fmt: skip


@asyncio_test
async def test_devices_are_searched_and_paged(tmp_path: Path) -> None:
    """In the order of their names."""
    async with DoorUnderTest(tmp_path) as door:
        for number in (3, 1, 2):
            door.gateway.add_device(f"Meter-{number}", connector="south" if number == 2 else "north")
        page = await door.get("/api/devices?pageSize=2&page=1")
        assert (page["total"], [one["name"] for one in page["devices"]]) == (3, ["Meter-3"])
        assert [one["name"] for one in (await door.get("/api/devices?search=meter-1"))["devices"]] == ["Meter-1"]
        assert [one["name"] for one in (await door.get("/api/devices?connector=south"))["devices"]] == ["Meter-2"]
        for query in ("page=-1", "pageSize=0", "pageSize=1001", "page=x", "page=²"):
            assert (await door.ask("GET", f"/api/devices?{query}", headers=door.token)).status_code == 400


@asyncio_test
async def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    """With escaped labels."""
    gateway = FakeGateway(Config(connectors=(table('no"rth\\'),)))
    async with DoorUnderTest(tmp_path, gateway=gateway) as door:
        answer = await door.ask("GET", "/api/metrics", headers=door.token)
        lines = answer.text.splitlines()
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "edge_gateway_core_connected 1" in lines and "edge_gateway_spool_records 4" in lines
        assert 'edge_gateway_records_dropped_total{reason="age"} 3' in lines
        assert 'edge_gateway_connector_health{connector="no\\"rth\\\\",health="healthy"} 1' in lines


@asyncio_test
async def test_healthz_says_when_the_spool_does_not_store(tmp_path: Path) -> None:
    """Without a log-in, for whoever watches the machine."""

    async def is_storing() -> bool:
        return False

    async with DoorUnderTest(tmp_path, is_storing=is_storing) as door:
        assert (await door.ask("GET", "/healthz")).status_code == 503


# -- live -------------------------------------------------------------------------------------------


class Reader:
    """Reads events in a thread."""

    def __init__(self, door: DoorUnderTest, query: str = "") -> None:
        self._door, self._query = door, query
        self.answer: requests.Response | None = None

    async def __aenter__(self) -> Reader:
        before = len(self._door.gateway.listeners)
        self.answer = await self._door.ask("GET", f"/api/tap{self._query}", headers=self._door.token, stream=True)
        assert self.answer.status_code == 200, self.answer.text
        assert len(self._door.gateway.listeners) == before + 1
        self._lines = self.answer.iter_lines(chunk_size=1)
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self.answer is not None
        self.answer.close()

    async def data(self) -> Any:
        """The next event's; for `dropped` the count."""
        while True:
            line = await asyncio.to_thread(next, self._lines)
            if line.startswith(b"data: "):
                return json.loads(line[6:])


@asyncio_test
async def test_a_live_view_shows_readings_with_their_raw_values(tmp_path: Path) -> None:
    """Those alone that its filter takes; when the reader goes away, nobody listens any more."""
    async with DoorUnderTest(tmp_path) as door:
        async with Reader(door, "?device=meter-*&connector=north") as reader:
            door.gateway.says("pump", power=1)
            door.gateway.says("meter-1", connector="south", power=2)
            door.gateway.says("Meter-[1]", power=3)
            event = await reader.data()
            assert (event["device"], event["telemetry"], event["raw"]) == ("Meter-[1]", {"power": 3}, {"power": "0x01"})
            assert event["ts"] is None and event["at"] > 0 and event["connector"] == "north"
        while door.gateway.listeners:
            await asyncio.sleep(0.01)


@asyncio_test
async def test_a_brackets_in_a_device_name_are_no_pattern(tmp_path: Path) -> None:
    """Names are matched as they are written."""
    async with DoorUnderTest(tmp_path) as door, Reader(door, "?device=m[1]") as reader:
        door.gateway.says("m1", a=1)
        door.gateway.says("m[1]", a=2)
        assert (await reader.data())["device"] == "m[1]"


@asyncio_test
async def test_a_flood_is_dropped_and_counted(tmp_path: Path) -> None:
    """The view's queue is bounded; what was not shown is told."""
    async with DoorUnderTest(tmp_path) as door, Reader(door) as reader:
        for number in range(1_500):
            door.gateway.says("meter", n=number)
        shown = 0
        while isinstance(event := await reader.data(), dict):
            assert event["telemetry"] == {"n": shown}
            shown += 1
        assert (shown, event) == (1_000, 500)


@asyncio_test
async def test_live_views_are_counted(tmp_path: Path) -> None:
    """One too many is turned away with a clear word; the stop of the door ends them all."""
    async with DoorUnderTest(tmp_path) as door:
        readers = [Reader(door) for _ in range(MAX_TAPS)]
        for reader in readers:
            await reader.__aenter__()
        refused = await door.ask("GET", "/api/tap", headers=door.token)
        assert refused.status_code == 503 and "close one" in refused.json()["error"]
        await door.door.stop()
        assert door.gateway.listeners == []
        for reader in readers:
            await reader.__aexit__()


# -- the configuration ------------------------------------------------------------------------------


@asyncio_test
async def test_the_file_is_shown_without_its_secrets(tmp_path: Path) -> None:
    """Everything else is as it is written."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        shown = await door.get("/api/config")
        assert shown["text"] == TEXT.replace("north-pass", "••••") and shown["isMasked"]


@asyncio_test
async def test_a_text_is_checked_with_line_and_column(tmp_path: Path) -> None:
    """Problems name their place; nothing is changed."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        wrong = '[[plant]]\nname = "north"\npassword = "••••"\nhots = "x"\n'
        answer = await door.post("/api/check", {"text": wrong})
        assert not answer["ok"] and [(one["line"], one["column"]) for one in answer["problems"]] == [(4, 1)]
        assert "did you mean" in answer["problems"][0]["text"]
        good = await door.post("/api/check", {"text": TEXT.replace("north-pass", "••••")})
        assert good["ok"] and good["connectors"] == 1
        assert door.gateway.applied == [] and door.file.read_text() == TEXT


@asyncio_test
async def test_a_hidden_secret_that_nobody_knows_is_a_problem(tmp_path: Path) -> None:
    """The dots must not become the password."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        answer = await door.post("/api/check", {"text": TEXT + '[[plant]]\nname = "new"\npassword = "••••"\n'})
        assert [one["line"] for one in answer["problems"]] == [6]


@asyncio_test
async def test_the_changed_file_is_applied(tmp_path: Path) -> None:
    """First the difference alone, then for real."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        door.file.write_text(TEXT + '[[plant]]\nname = "west"\n')
        dry = await door.post("/api/apply", {"dryRun": True})
        assert dry["difference"]["added"] == ["west"] and door.gateway.applied == []
        begun = await door.post("/api/apply", {"watchS": 0}, status=202)
        assert begun["difference"]["unchanged"] == ["north"]
        assert (await door.trial())["state"] == "good"
        assert [one.name for one in door.gateway.config.connectors] == ["north", "west"]


@asyncio_test
async def test_problems_in_the_file_change_nothing(tmp_path: Path) -> None:
    """They are told with their lines."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        door.file.write_text("[[plant]]\n")
        answer = await door.post("/api/apply", {}, status=422)
        assert answer["problems"] and door.gateway.applied == []


@asyncio_test
async def test_a_text_of_the_page_becomes_the_file_when_it_is_good(tmp_path: Path) -> None:
    """With its secrets, its rights, and only if nobody else changed the file meanwhile."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        door.file.chmod(0o640)
        shown = await door.get("/api/config")
        wish = {"text": shown["text"] + 'host = "10.0.0.9"\n', "basedOn": shown["version"], "watchS": 0}
        await door.post("/api/apply", wish, status=202)
        assert (await door.trial())["state"] == "good"
        assert door.file.read_text() == TEXT + 'host = "10.0.0.9"\n'
        assert door.file.stat().st_mode & 0o777 == 0o640
        assert "changed meanwhile" in (await door.post("/api/apply", wish, status=409))["error"]


@asyncio_test
async def test_a_text_that_breaks_a_connector_never_becomes_the_file(tmp_path: Path) -> None:
    """The last good configuration runs and stays in the file."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        old = door.gateway.config
        door.gateway.breaks = lambda config: {} if config is old else {"north": ("failed", "no route")}
        shown = await door.get("/api/config")
        wish = {"text": shown["text"] + 'host = "10.0.0.9"\n', "basedOn": shown["version"], "watchS": 0}
        await door.post("/api/apply", wish, status=202)
        trial = await door.trial()
        assert trial["state"] == "rolled back" and "no route" in trial["reason"]
        assert door.gateway.config is old and door.file.read_text() == TEXT


@asyncio_test
async def test_one_configuration_at_a_time_is_on_trial(tmp_path: Path) -> None:
    """The second is turned away; the stop of the door ends the watch."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        await door.post("/api/apply", {"watchS": 600}, status=202)
        assert "on trial" in (await door.post("/api/apply", {}, status=409))["error"]
        assert (await door.get("/api/apply"))["remainingS"] > 500
        for wrong in ({"watchS": -1}, {"watchS": 1e9}, {"watch": 1}, {"watchS": "x"}):
            await door.post("/api/apply", wrong, status=400)


@asyncio_test
async def test_without_a_file_there_is_nothing_to_edit(tmp_path: Path) -> None:
    """The page says how to start the gateway so that there is."""
    door = DoorUnderTest(tmp_path)
    door.door = LocalDoor(gateway=door.gateway, data_dir=tmp_path, reactor=reactor,
                          load_config=Config)  # fmt: skip
    async with door:
        assert "--config FILE" in (await door.ask("GET", "/api/config", headers=door.token)).json()["error"]
        await door.post("/api/check", {"text": ""}, status=409)
        await door.post("/api/apply", {"text": ""}, status=409)
        await door.post("/api/apply", {"watchS": 0}, status=202)


@asyncio_test
async def test_a_file_too_large_or_damaged_is_not_shown(tmp_path: Path) -> None:
    """In a sentence; the commands still work."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        for content in (b"#" * (512 * 1024 + 1), b'password = "abcdef'):
            door.file.write_bytes(content)
            answer = await door.ask("GET", "/api/config", headers=door.token)
            assert answer.status_code == 409 and "abcdef" not in answer.text
        door.file.unlink()
        assert (await door.ask("GET", "/api/config", headers=door.token)).status_code == 409


@asyncio_test
async def test_a_file_that_somebody_changed_during_the_trial_stays_theirs(tmp_path: Path) -> None:
    """The page's text is taken back instead."""
    async with DoorUnderTest(tmp_path, TEXT) as door:
        shown = await door.get("/api/config")
        wish = {"text": shown["text"] + 'host = "10.0.0.9"\n', "basedOn": shown["version"], "watchS": 0.5}
        await door.post("/api/apply", wish, status=202)
        door.file.write_text(TEXT + "# mine\n")
        trial = await door.trial()
        assert trial["state"] == "rolled back" and "somebody else changed it" in trial["reason"]
        assert door.file.read_text() == TEXT + "# mine\n"


@asyncio_test
async def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is closed; when others end there is room again."""
    monkeypatch.setattr("edge_gateway.console.door_http.MAX_CONNECTIONS", 3)
    async with DoorUnderTest(tmp_path) as door:
        open_ones = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(requests.ConnectionError):
            await door.ask("GET", "/healthz")
        for one in open_ones:
            one.close()
        await asyncio.sleep(0.1)
        assert (await door.ask("GET", "/healthz")).status_code == 200
